"""Backbones are compared on the same folds, each sample passes once, and a backbone that fails costs a row."""

import re

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_grey_cnn, tiny_vectors
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import (
    FineTunedClassifier,
    PretrainedFeatureExtractor,
    cache_info,
    clear_cache,
    rank_backbones,
)
from sktransfer._ranking._comparison import Row
from sktransfer._ranking._probes import score_fold


@pytest.fixture(autouse=True)
def _empty_cache():
    clear_cache()
    yield
    clear_cache()


def wide_cnn():
    return tiny_cnn(width=16)


def extractor(backbone=tiny_cnn, **parameters):
    return PretrainedFeatureExtractor(backbone, random_state=0, **parameters)


def rank(X, y, backbones=(tiny_cnn, wide_cnn), **parameters):
    return rank_backbones(X, y, backbones, **{"cv": 3, "extractor": extractor(), **parameters})


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_each_sample_passes_once_through_each_backbone(pictures, n_jobs, probe):
    ranking = rank(*pictures, probe=probe, n_jobs=n_jobs)
    assert cache_info().misses == 2 * len(pictures[0])
    assert ranking.results_["n_passed"].tolist() == [24, 24]
    rank(*pictures, cv=4)
    assert cache_info().misses == 2 * len(pictures[0]), "another ranking passes none"


def test_each_sample_passes_once_without_a_cache_too(pictures):
    rank(*pictures, extractor=extractor(feature_cache=None), n_jobs=2)
    assert cache_info().misses == 2 * len(pictures[0])


def test_what_was_passed_serves_later_estimators(pictures):
    ranking = rank(*pictures)
    ranking.best_extractor_.fit_transform(pictures[0])
    FineTunedClassifier(tiny_cnn, layer=None, random_state=0).fit(*pictures)
    assert cache_info().misses == 2 * len(pictures[0])


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_scores_are_those_of_cross_validation(pictures, probe):
    ranking = rank(*pictures, probe=probe)
    folds = StratifiedKFold(3)
    for name, scores in ranking.fold_scores_.items():
        row = ranking.results_.loc[name]
        assert row["score"] == pytest.approx(scores.mean())
        assert row["std"] == pytest.approx(scores.std(ddof=1))
        assert row["standard_error"] == pytest.approx(scores.std(ddof=1) / np.sqrt(3))
    assert ranking.results_["score"].is_monotonic_decreasing
    if probe == "logistic":
        model = FineTunedClassifier(tiny_cnn, layer=None, random_state=0)
        assert ranking.fold_scores_["tiny_cnn"] == pytest.approx(cross_val_score(model, *pictures, cv=folds))


def test_spread_is_that_of_a_sample_of_folds():
    row = Row("network", np.array([0.5, 0.7, 0.9]))
    assert (row.score, row.std, row.standard_error) == pytest.approx((0.7, 0.2, 0.2 / np.sqrt(3)))
    assert (Row("network", np.array([0.5])).std, Row("network", np.array([0.5])).standard_error) == (0, 0)


def test_the_table_holds_what_each_backbone_costs(pictures):
    table = rank(*pictures).results_
    made = tiny_cnn()
    assert list(table.columns) == [
        "score", "std", "standard_error", "seconds", "samples_per_second", "n_passed", "n_parameters", "size_rank",
        "megabytes", "input_size", "n_features", "error",
    ]  # fmt: skip
    row = table.loc["tiny_cnn"]
    assert row["n_features"] == 16
    assert row["n_parameters"] == sum(p.numel() for p in made[:-1].parameters())
    assert row["megabytes"] == sum(t.numel() * t.element_size() for t in made.state_dict().values()) / 1e6
    assert row["input_size"] == "3 x 20 x 24"
    assert row["seconds"] > 0
    assert row["samples_per_second"] == pytest.approx(24 / row["seconds"])
    assert (row["size_rank"], table.loc["wide_cnn", "size_rank"]) == (2, 1)


def test_the_best_stands_first_whatever_the_order_in_which_backbones_were_given(pictures):
    """A network that passes nothing on is at chance."""
    X, y = pictures
    deaf = tiny_cnn()
    with torch.no_grad():
        deaf[0].weight.zero_()
    for given in (["deaf", "hears"], ["hears", "deaf"]):
        ranking = rank(X, y, {name: {"deaf": deaf, "hears": tiny_cnn}[name] for name in given})
        table = ranking.results_
        assert table.index.tolist() == ["hears", "deaf"]
        assert ranking.best_ == "hears"
        assert ranking.best_extractor_ is ranking.extractors_["hears"]
        assert table.loc["hears", "score"] > table.loc["deaf", "score"] + 0.2
        assert re.search(r"^hears .*\n^deaf ", repr(ranking), re.M)


def test_parameters_are_those_of_the_layers_that_make_the_features(pictures):
    shallow, whole = extractor(layer=1), extractor()
    table = rank(*pictures, {"shallow": shallow, "whole": whole}).results_
    assert table.loc["shallow", "n_parameters"] < table.loc["whole", "n_parameters"]


def test_speed_of_what_was_cached_is_the_earlier_one_or_not_known(pictures):
    X, y = pictures
    first = rank(X, y).results_
    again = rank(X, y)
    table = again.results_
    assert table["n_passed"].tolist() == [0, 0]
    assert table.loc["tiny_cnn", "samples_per_second"] == first.loc["tiny_cnn", "samples_per_second"]
    assert "Found in the cache, with the speed of an earlier pass:" in repr(again)
    unknown = lambda: tiny_cnn(width=12)  # noqa: E731
    network = unknown()
    extractor(network).fit_transform(X)
    ranking = rank(X, y, {"seen": network, "new": tiny_cnn})
    assert np.isnan(ranking.results_.loc["seen", ["seconds", "samples_per_second"]].astype(float)).all()
    assert "with an unknown speed (?): seen." in repr(ranking)


def test_an_activation_that_was_found_spoils_the_speed(pictures):
    X, y = pictures
    network = tiny_cnn(width=10)
    extractor(network).fit_transform(X[:5])
    ranking = rank(X, y, {"partly": network})
    assert ranking.results_.loc["partly", "n_passed"] == 19
    assert np.isnan(ranking.results_.loc["partly", "seconds"])


def test_size_is_the_baseline(pictures):
    ranking = rank(*pictures)
    assert ranking.by_size_ == "wide_cnn"
    assert re.search(r"^Most parameters: wide_cnn, \d", repr(ranking), re.M)


def test_size_is_the_number_of_parameters_and_not_of_features(pictures):
    narrow = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ranking = rank(*pictures, {"narrow": nn.Sequential(*narrow, nn.Linear(4, 2)), "tiny": tiny_cnn})
    assert ranking.results_["n_features"].to_dict() == {"narrow": 4, "tiny": 16}
    assert ranking.by_size_ == "narrow"
    assert ranking.size_ranks == {"narrow": 1, "tiny": 2}


def test_a_backbone_that_fails_is_a_row_with_its_sentence(pictures, tmp_path):
    pytest.importorskip("transformers", reason="the backbone of another kind is one of its networks")
    texts = make_text_model("bert", tmp_path)
    ranking = rank(
        *pictures,
        {
            "unknown": "no_such_network",
            "works": tiny_cnn,
            "other kind": texts,
            "no file": extractor("resnet18", weights=tmp_path / "nothing.pth"),
            "no backbone": FineTunedClassifier(),
        },
    )
    table = ranking.results_
    assert ranking.best_ == table.index[0] == "works"
    errors = table["error"].to_dict()
    assert errors.pop("works") == ""
    assert all(error.startswith(("Got ", "Could not ")) for error in errors.values()), errors
    assert "expected one of 80 names" in errors["unknown"]
    assert "texts" in errors["other kind"]
    assert "nothing.pth" in errors["no file"]
    assert np.isnan(table.loc["unknown", "score"])
    shown = repr(ranking)
    assert re.search(r"^unknown +failed$", shown, re.M)
    assert f"Failed: unknown: {errors['unknown']}" in shown
    assert "failed: Got backbone=&#x27;no_such_network&#x27;" in ranking._repr_html_()


def test_a_long_reason_is_not_cut(pictures):
    def refuses():
        raise ValueError(f"Got {'one thing and ' * 40}another; expected neither. Leave both out.")

    error = rank(*pictures, {"works": tiny_cnn, "refuses": refuses}).results_.loc["refuses", "error"]
    assert "one thing and " * 40 in error
    assert error.endswith("Leave both out.")


def test_where_all_fail_the_error_says_why(pictures):
    with pytest.raises(ValueError, match=r"Got 2 backbones, which all failed.*'one': Got backbone='no_such'"):
        rank(*pictures, {"one": "no_such", "two": "neither"})


def test_a_sample_that_cannot_be_read_is_told_by_its_row(paths, pictures):
    broken = [*paths[:-1], __file__]
    with pytest.raises(ValueError, match=r"1 of 24 samples that cannot be read, the first in row 23"):
        rank(broken, pictures[1], [extractor(on_bad_sample="nan")])


# What is ranked


def test_names_networks_functions_and_extractors_are_ranked_under_their_names(pictures):
    X, y = pictures
    fitted = extractor(tiny_cnn, pixel_range=(0, 255)).fit(X)
    network = wide_cnn()
    ranking = rank(X, y, [tiny_cnn, network, extractor("squeezenet1_1", weights=None)])
    assert set(ranking.fold_scores_) == {"tiny_cnn", "Sequential", "squeezenet1_1"}
    assert ranking.extractors_["Sequential"].backbone is network
    ranking = rank(X, y, {"mine": fitted})
    assert ranking.best_extractor_ is fitted
    model = make_pipeline(ranking.best_extractor_, LogisticRegression(max_iter=1000)).fit(X, y)
    assert model.score(X, y) > 0.9


def test_extractors_that_were_given_stay_unfitted(pictures):
    given = extractor(tiny_cnn)
    ranking = rank(*pictures, [given])
    assert "backbone_" not in vars(given)
    assert "backbone_" not in vars(ranking.best_extractor_)


def test_parameters_for_all_come_from_one_extractor(pictures):
    X, y = pictures
    flat = X.mean(axis=3).reshape(len(X), -1)
    like = extractor(image_shape=(20, 24), pixel_range=(0, 255), layer=2)
    ranking = rank(flat, y, [tiny_grey_cnn], extractor=like)
    assert ranking.results_.loc["tiny_grey_cnn", "n_features"] == 8


def test_numbers_are_ranked_by_ridge_regression(pictures):
    X, _ = pictures
    y = X[..., 0].mean(axis=(1, 2)) / 7
    ranking = rank(X, y)
    assert ranking.metric == "R²"
    assert ranking.results_["score"].iloc[0] > 0.5
    several = rank(X, np.stack([y, -y], axis=1), probe="knn", scoring="neg_mean_absolute_error")
    assert several.metric == "neg mean absolute error"
    assert several.results_["score"].max() < 0


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_integers_may_be_numbers(pictures):
    X, _ = pictures
    ages = np.arange(24)
    with pytest.raises(ValueError, match=r'classes of at most 1 samples and cv=3; .* give task="numbers"'):
        rank(X, ages)
    assert rank(X, ages, task="numbers").metric == "R²"


@pytest.mark.parametrize("scoring", [None, "roc_auc", "f1_macro"])
@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_several_labels_are_ranked(pictures, probe, scoring):
    X, y = pictures
    labels = np.stack([y == "leaf", np.arange(24) % 3 == 0], axis=1).astype(int)
    ranking = rank(X, labels, [wide_cnn], probe=probe, scoring=scoring)
    assert 0 <= ranking.results_["score"].iloc[0] <= 1
    assert ranking.metric.startswith("share of samples" if scoring is None else scoring[:2])


def test_scorers_see_labels_as_they_were_given(pictures):
    ranking = rank(*pictures, scoring="neg_log_loss")
    assert ranking.results_["score"].max() <= 0
    by_hand = lambda model, X, y: float((model.predict(X) == "leaf").mean())  # noqa: E731
    assert 0.2 < rank(*pictures, scoring=by_hand).results_["score"].iloc[0] < 0.8


def test_texts_are_ranked(tmp_path):
    pytest.importorskip("transformers", reason="the networks are its own")
    texts, y = make_texts()
    backbones = {kind: make_text_model(kind, tmp_path / kind) for kind in ("bert", "distilbert")}
    ranking = rank_backbones(texts, y, backbones, cv=3)
    assert ranking.kind == "texts"
    assert "24 texts" in repr(ranking)
    assert "texts/s" in repr(ranking)
    assert ranking.results_["input_size"].tolist() == ["20 tokens"] * 2
    assert ranking.results_["n_passed"].max() <= 24


def test_sounds_are_ranked(tmp_path):
    pytest.importorskip("transformers", reason="the network is one of its own")
    sounds, y = make_sounds()
    like = PretrainedFeatureExtractor(sampling_rate=1000)
    ranking = rank_backbones(sounds, y, [make_sound_model("wav2vec2", tmp_path)], cv=3, extractor=like)
    assert ranking.kind == "sounds"
    assert ranking.results_["n_passed"].tolist() == [24]


def test_vectors_are_ranked():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4))
    ranking = rank_backbones(X, X[:, 0] > 0, [tiny_vectors], cv=3, extractor=extractor())
    assert ranking.kind == "vectors"
    assert ranking.results_["input_size"].tolist() == ["4"]


# Folds


def test_all_backbones_see_the_same_folds_and_groups_stay_together(pictures):
    X, y = pictures
    groups = np.repeat(list("abcdef"), 4)
    seen = []

    class Watched(GroupKFold):
        def split(self, X, y=None, groups=None):
            for fold in super().split(X, y, groups):
                seen.append(fold)
                yield fold

    ranking = rank(X, y, cv=Watched(3), groups=groups)
    assert len(seen) == 3, "folds are made once, whatever the number of backbones"
    for train, test in seen:
        assert not set(groups[train]) & set(groups[test])
    assert all(len(scores) == 3 for scores in ranking.fold_scores_.values())


@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_a_number_of_folds_keeps_groups_together(pictures, task):
    """Noise whose label only a copy gives away is at chance with groups, and known without."""
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, size=(12, 16, 16, 3), dtype=np.uint8)
    X, groups = np.repeat(originals, 4, axis=0), np.repeat(np.arange(12), 4)
    y = np.repeat(rng.permutation(12) % 2 if task == "classes" else rng.normal(size=12), 4)
    order = rng.permutation(48)
    X, y, groups = X[order], y[order], groups[order]
    scores = [rank(X, y, probe="knn", groups=given).results_["score"].max() for given in (None, groups)]
    assert scores[0] > 0.99
    assert scores[1] < 0.8


@pytest.mark.parametrize("task", ["classes", "labels"])
def test_copies_do_not_choose_the_penalty(task):
    """Noise is learned by heart where copies of it are held out, and hardly at all where copies stay together."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(30, 40)), 4, axis=0)
    features = (features + rng.normal(scale=0.05, size=features.shape)).astype(np.float32)
    y = np.repeat(rng.permutation(30) % 2, 4)
    y = y if task == "classes" else np.stack([y, 1 - y], axis=1)
    fold = np.arange(100), np.arange(100, 120)

    def size(model, X, y):
        return float(model.head_(torch.eye(40)).detach().std())

    alone, together = (
        score_fold(features, y, groups, fold, "logistic", task, size) for groups in (None, np.repeat(np.arange(30), 4))
    )
    assert together < alone / 2


def test_groups_of_several_sizes_are_held_out_together_where_penalties_are_chosen(pictures):
    X, y = pictures
    groups = np.array([0] * 8 + [1] * 8 + [2, 2, 3, 3, 4, 4, 5, 5])
    assert rank(X, y, cv=4, groups=groups).results_["score"].notna().all()
    assert rank(X, np.arange(24) / 5, cv=4, groups=groups).results_["score"].notna().all()
    labels = np.stack([y == "leaf", y == "stone"], axis=1).astype(int)
    assert rank(X, labels, cv=4, groups=groups).results_["score"].notna().all()


# What cannot be ranked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": ["same"] * 24}, "only one class: 'same'"),
        ({"y": [0.5] * 24}, r"Got y that is 0.5 for all samples; expected numbers that differ\."),
        ({"y": ["a", "b"]}, "Got inconsistent numbers of samples: 24 in X and 2 in y; expected as many in y as in X"),
        ({"cv": 13}, r"Got classes of at most 12 samples and cv=13; .* Give cv=12\."),
        ({"cv": 30}, r"Got classes of at most 12 samples and cv=30; expected a class with .* Give cv=12\."),
        ({"cv": 30, "y": np.arange(24) / 5}, r"Got 24 samples and cv=30; expected at least one sample .* Give cv=24\."),
        ({"cv": 1}, "Got cv=1; expected at least 2 folds"),
        ({"cv": "five"}, "Expected `cv` as an integer"),
        ({"backbones": []}, r"Got no backbones; expected a list .* with at least one\."),
        ({"backbones": "resnet18"}, r"Got backbones as 'resnet18'; expected a list .* Put it into a list\."),
        ({"backbones": 5}, "Got backbones as an object of type int; expected a list"),
        ({"backbones": [tiny_cnn, tiny_cnn]}, "Got 2 backbones named 'tiny_cnn'; expected different names"),
        ({"probe": "logme"}, "Got probe='logme'"),
        ({"task": "class"}, "Got task='class'"),
        ({"task": "labels"}, 'Got task="labels" and y of one column; expected columns of 0 and 1'),
        ({"task": "classes", "y": [[0, 1], [1, 1]] * 12}, 'Got task="classes" and y of several columns; expected one'),
        ({"y": [[0, 1], [1, 2]] * 12}, r"y\[1, 1\] = 2; expected labels"),
        ({"groups": [1, 2]}, r"Got groups of shape \(2,\); expected one group per sample: \(24,\)"),
        ({"groups": [0] * 12 + [1] * 12}, r"Got 2 groups and cv=3; expected at least one group per fold\. Give cv=2\."),
        ({"scoring": ["accuracy", "f1"]}, "expected the name of one scorer"),
        ({"cv": [(range(0, 24, 2), [1, 3])]}, r"Got fold 0 with 1 class .leaf. to train on"),
        ({"scoring": "no_such"}, "no_such"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_refused_before_anything_is_loaded(pictures, changes, message, monkeypatch):
    X, y = pictures
    monkeypatch.setattr("sktransfer._backbone_estimator.load_backbone", lambda *args, **how: pytest.fail("loaded"))
    given = {"X": X, "y": y, "backbones": [tiny_cnn], **changes}
    with pytest.raises(ValueError, match=message):
        rank(given.pop("X"), given.pop("y"), given.pop("backbones"), **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbones": {3: tiny_cnn}}, "Got 3 as a name in backbones; expected strings"),
        ({"extractor": "resnet18"}, "Got extractor of type str; expected a PretrainedFeatureExtractor"),
    ],
)
def test_what_is_of_the_wrong_type_is_refused(pictures, changes, message):
    with pytest.raises(TypeError, match=message):
        rank(*pictures, **{"backbones": [tiny_cnn], **changes})


def test_an_interrupt_ends_the_ranking(pictures):
    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank(*pictures, scoring=interrupted)


# What is shown


def test_verbose_tells_of_each_backbone_and_shows_a_bar_over_all(pictures, capsys, monkeypatch):
    monkeypatch.setattr("sktransfer._computing._progress.LONG", 0.0)
    rank(*pictures, {"one": tiny_cnn, "two": wide_cnn, "three": "no_such"}, verbose=1)
    said = capsys.readouterr()
    assert re.search(r"^one: \d\.\d{3} ± \d\.\d{3}, 24 samples passed$", said.out, re.M)
    assert "three failed: Got backbone='no_such'" in said.out
    assert re.search(r"2 of 3: two: +\d+%.*/72 ", said.err)
    rank(*pictures)
    assert capsys.readouterr() == ("", "")


def test_the_html_table_is_escaped(pictures):
    shown = rank(*pictures, {"<b>": tiny_cnn})._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert shown.count("<tr>") == 2


def test_the_table_needs_pandas_alone(pictures, monkeypatch):
    ranking = rank(*pictures)
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    assert "tiny_cnn" in repr(ranking)
    with pytest.raises(ImportError, match=r'pip install "sktransfer\[plot\]"'):
        ranking.results_  # noqa: B018


def test_a_network_that_gives_nan_is_a_row(pictures):
    network = tiny_cnn()
    with torch.no_grad():
        network[0].weight.fill_(float("inf"))
    ranking = rank(*pictures, {"works": tiny_cnn, "broken": extractor(network)})
    assert "NaN or infinity" in ranking.results_.loc["broken", "error"]
