"""What an estimator adds to the network: a whole fit against one pass over the images, one prediction against one pass.

The network is loaded before, and its activations are forgotten each time, so that both sides compute all they need.
"""

import numpy as np
import torch
from measuring import Record, Setting, in_turns, stopwatch
from peers import bare_network, read

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer._cache._memory_store import PROCESS_CACHE


def fit(setting: Setting) -> list[Record]:
    X, y = setting.pictures.labelled(40 if setting.quick else None)
    weights = setting.pictures.weights("resnet18")
    classifier = FineTunedClassifier("resnet18", weights=weights, freeze_depth="all", random_state=0).fit(X, y)
    extractor = PretrainedFeatureExtractor("resnet18", weights=weights).fit(X[:1])
    # clear_cache would let the network go too.
    tasks = {"fit": lambda: classifier.fit(X, y), "transform": lambda: extractor.transform(X)}
    seconds = in_turns(tasks, setting.repeats, before=PROCESS_CACHE.clear)
    return [
        Record(
            f"FineTunedClassifier.fit on {len(X)} JPEGs, all frozen, ResNet-18",
            "s",
            seconds["fit"],
            seconds["transform"],
            "one transform of the same",
        )
    ]


def latency(setting: Setting) -> list[Record]:
    return [one_by_one(setting, network) for network in ("resnet18", "mobilenet_v2")]


def one_by_one(setting: Setting, network: str) -> Record:
    """Predict files one at a time, each another one, so that nothing is found in the cache."""
    PROCESS_CACHE.clear()
    n_fit = n_warm = 8
    paths = setting.pictures.distinct(n_fit + n_warm + setting.size(30, 4))
    weights = setting.pictures.weights(network)
    classifier = FineTunedClassifier(network, weights=weights, random_state=0)
    classifier.fit(paths[:n_fit], np.arange(n_fit) % 2)
    forward = bare_network(network, weights)

    def bare(path):
        return forward(torch.stack([read(path)])).argmax().item()

    ours, peer = [], []
    for path in paths[n_fit:]:
        ours.append(1000 * stopwatch(lambda path=path: classifier.predict([path])))
        peer.append(1000 * stopwatch(lambda path=path: bare(path)))
    return Record(
        f"predict of one JPEG, {network}",
        "ms",
        ours[n_warm:],
        peer[n_warm:],
        "bare network",
        note="the peer: PIL, torchvision's transforms, one forward pass as fast as plain torch makes it",
        label=f"Predict one JPEG file, {network}",
    )
