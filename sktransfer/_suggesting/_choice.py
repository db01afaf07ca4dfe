"""Choose settings from what was measured, each with its reason: the table of size and similarity.

The figures in the reasons are those of benchmarks/results/accuracy.md, of MobileNetV2. A choice is a pure function of
numbers that were counted and measured, so that the same data gives the same settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sktransfer._probing._targets import Targets
from sktransfer._similarity._domain_gap import DomainGap

# Samples per class below which tuning was worth nothing (with 20; with 36 to 60 it was), and beyond which nothing was
# measured here and the textbooks' table stands alone.
SMALL, LARGE = 30, 200
# Accuracy of a probe on the features from which on tuning was worth nothing, with up to 60 samples per class.
ENOUGH = 0.93
# So many samples count like one per class where numbers are predicted: as if there were ten classes.
NUMBERS_PER_CLASS = 10
# The largest class over the smallest, from which on classes are weighed.
UNEVEN = 3.0


@dataclass(frozen=True)
class Situation:
    """Counts and measurements that a choice depends on.

    Parameters
    ----------
    kind : {"classes", "labels", "numbers"}
        What is predicted.
    counts : tuple of int
        Samples of each class, or with each label; of numbers, all of them.
    gap : DomainGap
        How near the data is.
    """

    kind: str
    counts: tuple[int, ...]
    gap: DomainGap

    @classmethod
    def of(cls, targets: Targets, gap: DomainGap) -> "Situation":
        """Count."""
        return cls(targets.kind, tuple(map(int, targets.counts)), gap)

    @property
    def per_class(self) -> float:
        """The middle class's number of samples, or what counts like it."""
        if self.kind == "numbers":
            return self.counts[0] / NUMBERS_PER_CLASS
        ordered, half = sorted(self.counts), len(self.counts) // 2
        return float(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)

    @property
    def size(self) -> str:
        """Number of samples, in words."""
        if self.kind == "numbers":
            return f"{self.counts[0]} samples (10 count like one per class)"
        one = "class" if self.kind == "classes" else "label"
        return f"{self.per_class:g} samples per {one} ({len(self.counts)} {one}{'es' if one == 'class' else 's'})"

    @property
    def why_different(self) -> str:
        """Why the data is unlike what the network was trained on; empty where it is not."""
        gap = self.gap
        if gap.level in ("far", "very far"):
            return f"the data is {gap.level} (gap {gap.gap:.2f})"
        if gap.negative_transfer:
            return f"no block has better features than {gap.baseline_name}"
        best = gap.best_block
        if gap.earlier_is_better and best is not None:
            return f"features are better after an earlier block ({best.name}) than at the end"
        return ""

    @property
    def why_similar(self) -> str:
        """Why the data is taken for similar where it is not found different."""
        if self.gap.level is not None:
            return f"the data is {self.gap.level} (gap {self.gap.gap:.2f})"
        if self.gap.best_block is not None:
            return "features are best at the end of the network"
        return "there is no sign that the data is unlike the network's training data"


def choose(situation: Situation) -> dict[str, tuple[Any, str]]:
    """Choose settings.

    Parameters
    ----------
    situation : Situation
        What was counted and measured.

    Returns
    -------
    dict of str to tuple
        By parameter its value, and why.
    """
    depth, why = _freeze_depth(situation)
    layer = "the head also uses the last stages, weighted on held-out samples: +2 points with 20 per class"
    if situation.why_different:
        layer = f"{situation.why_different}, so the head needs earlier blocks: it uses the last stages, weighted"
    chosen: dict[str, tuple[Any, str]] = {"freeze_depth": (depth, why)}
    if depth == "all":
        chosen["strategy"] = ("linear_probe", "only the head is trained; it is solved exactly")
        chosen["layer"] = ("stages", layer)
    else:
        chosen["strategy"] = (
            "lp_ft",
            "a solved head first, so that tuning does not spoil what the network learned",
        )
        chosen["layer"] = ("stages", layer)
        chosen["lr"] = (3e-5, "the default, with which the gains above were measured")
        chosen["max_epochs"] = (10, "the default, with which the gains above were measured")
    if situation.kind == "classes" and (ratio := _ratio(situation.counts)) >= UNEVEN:
        why = f"the largest class has {ratio:.0f} times as many samples as the smallest,"
        chosen["class_weight"] = ("balanced", f"{why} so all classes count the same (overall accuracy may fall)")
    return chosen


def _freeze_depth(situation: Situation) -> tuple[Any, str]:
    size, different, similar = situation.size, situation.why_different, situation.why_similar
    if situation.per_class < SMALL:
        return "all", (
            f"{size} are few: with 5 and 20 per class, tuning the last quarter brought +0.6 ± 0.8 and -0.1 ± 0.5 points"
        )
    last = situation.gap.last_block.score
    if situation.per_class < LARGE:
        if different and situation.kind == "classes" and last is not None and last.mean >= ENOUGH:
            return "all", (
                f"{size}, and {different}, but a probe on its features scores {last.mean:.2f} already: with up to 60 "
                "per class, tuning brought nothing on sets with such scores"
            )
        if different:
            return 0, (
                f"{size}, and {different}: with up to 60 per class, tuning all brought 4.6 points on each of three "
                "sets; 0.75 takes about a tenth of the time, for less"
            )
        return "all", (
            f"{size}, and {similar}: with 60 per class, tuning cost 1.4 points on photos of ants and bees and 0.8 on "
            "CIFAR-10"
        )
    if different:
        return 0, f"{size} are many, and {different}: all blocks are worth tuning (textbooks; measured up to 60 here)"
    return 0.75, f"{size} are many, and {similar}: late blocks are worth tuning (textbooks; measured up to 60 here)"


def _ratio(counts: Sequence[int]) -> float:
    return max(counts) / max(1, min(counts))
