"""What `verbose=1` shows: lines under the names of `history_`, and a bar where something takes long."""

import re

import numpy as np
import pytest
from networks import tiny_cnn
from skorch.callbacks import EpochScoring

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor, clear_cache


@pytest.fixture(autouse=True)
def _empty_cache():
    """Activations that one test leaves would be another's, with the rounding of their batch."""
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def everything_is_long(monkeypatch):
    monkeypatch.setattr("sktransfer._computing._progress.LONG", 0.0)
    monkeypatch.setattr("sktransfer._computing._frozen_pass.LONG", 0.0)


def classifier(**parameters):
    return FineTunedClassifier(tiny_cnn, **{"random_state": 0, "freeze_depth": 2, "max_epochs": 3, **parameters})


def table(said):
    """Return the rows of the tables in what was printed, by the names above them."""
    rows, names = [], []
    for words in map(str.split, said.splitlines()):
        if words[:2] == ["phase", "epoch"]:
            names = words
        elif words[:1] in (["head"], ["fine_tune"]):
            rows.append(dict(zip(names, words, strict=True)))
    return rows


@pytest.mark.parametrize("held_out", [{}, {"early_stopping": True, "validation_fraction": 0.3}])
@pytest.mark.parametrize("estimator", [FineTunedClassifier, FineTunedRegressor])
def test_lines_are_the_entries_of_history(pictures, capsys, estimator, held_out):
    X, y = pictures
    how = {"freeze_depth": 2, "max_epochs": 3, "random_state": 0, "head_epochs": 2}
    fitted = estimator(tiny_cnn, **how, **held_out, verbose=1).fit(X, np.unique(y, return_inverse=True)[1])
    rows = table(capsys.readouterr().out)
    assert len(rows) == len(fitted.history_) == 5
    for row, entry in zip(rows, fitted.history_, strict=True):
        assert list(row) == list(entry)
        for name, value in entry.items():
            assert row[name] == (f"{value:.4f}" if isinstance(value, float) else str(value))


def test_an_epoch_that_ends_training_is_printed_before_the_reason(pictures, capsys):
    fitted = classifier(
        early_stopping=True, n_iter_no_change=2, max_epochs=20, lr=1e-9, verbose=1, validation_fraction=0.3
    ).fit(*pictures)
    said = capsys.readouterr().out
    assert len(table(said)) == len(fitted.history_) < 20
    assert re.search(rf"fine_tune +{fitted.history_[-1]['epoch']} .*\nStopping since valid_loss", said)


def test_metrics_of_callbacks_stand_in_the_lines(pictures, capsys):
    scoring = EpochScoring("f1_macro", name="f1", on_train=True, lower_is_better=False)
    classifier(callbacks=[scoring], verbose=1).fit(*pictures)
    assert all("f1" in row for row in table(capsys.readouterr().out))


def test_a_solved_head_is_told_with_its_time(pictures, capsys):
    fitted = classifier(verbose=1).fit(*pictures)
    found = re.search(r"The head was solved in \d+\.\d s, with head_C=(\S+)\.\n", capsys.readouterr().out)
    assert float(found[1]) == pytest.approx(fitted.head_C_, rel=1e-2)


def test_nothing_is_coloured_and_short_passes_have_no_bar(pictures, capsys):
    classifier(verbose=1, early_stopping=True, validation_fraction=0.3).fit(*pictures).predict(pictures[0])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert said.err == ""
    assert "samples/s" not in said.out


def test_long_passes_and_epochs_have_a_bar_with_rate_and_time_left(pictures, capsys, everything_is_long):
    classifier(verbose=1, feature_cache=None).fit(*pictures)
    said = capsys.readouterr()
    for what in ("computing", "epoch 1", "epoch 3"):
        assert re.search(rf"{what}: +\d+%.*\d+/24 \[.*<.*sample", said.err)
    assert "\x1b" not in said.out + said.err


def test_the_extractor_says_how_long_a_pass_took(pictures, capsys, everything_is_long):
    PretrainedFeatureExtractor(tiny_cnn, random_state=0, verbose=1, feature_cache=None).fit_transform(pictures[0])
    said = capsys.readouterr()
    assert re.fullmatch(r"Computed 24 samples in \d+\.\d s \([\d,.]+ samples/s\)\.\n", said.out)
    assert "24 [" in said.err


def test_the_trainings_that_choose_the_interpolation_are_numbered(pictures, capsys):
    classifier(interpolation="auto", verbose=1).fit(*pictures)
    assert "Choosing the interpolation: training 3 of 3." in capsys.readouterr().out


def test_nothing_is_shown_unless_asked_for(pictures, capsys, everything_is_long):
    classifier(interpolation="auto", early_stopping=True, validation_fraction=0.3).fit(*pictures).predict(pictures[0])
    PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit_transform(pictures[0])
    assert capsys.readouterr() == ("", "")
