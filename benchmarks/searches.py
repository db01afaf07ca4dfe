"""A grid search over how much stays frozen: skorch by hand passes each image in each epoch, the package passes it once.

Same network, weights, folds and candidates. skorch takes minutes, so it runs once; the package begins anew each time.
"""

import time

from measuring import Record, Setting
from peers import skorch_by_hand
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sktransfer import FineTunedClassifier, cache_info, clear_cache

DEPTHS = {"features.18": 19, "features.17": 18, "features.15": 16}  # a block, and how many modules end with it
RATES = [1e-3, 1e-4]


def search(model, grid: dict, setting: Setting) -> tuple[float, GridSearchCV]:
    """Fit a grid search and return its seconds too."""
    X, y = setting.pictures.labelled(24 if setting.quick else None)
    folds = StratifiedKFold(2 if setting.quick else 3, shuffle=True, random_state=0)
    start = time.perf_counter()
    found = GridSearchCV(model, grid, cv=folds, refit=False, error_score="raise").fit(X, y)
    return time.perf_counter() - start, found


def classifier(setting: Setting) -> FineTunedClassifier:
    weights = setting.pictures.weights("mobilenet_v2")
    return FineTunedClassifier("mobilenet_v2", weights=weights, max_epochs=setting.size(5, 2), random_state=0)


def depths_and_rates(setting: Setting) -> tuple[list[str], list[float]]:
    return (list(DEPTHS)[::2], RATES[:1]) if setting.quick else (list(DEPTHS), RATES)


def grid(setting: Setting) -> list[Record]:
    depths, rates = depths_and_rates(setting)
    runs = []
    for _ in range(setting.repeats):
        clear_cache()
        runs.append(search(classifier(setting), {"freeze_depth": depths, "lr": rates}, setting))
    by_hand = skorch_by_hand(setting.pictures.weights("mobilenet_v2"), setting.size(5, 2))
    seconds, peer = search(by_hand, {"module__frozen": [DEPTHS[depth] for depth in depths], "lr": rates}, setting)
    folds = runs[0][1].n_splits_
    name = f"grid search, {len(depths) * len(rates)} candidates x {folds} folds, MobileNetV2"
    return [
        Record(
            name,
            "s",
            [spent for spent, _ in runs],
            [seconds],
            "skorch by hand",
            note="the peer ran once; the cache was cleared before each of ours",
            label=f"Grid search: {len(depths) * len(rates)} candidates, {folds} folds",
        ),
        Record(
            "best mean accuracy of that search",
            "accuracy",
            [found.best_score_ for _, found in runs],
            [peer.best_score_],
            "skorch by hand",
            note=f"of {setting.pictures.kind}",
        ),
    ]


def candidates(setting: Setting) -> list[Record]:
    """Say what one more candidate costs, cold and once the activations of a first search are kept."""
    depths, rates = depths_and_rates(setting)
    few = {"freeze_depth": depths, "lr": rates}
    many = {"freeze_depth": depths, "lr": [*rates, 1e-5], "hidden_layer_sizes": [(), (64,)]}
    n_few, n_many = len(depths) * len(rates), len(depths) * (len(rates) + 1) * 2
    names = f"{n_few}, cold", f"the same {n_few}, warm", f"{n_many} with other rates and heads, warm"
    seconds: dict[str, list[float]] = {name: [] for name in names}
    passed: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(setting.repeats):
        clear_cache()
        for name, parameters in zip(names, (few, few, many), strict=True):
            before = cache_info().misses
            spent, found = search(classifier(setting), parameters, setting)
            seconds[name].append(spent / len(found.cv_results_["params"]))
            passed[name].append(cache_info().misses - before)
    heads = "half of them have a hidden layer, which takes epochs instead of a solver"
    return [
        *(Record(f"one candidate of {n}", "s", seconds[n], note=heads if n == names[2] else "") for n in names),
        *(Record(f"passed through the backbone for {n}", "images", passed[n]) for n in names),
    ]
