"""Tuning all blocks of a network, or its second half, against a plain loop at its best.

The loop is tried in float32 and under autocast, decoding in its own process and in a worker per processor; the fastest
of the four is what is compared, in turns. Both sides read the same files in each epoch, and tune the same parameters.
"""

import numpy as np
import torch
from cuda_loops import Files, batches_of, tuning_loop
from cuda_trial import cores
from measuring import Record, Setting, in_turns, rates, stopwatch

from sktransfer import FineTunedClassifier
from sktransfer._cache._memory_store import PROCESS_CACHE

NETWORK, BATCH = "mobilenet_v2", 32
CASES = [(depth, augment) for depth in (0, 0.5) for augment in (None, "standard")]


def tuning(setting: Setting) -> list[Record]:
    X = setting.pictures.labelled(setting.size(128, 16))[0]
    y = np.arange(len(X)) % 2  # what is learned takes no less time
    return [one_case(setting, X, y, *case) for case in (CASES[1:3] if setting.quick else CASES)]


def one_case(setting: Setting, X: np.ndarray, y: np.ndarray, depth: float, augment: str | None) -> Record:
    weights, epochs = setting.pictures.weights(NETWORK), setting.size(3, 1)
    model = FineTunedClassifier(
        NETWORK,
        weights=weights,
        freeze_depth=depth,
        strategy="fine_tune",
        layer=None,  # one linear layer on the last features, as in the loop
        max_epochs=epochs,
        augment=augment,
        batch_size=BATCH,
        random_state=0,
    ).fit(X[:BATCH], y[:BATCH])  # loads the network
    trained = {name for block in model.backbone_.trained_blocks(depth) for name in block.parameter_names}
    device, loops = torch.device("cuda" if torch.cuda.is_available() else "cpu"), {}
    for workers in (0, cores()):
        for bfloat16 in (False, True):
            loader = batches_of(Files(X, y, augment is not None), BATCH, device, shuffle=True, workers=workers)
            loop = tuning_loop(NETWORK, weights, trained, loader, epochs, device, bfloat16)
            loops[f"{workers} workers, {'bfloat16' if bfloat16 else 'float32'}"] = loop
    tried = {name: stopwatch(loop) for name, loop in loops.items()}
    best = min(tried, key=tried.__getitem__)
    tasks = {"ours": lambda: model.fit(X, y), "loop": loops[best]}
    seconds = in_turns(tasks, setting.repeats, before=PROCESS_CACHE.clear)
    others = ", ".join(f"{name} {spent:.1f} s" for name, spent in tried.items())
    what = "all blocks" if depth == 0 else "the second half"
    return Record(
        f"tuning {what} of MobileNetV2, augment={augment!r}, {epochs} epochs of {len(X)} JPEGs",
        "images/s",
        rates(epochs * len(X), seconds["ours"]),
        rates(epochs * len(X), seconds["loop"]),
        "plain loop",
        note=f"whole fits; the peer at its best ({best}); tried once: {others}",
        label=f"Tune {what}" + (", with augmentation" if augment else ""),
    )
