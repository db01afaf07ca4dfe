"""Features of ResNet-18: JPEGs in, features out, against loops and libraries; arrays in, against the bare network.

All load the same weights, which are random: speed does not depend on them, and cosines tell whether the features agree.
"""

import numpy as np
import torch
from measuring import Record, Setting, in_turns, rates
from peers import PRECISIONS, Extract, bare_network, other_libraries, tutorial_loop

from sktransfer import PretrainedFeatureExtractor


def extraction(setting: Setting) -> list[Record]:
    return [*from_arrays(setting), *from_files(setting)]


def extractor(setting: Setting, X, **parameters) -> PretrainedFeatureExtractor:
    """Return an extractor of ResNet-18 that is loaded and keeps nothing."""
    weights = setting.pictures.weights("resnet18")
    return PretrainedFeatureExtractor("resnet18", weights=weights, feature_cache=None, **parameters).fit(X[:1])


def from_files(setting: Setting) -> list[Record]:
    """Compare like with like: float32 with float32 and, where `precision="auto"` takes it, bfloat16 with bfloat16."""
    paths = setting.pictures.distinct(setting.size(1000, 40))
    weights = setting.pictures.weights("resnet18")
    ours = {precision: extractor(setting, paths, precision=precision).transform for precision in PRECISIONS}
    loops = {precision: {"tutorial loop": tutorial_loop(weights, precision)} for precision in PRECISIONS}
    records = [
        record
        for precision in PRECISIONS
        for record in race(ours[precision], loops[precision], precision, paths, setting)
    ]
    plain = loops["float32"]["tutorial loop"](paths[:64])
    records += [
        Record(f"features, {precision}: least {kind}", "cosine", [value], peer_name="tutorial loop in float32")
        for precision in PRECISIONS
        for kind, value in agreement(ours[precision](paths[:64]), plain).items()
    ]
    # After all else, and imported no earlier: their threads might slow the loop down.
    for precision in PRECISIONS:
        others = dict(other_libraries(weights, precision))
        records += race(ours[precision], others, precision, paths, setting) if others else []
    return records


def race(ours: Extract, peers: dict[str, Extract], precision: str, paths, setting: Setting) -> list[Record]:
    """Extract in turns, and compare ours with each peer in the same precision."""
    tasks = {name: lambda extract=extract: extract(paths) for name, extract in {"ours": ours, **peers}.items()}
    for extract in (ours, *peers.values()):
        extract(paths[:64])  # warms up: kernels are chosen
    speeds = {name: rates(len(paths), seconds) for name, seconds in in_turns(tasks, setting.repeats).items()}
    return [
        Record(
            f"ResNet-18 features of {len(paths):,} JPEGs, {precision}",
            "images/s",
            speeds["ours"],
            speeds[peer],
            peer,
            note="the peer's own preprocessing" if peer in ("timm", "embetter") else "",
            label=f"Features of JPEG files, {precision}",
        )
        for peer in peers
    ]


def agreement(ours: np.ndarray, peer: np.ndarray) -> dict[str, float]:
    """Return the least cosine of two sets of features, and that of what tells one image from the mean of all."""
    return {
        "cosine to the peer's": least_cosine(ours, peer),
        "cosine less the peer's mean": least_cosine(ours - peer.mean(axis=0), peer - peer.mean(axis=0)),
    }


def least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / lengths).min())


def from_arrays(setting: Setting) -> list[Record]:
    """Compare with a network that is given what it wants: normalised float batches of the right size."""
    n = setting.size(512, 40)
    images = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).split(32)
    ours, bare = extractor(setting, images), bare_network("resnet18", setting.pictures.weights("resnet18"))
    tasks = {
        "ours": lambda: ours.transform(images),
        "bare network": lambda: torch.cat([bare(batch) for batch in batches]),
    }
    in_turns(tasks, 1)
    speeds = {name: rates(n, seconds) for name, seconds in in_turns(tasks, setting.repeats).items()}
    return [
        Record(
            f"ResNet-18 features of {n} arrays of 224 x 224",
            "images/s",
            speeds["ours"],
            speeds["bare network"],
            "bare network",
            note="the peer: BatchNorm fused, channels last, same precision; batches of 32 that are normalised already",
            label="Features of arrays in memory",
        )
    ]
