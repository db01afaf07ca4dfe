"""What a user may rely on when they look at how an estimator was trained."""

import pickle

import numpy as np
import pytest
from figures import overlaps, texts_of
from networks import tiny_cnn
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import EpochScoring

from sktransfer import FineTunedClassifier, FineTunedRegressor
from sktransfer.inspection import TrainingCurveDisplay


def classifier(**how):
    how = {"freeze_depth": 0.5, "max_epochs": 3, "weights": None, "random_state": 0, **how}
    return FineTunedClassifier(tiny_cnn(), **how)


def line(panel, label):
    (found,) = [line for line in panel.get_lines() if line.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def legend(display):
    return [text.get_text() for text in display.axes_[0].get_legend().get_texts()]


def test_loss_and_accuracy_are_drawn_by_epoch_through_both_phases(pictures):
    model = classifier(head_epochs=4, early_stopping=True, validation_fraction=0.25).fit(*pictures)
    display = TrainingCurveDisplay.from_estimator(model)
    history = model.history_
    assert display.epochs.tolist() == [1, 2, 3, 4, 5, 6, 7]
    loss, accuracy = display.axes_
    assert line(loss, "training loss") == (display.epochs.tolist(), [entry["train_loss"] for entry in history])
    assert line(loss, "held-out loss")[1] == [entry["valid_loss"] for entry in history]
    assert line(accuracy, "held-out accuracy")[1] == [entry["valid_accuracy"] for entry in history]
    unnamed = [line.get_xdata() for line in loss.get_lines() if line.get_label().startswith("_")]
    assert [4.5, 4.5] in [list(places) for places in unnamed]  # between the phases
    said = texts_of(display)
    assert {"head", "head and blocks", "epoch", "loss", "held-out accuracy"} <= set(said)
    assert overlaps(display) == []


def test_the_best_epoch_is_that_which_early_stopping_kept(pictures):
    model = classifier(head_epochs=2, max_epochs=8, lr=0.01, early_stopping=True, validation_fraction=0.25, tol=1e-3)
    model.fit(*pictures)
    display = TrainingCurveDisplay.from_estimator(model)
    flags = [epoch["valid_loss_best"] for epoch in model.net_.history]  # as skorch saw it, without tol
    losses = np.array([entry["valid_loss"] for entry in model.history_[2:]])
    assert losses[display.best_epoch - 3] <= losses.min() + 1e-3
    assert any(flags)
    assert f"best epoch of the last phase: {display.best_epoch}; its weights were kept" in legend(display)
    held_out_again = TrainingCurveDisplay(
        epochs=np.arange(1, 5),
        phases=["head"] * 4,
        losses={"valid_loss": np.array([1.0, 0.5, 0.4995, 0.7])},
        scores={},
        best_epoch=2,
        is_kept=True,
    ).plot()
    assert "best epoch: 2; its weights were kept" in legend(held_out_again)
    assert line(held_out_again.ax_, "best epoch: 2; its weights were kept")[0] == [2, 2]
    (star,) = [line for line in held_out_again.ax_.get_lines() if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[2, 0.5]]


def test_a_loss_that_is_less_by_no_more_than_tol_is_not_better(pictures):
    model = classifier(head_epochs=2, max_epochs=4, early_stopping=True, validation_fraction=0.25, tol=100.0)
    display = TrainingCurveDisplay.from_estimator(model.fit(*pictures))
    assert display.best_epoch == 3  # the first of the last phase: none after it is better by so much


def test_without_early_stopping_it_says_that_the_last_weights_were_kept(pictures):
    images, labels = pictures
    others = np.where(labels == "leaf", "stone", "leaf")  # so that the loss rises
    model = FineTunedClassifier(tiny_cnn(), weights=None, head_epochs=5, head_lr=0.05, random_state=0)
    display = TrainingCurveDisplay.from_estimator(model.fit(images, labels, X_val=images, y_val=others))
    assert display.best_epoch < 5
    assert f"best epoch: {display.best_epoch}; the weights of epoch 5 were kept" in legend(display)


def test_a_solved_head_stands_before_the_first_epoch(pictures):
    images, labels = pictures
    model = classifier().fit(images, labels, X_val=images, y_val=labels)
    display = TrainingCurveDisplay.from_estimator(model)
    assert display.epochs.tolist() == [0, 1, 2, 3]
    assert line(display.axes_[0], "training loss")[0] == [1, 2, 3]
    assert line(display.axes_[0], "held-out loss")[0] == [0, 1, 2, 3]
    assert "head, solved" in texts_of(display)


def test_without_held_out_samples_there_is_one_panel_and_no_best_epoch(pictures):
    display = TrainingCurveDisplay.from_estimator(classifier().fit(*pictures))
    assert display.axes_.shape == (1,)
    assert display.axes_[0] is display.ax_
    assert display.best_epoch is None
    assert display.ax_.get_ylabel() == "training loss"
    assert display.ax_.get_legend() is None


def test_a_fit_that_went_on_from_another_is_drawn(pictures):
    model = classifier(warm_start=True).fit(*pictures)
    model.fit(*pictures)
    display = TrainingCurveDisplay.from_estimator(model)
    assert display.epochs.tolist() == list(range(1, len(model.history_) + 1))


def test_numbers_have_r2(pictures):
    y = np.linspace(0, 5, 24)
    model = FineTunedRegressor(tiny_cnn(), weights=None, freeze_depth=0.5, max_epochs=2, random_state=0)
    model.fit(pictures[0], y, X_val=pictures[0], y_val=y)
    display = TrainingCurveDisplay.from_estimator(model)
    assert display.axes_[1].get_ylabel() == "held-out R²"


def test_other_scores_are_drawn_by_their_name(pictures):
    callbacks = [EpochScoring("accuracy", lower_is_better=False, name="train_accuracy", on_train=True)]
    model = classifier(callbacks=callbacks, early_stopping=True, validation_fraction=0.25).fit(*pictures)
    display = TrainingCurveDisplay.from_estimator(model, scores=["train_accuracy", "valid_accuracy"])
    assert [text.get_text() for text in display.axes_[1].get_legend().get_texts()] == [
        "train accuracy",
        "held-out accuracy",
    ]
    with pytest.raises(ValueError, match=r"^Got scores='f1', but history_ has no 'f1'; expected .*'valid_loss'"):
        TrainingCurveDisplay.from_estimator(model, scores="f1")


def test_pipelines_and_searches_will_do_and_nothing_is_changed(pictures):
    images, labels = pictures
    pipeline = make_pipeline(FunctionTransformer(), classifier()).fit(images, labels)
    before = pickle.dumps(pipeline)
    assert TrainingCurveDisplay.from_estimator(pipeline).epochs.tolist() == [1, 2, 3]
    assert pickle.dumps(pipeline) == before
    search = GridSearchCV(classifier(), {"max_epochs": [2]}, cv=2).fit(images, labels)
    assert TrainingCurveDisplay.from_estimator(search).epochs.tolist() == [1, 2]


def test_axes_of_ones_own_are_divided_into_both_panels(pictures):
    from matplotlib import pyplot as plt

    _, ax = plt.subplots()
    model = classifier(early_stopping=True, validation_fraction=0.25).fit(*pictures)
    display = TrainingCurveDisplay.from_estimator(model, ax=ax)
    assert display.ax_ is ax
    assert display.axes_[0].get_position().y0 > display.axes_[1].get_position().y1


def test_where_there_is_no_curve_a_sentence_says_why(pictures):
    images, labels = pictures
    solved = classifier(freeze_depth="all", max_epochs=10).fit(images, labels)
    with pytest.raises(ValueError, match=r"head was solved, not trained in epochs.*freeze_depth.*head_epochs"):
        TrainingCurveDisplay.from_estimator(solved)
    with pytest.raises(ValueError, match="head was solved"):  # though history_ has an entry
        TrainingCurveDisplay.from_estimator(solved.fit(images, labels, X_val=images, y_val=labels))
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(classifier())
    with pytest.raises(ValueError, match=r"^Got LogisticRegression; expected a fitted FineTunedClassifier"):
        TrainingCurveDisplay.from_estimator(LogisticRegression().fit([[0], [1]], [0, 1]))
    search = GridSearchCV(classifier(), {"max_epochs": [2]}, cv=2, refit=False).fit(images, labels)
    with pytest.raises(ValueError, match="refit=True"):
        TrainingCurveDisplay.from_estimator(search)
