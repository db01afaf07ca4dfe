"""Measure accuracy and speed on texts against what one would write without the package.

    python benchmarks/texts.py [--assets FOLDER] [--only SECTION ...] [--quick] [--whole-grid] [--output FOLDER]

2,000 film-review sentences and MiniLM, on the CPU; writes texts.json with every figure and texts.md with a table. The
settings of the tuned network were chosen on other sentences of the same files (2,000 to 3,000 of each) by
`--choose-settings`. `--quick` tries everything on a few generated sentences and a tiny random network.
"""

import argparse
import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import Others, Record, in_turns, machine, rates, stopwatch
from reporting import BUSY, read_results, table, write_results
from sentences import Sentences, assets_or_none, generated, real
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from text_peers import TRAINERS, is_here, sentence_encoder, trainer_grid

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, clear_cache

HERE = Path(__file__).resolve().parent
DEPTHS = [1, 4, "all"]  # all layers trained, the upper half, none
RATES = [5e-5, 1e-4]
EPOCHS = 3
BATCH_SIZES = (8, 16, 64, 128)  # of encode, next to 32, which is its default

# The best of CHOICES by `--choose-settings`.
SETTINGS = {"strategy": "fine_tune", "lr": 1e-4, "max_epochs": 3}
CHOICES = [
    SETTINGS,
    {"strategy": "fine_tune", "lr": 1e-4, "max_epochs": 3, "batch_size": 16},
    {"strategy": "lp_ft", "lr": 5e-5, "max_epochs": 4, "batch_size": 16},
    {"strategy": "lp_ft", "lr": 1e-4, "max_epochs": 3},
    {"strategy": "lp_ft", "lr": 1e-4, "max_epochs": 3, "batch_size": 16},
    {"strategy": "lp_ft", "lr": 2e-4, "max_epochs": 2, "batch_size": 16},
    {"strategy": "lp_ft", "lr": 2e-4, "max_epochs": 3},
    {"strategy": "lp_ft", "lr": 3e-4, "max_epochs": 3, "layer_decay": 0.7},
]


@dataclass(frozen=True)
class TextSetting:
    """What every section is given: sentences, how often to measure, and of the grid all or a part."""

    sentences: Sentences
    repeats: int
    quick: bool
    whole_grid: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def tuned(setting: TextSetting, **parameters) -> FineTunedClassifier:
    return FineTunedClassifier(setting.sentences.backbone, **{"freeze_depth": 1, "random_state": 0, **parameters})


def accuracy(setting: TextSetting) -> list[Record]:
    """Cross-validate three ways from sentences to classes on the same five folds."""
    logistic = LogisticRegression(max_iter=1000)
    first, *others = {
        "TF-IDF + LogisticRegression": make_pipeline(TfidfVectorizer(), logistic),
        "MiniLM features + LogisticRegression": make_pipeline(
            PretrainedFeatureExtractor(setting.sentences.backbone), logistic
        ),
        "FineTunedClassifier": tuned(setting, **SETTINGS | ({"max_epochs": 1} if setting.quick else {})),
    }.items()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    X, y = setting.sentences.array, setting.sentences.labels
    scores = {name: cross_val_score(model, X, y, cv=folds, error_score="raise") for name, model in [first, *others]}
    plain = scores[first[0]]
    return [
        Record(
            f"accuracy of {name}, 5 folds",
            "accuracy",
            list(scores[name]),
            list(plain),
            first[0],
            note=f"mean {scores[name].mean():.3f} ± {scores[name].std():.3f}, against {plain.mean():.3f} "
            f"± {plain.std():.3f}" + (f"; {_words(SETTINGS)}" if name == "FineTunedClassifier" else ""),
        )
        for name, _ in others
    ]


def grid(setting: TextSetting) -> list[Record]:
    """Search depth and rate: the package, and the Trainer, which runs once in each of the ways that it may be run."""
    X, y = setting.sentences.array, setting.sentences.labels
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    depths, learning_rates, epochs = DEPTHS, RATES, setting.size(EPOCHS, 1)
    if not setting.whole_grid:
        learning_rates, folds = RATES[1:], folds[:1]
    if setting.quick:
        depths = DEPTHS[:1]
    candidates = [(depth, rate) for depth in depths for rate in learning_rates]
    searches: list[GridSearchCV] = []

    def ours(precision: str) -> None:
        clear_cache()
        model = tuned(setting, strategy="fine_tune", max_epochs=epochs, precision=precision)
        parameters = {"freeze_depth": depths, "lr": learning_rates}
        searches.append(GridSearchCV(model, parameters, cv=folds, refit=False, error_score="raise").fit(X, y))

    means: dict[str, list[float]] = {}
    spent_by_depth: dict[str, dict[object, float]] = {}

    def peer(name: str) -> None:
        means[name], spent = trainer_grid(
            setting.sentences.model, list(X), y, candidates, folds, epochs, **TRAINERS[name]
        )
        spent_by_depth[name] = _by_depth(zip(candidates, spent, strict=True))

    def timed(name: str, task: Callable[[], None]) -> float:
        spent = stopwatch(task)
        print(f"  {name}: {spent:.0f} s", flush=True)
        return spent

    turns = [timed("ours", lambda: ours("auto"))]
    ways = TRAINERS if is_here("accelerate") else {}
    seconds = {name: [timed(name, lambda name=name: peer(name))] for name in ways}
    turns.append(timed("ours", lambda: ours("auto")))
    what = f"{len(candidates)} candidates x {len(folds)} folds x {epochs} epochs"
    note = "" if setting.whole_grid else f"of {len(DEPTHS) * len(RATES)} x 3, those with lr={RATES[1]:g} in one fold"
    records = [
        Record(
            f"grid of depth and rate, {what}",
            "s",
            turns,
            spent,
            name,
            note=f"mean accuracy {_mean(searches[0]):.3f}, best {searches[0].best_score_:.3f}, against "
            f"{np.mean(means[name]):.3f} and {max(means[name]):.3f}; "
            f"{_compare(_by_depth(_seconds(searches[-1])), spent_by_depth[name])}; "
            f"the peer ran once, ours before and after; {note}",
        )
        for name, spent in seconds.items()
    ]
    if setting.whole_grid or setting.quick:
        exact = [stopwatch(lambda: ours("float32"))]
        records += [
            Record(f"the same in float32, {what}", "s", exact, spent, name)
            for name, spent in seconds.items()
            if "float32" in name
        ]
    return records or [Record(f"grid of depth and rate, {what}", "s", turns)]


def _seconds(search: GridSearchCV) -> list[tuple[tuple[object, float], float]]:
    """Return each candidate, (depth, rate), with the seconds that its fits and scores took."""
    results = search.cv_results_
    spent = (results["mean_fit_time"] + results["mean_score_time"]) * search.n_splits_
    return [((given["freeze_depth"], given["lr"]), s) for given, s in zip(results["params"], spent, strict=True)]


def _by_depth(spent: Iterable[tuple[tuple[object, float], float]]) -> dict[object, float]:
    sums: dict[object, float] = {}
    for (depth, _), seconds in spent:
        sums[depth] = sums.get(depth, 0.0) + seconds
    return sums


def _compare(ours: dict[object, float], theirs: dict[object, float]) -> str:
    return ", ".join(f"depth {depth}: {seconds:.0f} s against {theirs[depth]:.0f} s" for depth, seconds in ours.items())


def _mean(search: GridSearchCV) -> float:
    return float(np.mean(search.cv_results_["mean_test_score"]))


def encoding(setting: TextSetting) -> list[Record]:
    """Encode all sentences: the package in two precisions, and `encode` with its own batch size and with its best."""
    texts = setting.sentences.texts
    ours = {
        precision: PretrainedFeatureExtractor(setting.sentences.backbone, feature_cache=None, precision=precision)
        .fit(texts[:4])
        .transform
        for precision in ("float32", "auto")
    }
    tasks = {precision: lambda transform=transform: transform(texts) for precision, transform in ours.items()}
    peers = []
    if not setting.quick and is_here("sentence_transformers"):
        encode, in_bfloat16 = sentence_encoder(setting.sentences.model), sentence_encoder(setting.sentences.model, True)
        encode(texts[:64])
        some = texts[::4]
        trial = in_turns({str(size): lambda size=size: encode(some, batch_size=size) for size in BATCH_SIZES}, 1)
        best = int(min(trial, key=lambda size: trial[size][0]))
        tasks["encode"] = lambda: encode(texts)
        tasks[f"encode, batch_size={best}, the best of {BATCH_SIZES}"] = lambda: encode(texts, batch_size=best)
        tasks["encode, bfloat16"] = lambda: in_bfloat16(texts)
        peers = list(tasks)[2:]
        expected = encode(texts)
    for transform in ours.values():
        transform(texts[:64])  # warms up: kernels are chosen
    speeds = {name: rates(len(texts), seconds) for name, seconds in in_turns(tasks, setting.repeats).items()}
    if not peers:
        return [Record(f"vectors of {len(texts):,} sentences, {name}", "sentences/s", speeds[name]) for name in ours]
    gap = {precision: float(np.abs(transform(texts) - expected).max()) for precision, transform in ours.items()}
    return [
        Record(
            f"vectors of {len(texts):,} sentences, {precision}",
            "sentences/s",
            speeds[precision],
            speeds[peer],
            peer,
            note=f"greatest difference from float32 vectors of encode: {gap[precision]:.1e}",
        )
        for precision in ours
        for peer in peers
        if not (precision == "float32" and "bfloat16" in peer)
    ]


SECTIONS = {"accuracy": accuracy, "grid": grid, "encoding": encoding}


def choose_settings(assets: Path | None) -> None:
    """Print the accuracy of each of CHOICES, in one fold of three, on sentences that no result is reported of."""
    setting = TextSetting(real(assets, slice(2000, 3000)), 1, False, False)
    X, y = setting.sentences.array, setting.sentences.labels
    training, held_out = next(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    for choice in CHOICES:
        start = time.perf_counter()
        score = tuned(setting, **choice).fit(X[training], y[training]).score(X[held_out], y[held_out])
        print(f"{score:.4f}, {time.perf_counter() - start:.0f} s: {_words(choice)}", flush=True)


def _words(settings: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def main():
    given = arguments()
    if given.choose_settings:
        choose_settings(given.assets)
        return
    given.output.mkdir(parents=True, exist_ok=True)
    results = read_results(given.output / "texts.json")
    with tempfile.TemporaryDirectory() as folder:
        sentences = generated(Path(folder)) if given.quick else real(given.assets, slice(1000))
        setting = TextSetting(sentences, 1 if given.quick else given.repeats, given.quick, given.whole_grid)
        for name in given.only:
            print(f"{name}, on {sentences.kind}", flush=True)
            start, others = time.perf_counter(), Others()
            records = [record.as_json() for record in SECTIONS[name](setting)]
            busy = others.cores()
            results[name] = {
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "pictures": sentences.kind,
                "quick": given.quick,
                "cores that others took": busy,
                "records": records,
            }
            print(f"  {time.perf_counter() - start:.0f} s", flush=True)
            if busy is not None and busy > BUSY:
                print(f"  WARNING: other processes kept {busy:.2f} cores busy; measure again on a free machine")
            results = {section: results[section] for section in SECTIONS if section in results}
            write_results(results, given.output, "texts")
    print("\n".join(table({name: results[name] for name in results if name in given.only})))
    print(f"Written: {given.output}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--assets", type=Path, help="folder of real data (default: SKTRANSFER_ASSETS)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="few generated sentences, one epoch, once")
    parser.add_argument("--whole-grid", action="store_true", help="all candidates and folds, most of an hour")
    parser.add_argument("--choose-settings", action="store_true", help="print what SETTINGS was chosen by, and stop")
    parser.add_argument("--repeats", type=int, default=5, help="of encoding")
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    given = parser.parse_args()
    given.assets = assets_or_none(given.assets)
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    if not given.quick:
        try:
            real(given.assets, slice(1))
        except FileNotFoundError as error:
            parser.error(str(error))
    return given


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
