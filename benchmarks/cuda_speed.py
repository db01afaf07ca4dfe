"""Speeds on a device: features, a grid search and tuning, against plain loops at their best; in turns."""

from collections.abc import Callable

import numpy as np
import torch
from cuda_loops import BareNetwork, Files, batches_of, tuning_loop
from cuda_trial import BAR, Trial
from extraction import least_cosine
from measuring import Record, Setting, in_turns, rates
from peers import skorch_by_hand
from searches import DEPTHS, classifier, depths_and_rates, search

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer._cache._memory_store import PROCESS_CACHE

# Batches that are compared: the package's default, and one that fills a large card.
BATCH_SIZES = (32, 256)

# Cosine of features in bfloat16 to those of another program, from which they count as the same.
ALIKE = 0.99

Tasks = dict[str, Callable[[], np.ndarray]]


def extraction(trial: Trial) -> None:
    convolutional = "resnet18" if trial.quick else "resnet50"
    _from_arrays(trial, convolutional)
    _from_arrays(trial, "vit_b_16")
    _from_files(trial, convolutional)
    if not trial.quick:
        _from_files(trial, "vit_b_16")


def _from_arrays(trial: Trial, network: str) -> None:
    """Compare with the bare network, whose batches are cropped and in pinned memory before the clock starts."""
    n, weights = trial.size(3072, 3), trial.pictures.weights(network)
    # Of the size from which the network's preset cuts its crop: nothing is left to be resized.
    images = np.random.default_rng(0).integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)
    crops = torch.from_numpy(np.ascontiguousarray(images[:, 16:240, 16:240])).permute(0, 3, 1, 2)
    crops = crops.pin_memory() if trial.on_cuda else crops
    bare = BareNetwork(network, weights, trial.device)
    tasks: Tasks = {}
    for size in BATCH_SIZES[: trial.size(2, 1)]:
        extractor = PretrainedFeatureExtractor(
            network, weights=weights, feature_cache=None, batch_size=size, device=str(trial.device)
        ).fit(images[:1])
        tasks[f"ours {size}"] = lambda extractor=extractor: extractor.transform(images)
        tasks[f"bare {size}"] = lambda size=size: bare(crops.split(size))
    seconds = _raced(trial, tasks)
    for size in BATCH_SIZES[: trial.size(2, 1)]:
        record = Record(
            f"features of {n:,} arrays, {network}, batches of {size}",
            "images/s",
            rates(n, seconds[f"ours {size}"]),
            rates(n, seconds[f"bare {size}"]),
            "bare network",
            note="the peer: the network alone, on batches in pinned memory, cropped before; normalised on the device",
        )
        trial.measured(record, BAR)


def _from_files(trial: Trial, network: str) -> None:
    """Compare with a DataLoader that has a worker per processor, which were started before the clock is."""
    paths = np.tile(trial.pictures.distinct(trial.size(768, 4)), 3 if not trial.quick else 1)
    n, weights, size = len(paths), trial.pictures.weights(network), trial.size(64, 4)
    bare, loader = BareNetwork(network, weights, trial.device), batches_of(Files(paths), size, trial.device)
    extractor = PretrainedFeatureExtractor(
        network, weights=weights, feature_cache=None, batch_size=size, device=str(trial.device)
    ).fit(paths[:1])
    tasks: Tasks = {
        "ours": lambda: extractor.transform(paths),
        "loop": lambda: bare(batch for batch, _ in loader),
    }
    seconds = _raced(trial, tasks)
    trial.measured(
        Record(
            f"features of {n:,} JPEGs, {network}, batches of {size}",
            "images/s",
            rates(n, seconds["ours"]),
            rates(n, seconds["loop"]),
            "DataLoader loop",
            note="the peer: as many workers as processors, started before, pinned memory",
        ),
        BAR,
    )


def _raced(trial: Trial, tasks: Tasks) -> dict[str, list[float]]:
    """Run each task once to warm up, compare what came of it, and return seconds of runs in turns."""
    results = {name: task() for name, task in tasks.items()}
    first, *others = results.values()
    least = min(least_cosine(first, other) for other in others)
    trial.checked(f"{', '.join(results)} have the same features", least >= ALIKE, f"least cosine {least:.4f}")
    return in_turns(tasks, trial.repeats)


def grid(trial: Trial) -> None:
    """Compare a grid search with skorch by hand: the same candidates, folds and epochs."""
    setting = Setting(trial.pictures, trial.size(2, 1), trial.quick)
    depths, learning_rates = depths_and_rates(setting)
    model, runs, passed = classifier(setting).set_params(device=str(trial.device)), [], []
    model.fit(*setting.pictures.labelled(8))  # brings the device up, for both
    for _ in range(setting.repeats):
        clear_cache()
        runs.append(search(model, {"freeze_depth": depths, "lr": learning_rates}, setting))
        passed.append(cache_info().misses)
    weights, epochs = setting.pictures.weights("mobilenet_v2"), setting.size(5, 2)
    by_hand = skorch_by_hand(weights, epochs).set_params(device=str(trial.device))
    candidates = {"module__frozen": [DEPTHS[depth] for depth in depths], "lr": learning_rates}
    seconds, peer = search(by_hand, candidates, setting)
    n, folds = len(setting.pictures.labelled(24 if trial.quick else None)[0]), peer.n_splits_
    fits = len(depths) * len(learning_rates) * folds
    # Each fit passes the samples of its fold in each epoch, and the held-out ones once, to score them.
    by_peer = round(len(depths) * len(learning_rates) * n * ((folds - 1) * epochs + 1))
    trial.measured(
        Record(
            f"grid search, {fits} fits of MobileNetV2 on {n} JPEGs",
            "s",
            [spent for spent, _ in runs],
            [seconds],
            "skorch by hand",
            note="the peer ran once; the cache was cleared before each of ours",
        )
    )
    trial.measured(Record("passed through the frozen part in that search", "images", passed, [by_peer], "skorch"))
    ours = [found.best_score_ for _, found in runs]
    trial.measured(Record("best mean accuracy of that search", "accuracy", ours, [peer.best_score_], "skorch by hand"))
    once = all(count <= n * len(depths) for count in passed)
    trial.checked("each image was passed at most once per depth", once, f"{passed}, {n} images, {len(depths)} depths")


def tuning(trial: Trial) -> None:
    """Compare tuning all blocks, and the second half of them, with a plain loop over files."""
    network = "resnet18" if trial.quick else "resnet50"
    weights, paths = trial.pictures.weights(network), trial.pictures.distinct(trial.size(768, 8))
    labels, epochs, size = np.arange(len(paths)) % 2, trial.size(3, 1), trial.size(64, 4)
    cases = [(0, None), (0, "standard"), (0.5, None), (0.5, "standard")]
    for depth, augment in cases[1:3] if trial.quick else cases:
        model = FineTunedClassifier(
            network,
            weights=weights,
            freeze_depth=depth,
            strategy="fine_tune",
            layer=None,  # one linear layer on the last features, as in the loop
            max_epochs=epochs,
            augment=augment,
            batch_size=size,
            device=str(trial.device),
            random_state=0,
        ).fit(paths[: 2 * size], labels[: 2 * size])  # loads the network, and warms up
        trained = {name for block in model.backbone_.trained_blocks(depth) for name in block.parameter_names}
        loader = batches_of(Files(paths, labels, augment is not None), size, trial.device, shuffle=True)
        loop = tuning_loop(network, weights, trained, loader, epochs, trial.device)
        tuned = {name for name, _ in model.net_.module_.tail.named_parameters()}
        trial.checked(
            f"both sides train the same parameters from freeze_depth={depth}", tuned == trained, f"{len(tuned)}"
        )
        if not trial.quick:
            loop()
        tasks = {"ours": lambda model=model: model.fit(paths, labels), "loop": loop}
        seconds = in_turns(tasks, trial.size(2, 1), before=PROCESS_CACHE.clear)
        trial.measured(
            Record(
                f"tuning {network} from freeze_depth={depth}, augment={augment!r}, {epochs} epochs of "
                f"{len(paths)} JPEGs",
                "images/s",
                rates(epochs * len(paths), seconds["ours"]),
                rates(epochs * len(paths), seconds["loop"]),
                "plain loop",
                note="whole fits; the peer: a worker per processor, started before, autocast, fused AdamW",
            ),
            BAR,
        )
