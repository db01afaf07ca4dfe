"""A grid search over how much stays frozen: skorch by hand passes each image in each epoch, the package passes it once.

Same network, weights, folds and candidates. skorch takes minutes, so it runs once, in the precision that is faster for
it. The package begins anew each time, in each precision that `precision="auto"` may choose on this machine.
"""

import time

from measuring import Record, Setting
from peers import PRECISIONS, skorch_by_hand
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier

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
    runs: dict[str, list[tuple[float, GridSearchCV]]] = {precision: [] for precision in PRECISIONS}
    for _ in range(setting.repeats):
        for precision in PRECISIONS:
            clear_cache()
            model = classifier(setting).set_params(precision=precision)
            runs[precision].append(search(model, {"freeze_depth": depths, "lr": rates}, setting))
    candidates, epochs = {"module__frozen": [DEPTHS[depth] for depth in depths], "lr": rates}, setting.size(5, 2)
    by_hand = skorch_by_hand(setting.pictures.weights("mobilenet_v2"), epochs)
    tried = {precision: one_epoch(by_hand, precision, setting) for precision in ("float32", "bfloat16")}
    best = min(tried, key=tried.__getitem__)
    seconds, peer = search(by_hand.set_params(module__precision=best), candidates, setting)
    note = f"the peer ran once, in the faster precision ({best}; an epoch: "
    note += ", ".join(f"{precision} {spent:.1f} s" for precision, spent in tried.items())
    note += "); the cache was cleared before each of ours"
    n = len(depths) * len(rates)
    records = [
        Record(
            f"grid search, {n} candidates x {peer.n_splits_} folds, MobileNetV2, {precision}",
            "s",
            [spent for spent, _ in runs[precision]],
            [seconds],
            f"skorch by hand, {best}",
            note=note,
            label=f"Grid search: {n} candidates, {peer.n_splits_} folds" if precision == PRECISIONS[-1] else "",
        )
        for precision in PRECISIONS
    ]
    return records + [
        Record(
            f"best mean accuracy of that search, {precision}",
            "accuracy",
            [found.best_score_ for _, found in runs[precision]],
            [peer.best_score_],
            f"skorch by hand, {best}",
            note=f"of {setting.pictures.kind}",
        )
        for precision in PRECISIONS
    ]


def one_epoch(by_hand: NeuralNetClassifier, precision: str, setting: Setting) -> float:
    """Return the seconds of the second epoch of skorch: the first is slower, since it chooses kernels."""
    X, y = setting.pictures.labelled(setting.size(96, 24))
    model = clone(by_hand).set_params(module__precision=precision, module__frozen=min(DEPTHS.values()), max_epochs=2)
    return model.fit(X, y).history[-1, "dur"]


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
