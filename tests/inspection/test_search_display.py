"""What a user may rely on when they look at what a search found."""

import numpy as np
import pytest
from figures import overlaps, texts_of
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_rgb
from networks import tiny_cnn
from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sktransfer import FineTunedClassifier
from sktransfer.inspection import SearchDisplay
from sktransfer.inspection._drawing import RED

DIGITS, LABELS = (values[:150] for values in load_digits(return_X_y=True))
GRID = {"svc__C": [0.1, 1, 10], "svc__gamma": [1e-4, 1e-2]}


@pytest.fixture(scope="module")
def search():
    return GridSearchCV(make_pipeline(StandardScaler(), SVC()), GRID, cv=3).fit(DIGITS, LABELS)


def tuned(**how):
    return FineTunedClassifier(tiny_cnn(), weights=None, max_epochs=1, random_state=0, **how)


def filled(display):
    """Return the rectangles of cells, by their corner."""
    return {patch.get_xy(): patch for patch in display.ax_.patches if patch.get_fill()}


def test_two_parameters_are_a_map(search):
    display = SearchDisplay.from_search(search, x="C", y="gamma")
    assert (display.x, display.y) == ("svc__C", "svc__gamma")
    assert display.x_values == [0.1, 1, 10]
    assert display.y_values == [1e-4, 1e-2]
    results = search.cv_results_
    for cell in display.cells:
        wanted = {"svc__C": display.x_values[cell.columns[0]], "svc__gamma": display.y_values[cell.rows[0]]}
        place = results["params"].index(wanted)
        assert cell.score == pytest.approx(results["mean_test_score"][place])
        assert cell.error == pytest.approx(results["std_test_score"][place] / np.sqrt(3))
        assert cell.is_best == (place == search.best_index_)
        (shown,) = [text for text in display.ax_.texts if text.get_position() == (cell.columns[0], cell.rows[0])]
        assert shown.get_text() == f"{cell.score:.3f}\n± {cell.error:.3f}"
        colour = filled(display)[(cell.columns[0] - 0.5, cell.rows[0] - 0.5)].get_facecolor()
        assert colour == colormaps["cividis"](Normalize(*display.limits_)(cell.score))
    assert len(filled(display)) == 6
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["0.1", "1", "10"]
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["0.0001", "0.01"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("C", "gamma")
    frames = [patch for patch in display.ax_.patches if not patch.get_fill()]
    assert [to_rgb(frame.get_edgecolor()) for frame in frames] == [to_rgb(RED)]
    (best,) = [cell for cell in display.cells if cell.is_best]
    np.testing.assert_allclose(frames[0].get_center(), (best.columns[0], best.rows[0]))
    assert "chosen by the search" in texts_of(display)
    assert overlaps(display) == []


def test_one_parameter_is_a_line_with_errors_over_the_best_of_the_others(search):
    display = SearchDisplay.from_search(search, x="svc__C")
    assert display.ax_.get_xscale() == "log"
    assert display.y is None
    (container,) = display.ax_.containers
    x, y = (np.asarray(values, dtype=float) for values in container.lines[0].get_data())
    scores = search.cv_results_["mean_test_score"].reshape(3, 2)
    np.testing.assert_allclose(x, [0.1, 1, 10])
    np.testing.assert_allclose(y, scores.max(axis=1))
    assert display.ax_.get_ylabel() == "score, best over gamma"
    assert "mean of folds ± its standard error" in texts_of(display)
    assert overlaps(display) == []


def test_parameters_are_found_by_themselves(search):
    display = SearchDisplay.from_search(search)
    assert (display.x, display.y) == ("svc__C", "svc__gamma")
    assert SearchDisplay.from_search(search, y="C").x == "svc__gamma"
    one = GridSearchCV(SVC(), {"C": [1, 2, 3], "gamma": [0.01]}, cv=2).fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(one)
    assert (display.x, display.y) == ("C", None)
    assert display.ax_.get_xscale() == "linear"
    assert display.others == ()


@pytest.mark.parametrize(("x", "y"), [("lr", "freeze_depth"), ("freeze_depth", "lr")])
@pytest.mark.filterwarnings("ignore:Got lr=")
def test_where_a_parameter_has_no_effect_its_row_or_column_is_one_cell(pictures, x, y):
    grid = {"finetunedclassifier__freeze_depth": [0.5, "all"], "finetunedclassifier__lr": [1e-4, 1e-3, 1e-2]}
    search = GridSearchCV(make_pipeline(tuned()), grid, cv=2).fit(*pictures)
    display = SearchDisplay.from_search(search, x=x, y=y)
    assert len(display.cells) == 4
    (wide,) = [cell for cell in display.cells if len(cell.columns) * len(cell.rows) == 3]
    assert (wide.rows, wide.columns) == ((1,), (0, 1, 2)) if x == "lr" else ((0, 1, 2), (1,))
    patch = filled(display)[(-0.5, 0.5) if x == "lr" else (0.5, -0.5)]
    assert (patch.get_width(), patch.get_height()) == ((3, 1) if x == "lr" else (1, 3))
    assert sum("(lr has no effect)" in text for text in texts_of(display)) == 1
    frozen = [
        score
        for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
        if parameters["finetunedclassifier__freeze_depth"] == "all"
    ]
    assert wide.score == pytest.approx(np.mean(frozen))


@pytest.mark.filterwarnings("ignore:Got lr=")
@pytest.mark.parametrize(
    ("name", "value", "idle"),
    [
        ("freeze_depth", "all", {"lr", "max_epochs", "head_lr", "weight_decay"}),
        ("freeze_depth", 1.0, {"lr", "max_epochs", "head_lr", "weight_decay"}),
        ("freeze_depth", 4, {"lr", "max_epochs", "head_lr", "weight_decay"}),
        ("freeze_depth", 3, set()),
        ("strategy", "linear_probe", {"lr", "max_epochs", "head_lr", "weight_decay"}),
    ],
)
def test_what_has_no_effect_depends_on_how_much_is_frozen(pictures, name, value, idle):
    base = {"freeze_depth": 0.5} if name == "strategy" else {}
    for other, values in {"lr": [1e-4, 1e-3], "max_epochs": [1, 2], "head_lr": [1e-4, 1e-3]}.items():
        grid = {name: [value], other: values}
        search = GridSearchCV(tuned(**base), grid, cv=2).fit(*pictures)
        display = SearchDisplay.from_search(search, x=other, y=name)
        assert (len(display.cells) == 1) == (other in idle), (other, value)


@pytest.mark.filterwarnings("ignore:Got lr=")
def test_a_head_that_is_trained_in_epochs_needs_its_learning_rate(pictures):
    grid = {"freeze_depth": ["all"], "head_lr": [1e-4, 1e-3]}
    search = GridSearchCV(tuned(head_epochs=2), grid, cv=2).fit(*pictures)
    assert len(SearchDisplay.from_search(search, x="head_lr", y="freeze_depth").cells) == 2


def test_colours_span_no_less_than_the_standard_error():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, size=150)  # nothing can be learned: scores differ by chance alone
    search = GridSearchCV(SVC(), {"C": [1e-6, 1e-5], "gamma": [1e-6, 1e-5]}, cv=5).fit(DIGITS, noise)
    display = SearchDisplay.from_search(search, x="C", y="gamma")
    scores = search.cv_results_["mean_test_score"]
    error = np.mean(search.cv_results_["std_test_score"]) / np.sqrt(5)
    low, high = display.limits_
    assert high - low >= error - 1e-12
    assert high - low > np.ptp(scores)
    assert low <= scores.min()
    assert scores.max() <= high
    bar = display.figure_.axes[-1]
    assert bar.get_ylim() == pytest.approx(display.limits_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_candidates_that_failed_are_shown_as_such(search):
    found = GridSearchCV(SVC(), {"C": [-1, 1, 10], "gamma": [0.1, 0.01]}, cv=2).fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(found, x="C", y="gamma")
    assert texts_of(display).count("failed") == 2
    assert sum(patch.get_hatch() is not None for patch in filled(display).values()) == 2
    assert np.isfinite(display.limits_).all()
    line = SearchDisplay.from_search(found, x="C")
    assert "failed" in texts_of(line)
    assert line.ax_.get_xscale() == "linear"


def test_what_was_not_tried_is_said():
    grid = [{"C": [1], "gamma": [0.1, 0.01]}, {"C": [10], "gamma": [0.1]}]
    search = GridSearchCV(SVC(), grid, cv=2).fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(search, x="C", y="gamma")
    assert texts_of(display).count("not tried") == 1
    assert len(display.cells) == 3


def test_parameters_of_some_candidates_alone_are_drawn_for_these():
    grid = [{"kernel": ["linear"], "C": [1, 10]}, {"kernel": ["rbf"], "C": [1], "gamma": [0.1, 0.01]}]
    search = GridSearchCV(SVC(), grid, cv=2).fit(DIGITS, LABELS)
    assert len(SearchDisplay.from_search(search, x="gamma").cells) == 2
    assert len(SearchDisplay.from_search(search, x="C", y="kernel").cells) == 3


def test_a_random_search_is_points_on_axes_of_numbers():
    ranges = {"C": loguniform(0.1, 1000), "gamma": loguniform(1e-5, 0.1)}
    search = RandomizedSearchCV(SVC(), ranges, n_iter=9, cv=2, random_state=0).fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(search, x="C", y="gamma")
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == ("log", "log")
    assert len(display.ax_.collections) == 9
    points = sorted(tuple(point.get_offsets()[0]) for point in display.ax_.collections)
    np.testing.assert_allclose(points, sorted((one["C"], one["gamma"]) for one in search.cv_results_["params"]))
    assert "chosen by the search" in texts_of(display)
    assert overlaps(display) == []


@pytest.mark.filterwarnings("ignore:Got lr=")
def test_a_random_search_over_rates_has_a_bar_where_they_have_no_effect(pictures):
    ranges = {"freeze_depth": [0.5, 0.75, "all"], "lr": loguniform(1e-5, 1e-2)}
    search = RandomizedSearchCV(tuned(), ranges, n_iter=10, cv=2, random_state=0).fit(*pictures)
    depths = [parameters["freeze_depth"] for parameters in search.cv_results_["params"]]
    assert 0 < depths.count("all") < 10
    display = SearchDisplay.from_search(search, x="lr", y="freeze_depth")
    assert display.ax_.get_xscale() == "log"
    assert len(display.ax_.collections) == 10 - depths.count("all")
    assert any("(lr has no effect)" in text for text in texts_of(display))
    low, high = display.ax_.get_ylim()
    assert low > high  # values are read from the top, as in a map


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_points_that_failed_are_crosses():
    ranges = {"C": [-1, 0.1, 1, 10, 100], "degree": [1, 2, 3, 4, 5]}
    search = RandomizedSearchCV(SVC(), ranges, n_iter=8, cv=2, random_state=0).fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(search, x="degree", y="C")
    n_failed = int(np.isnan(search.cv_results_["mean_test_score"]).sum())
    assert n_failed > 0
    assert len([line for line in display.ax_.get_lines() if line.get_marker() == "x"]) == n_failed
    assert next(text.get_text() for text in display.ax_.get_yticklabels()) == "-1"  # by name: no logarithm has it
    assert "failed" in texts_of(display)


@pytest.mark.filterwarnings("ignore:Got lr=")
def test_numbers_of_blocks_and_shares_stay_in_the_order_of_the_grid(pictures):
    grid = {"freeze_depth": [2, 0.75, "all", 0.25], "lr": [1e-3]}
    display = SearchDisplay.from_search(GridSearchCV(tuned(), grid, cv=2).fit(*pictures), x="freeze_depth")
    assert display.x_values == [2, 0.75, "all", 0.25]
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["2", "0.75", "all", "0.25"]


def test_a_search_that_halves_shows_each_candidate_with_the_most_samples_it_had():
    search = HalvingGridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [1e-4, 1e-3]}, min_resources=40, random_state=0)
    search.fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(search, x="C", y="gamma")
    assert len(display.cells) == 6
    given = {cell.resources for cell in display.cells}
    assert len(given) > 1
    assert {f"n = {n}" for n in given} == {
        line for text in texts_of(display) for line in text.split("\n") if line.startswith("n = ")
    }
    assert sum(cell.is_best for cell in display.cells) == 1


def test_one_of_several_scores_is_drawn():
    search = GridSearchCV(SVC(), {"C": [1, 10, 100]}, cv=2, scoring=["accuracy", "f1_macro"], refit="f1_macro")
    search.fit(DIGITS, LABELS)
    assert SearchDisplay.from_search(search).metric == "f1_macro"
    assert SearchDisplay.from_search(search, metric="accuracy").ax_.get_ylabel() == "accuracy"
    with pytest.raises(ValueError, match="expected one of them: accuracy, f1_macro"):
        SearchDisplay.from_search(search, metric="recall")
    search.set_params(refit=False).fit(DIGITS, LABELS)
    with pytest.raises(ValueError, match=r"^Got metric=None for a search with several scores"):
        SearchDisplay.from_search(search)


def test_values_that_are_no_numbers_are_named_and_stay_in_their_order():
    grid = {"kernel": ["sigmoid", "rbf", "linear"], "class_weight": [None, "balanced", {0: 2.0}], "shrinking": [True]}
    search = GridSearchCV(SVC(), grid, cv=2).fit(DIGITS, LABELS)
    display = SearchDisplay.from_search(search, x="kernel", y="class_weight")
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["sigmoid", "rbf", "linear"]
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["None", "balanced", "dict"]
    steps = GridSearchCV(
        make_pipeline(StandardScaler(), SVC()), {"standardscaler": ["passthrough", StandardScaler()]}, cv=2
    ).fit(DIGITS, LABELS)
    assert [text.get_text() for text in SearchDisplay.from_search(steps).ax_.get_xticklabels()] == [
        "passthrough",
        "StandardScaler",
    ]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"x": "lr"}, r"^Got 'lr', which this search did not vary; expected 'C', 'gamma', 'svc__C' or 'svc__gamma'\.$"),
        ({"x": "C", "y": "svc__C"}, "^Got 'svc__C' as x and as y"),
        ({"metric": "accuracy"}, "^Got metric='accuracy'; expected 'score' or None"),
    ],
)
def test_what_the_search_does_not_have_is_refused_with_a_sentence(search, how, message):
    with pytest.raises(ValueError, match=message):
        SearchDisplay.from_search(search, **how)


def test_an_ending_of_several_names_is_refused():
    pipeline = make_pipeline(LogisticRegression(max_iter=2000))
    grid = {"logisticregression__C": [1, 2], "logisticregression__tol": [1e-4, 1e-2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(DIGITS, LABELS)
    search.cv_results_["params"] = [
        {**one, "other__C": one["logisticregression__C"]} for one in search.cv_results_["params"]
    ]
    with pytest.raises(
        ValueError,
        match=r"^Got 'C', but several parameters end in it: logisticregression__C, other__C; expected a full name",
    ):
        SearchDisplay.from_search(search, x="C")


def test_what_is_no_fitted_search_is_refused_with_a_sentence():
    with pytest.raises(NotFittedError):
        SearchDisplay.from_search(GridSearchCV(SVC(), {"C": [1]}))
    with pytest.raises(ValueError, match=r"^Got SVC, which has no cv_results_; expected a fitted search"):
        SearchDisplay.from_search(SVC().fit(DIGITS, LABELS))


def test_large_maps_have_no_values_in_their_cells_and_nothing_is_changed(search):
    before = {name: str(values) for name, values in search.cv_results_.items()}
    assert SearchDisplay.from_search(search, include_values=False).ax_.texts[:] == []
    assert {name: str(values) for name, values in search.cv_results_.items()} == before
