"""After tuning, weights may lie anywhere between start and end, and be moved without training."""

import copy
import pickle

import numpy as np
import pytest
import torch
from networks import tiny_cnn

import sktransfer
from sktransfer import FineTunedClassifier
from sktransfer._training._interpolation import FACTORS

HOW = {"freeze_depth": 2, "max_epochs": 3, "lr": 1e-2, "head_lr": 1e-2, "random_state": 0, "precision": "float32"}


def classifier(**parameters):
    return FineTunedClassifier(tiny_cnn, **{**HOW, **parameters})


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.net_.module_.state_dict().items()}


@pytest.mark.parametrize("strategy", ["lp_ft", "gradual"])
def test_0_is_the_solved_head_on_the_backbones_own_blocks(pictures, strategy):
    X, y = pictures
    model = classifier(strategy=strategy, interpolation=0.0).fit(X, y)
    solved = FineTunedClassifier(tiny_cnn, strategy="linear_probe", random_state=0, precision="float32").fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), solved.predict_proba(X), atol=1e-4)
    original = model.backbone_.tail(2, layers=model.net_.module_.layers).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in model.net_.module_.tail.state_dict().items())


@pytest.mark.parametrize("strategy", ["lp_ft", "gradual", "fine_tune"])
def test_weights_lie_on_the_line(pictures, strategy):
    X, y = pictures
    how = {"strategy": strategy}
    start, middle, end = (weights_of(classifier(interpolation=factor, **how).fit(X, y)) for factor in (0, 0.25, 1))
    moved = [name for name in end if not torch.equal(start[name], end[name])]
    assert any(name.startswith("tail") for name in moved)
    assert any(name.startswith("head") for name in moved)
    for name in end:
        torch.testing.assert_close(middle[name], torch.lerp(start[name], end[name], 0.25))


def test_none_is_the_end_and_1_too(pictures):
    X, y = pictures
    plain, end = classifier().fit(X, y), classifier(interpolation=1).fit(X, y)
    assert plain.interpolation_ == end.interpolation_ == 1.0
    np.testing.assert_array_equal(plain.predict_proba(X), end.predict_proba(X))


def test_it_is_moved_without_training_and_back_to_the_bit(pictures):
    X, y = pictures
    model = classifier().fit(X, y)
    end, history = model.predict_proba(X), model.history_
    for factor in (0.5, 0.0, 0.1, 1):
        model.interpolation_ = factor
        assert model.interpolation_ == factor
        expected = classifier(interpolation=factor).fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(model.predict_proba(X), expected)
    np.testing.assert_array_equal(model.predict_proba(X), end)
    assert model.history_ == history


@pytest.mark.parametrize("strategy", ["lp_ft", "fine_tune"])
def test_it_is_kept_and_can_still_be_moved_after_a_pickle_a_copy_and_a_save(pictures, tmp_path, strategy):
    X, y = pictures
    model = classifier(strategy=strategy, interpolation=0.3, store_backbone=False).fit(X, y)
    at = model.predict_proba(X)
    model.interpolation_ = 1.0
    end = model.predict_proba(X)
    model.interpolation_ = 0.3
    sktransfer.save(model, tmp_path / "model.safetensors")
    saved = sktransfer.load(tmp_path / "model.safetensors", backbone=tiny_cnn)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), saved):
        twice = pickle.loads(pickle.dumps(again))  # without its tail having been attached
        for one in (again, twice):
            assert one.interpolation_ == 0.3
            np.testing.assert_array_equal(one.predict_proba(X), at)
            one.interpolation_ = 1
            np.testing.assert_array_equal(one.predict_proba(X), end)


@pytest.mark.parametrize("factor", [-0.1, 1.1, np.nan, None, "auto", True])
def test_what_is_no_factor_is_refused(pictures, factor):
    model = classifier().fit(*pictures)
    before = model.predict_proba(pictures[0])
    with pytest.raises(ValueError, match=r"Got interpolation_=.*; expected a number from 0 to 1"):
        model.interpolation_ = factor
    np.testing.assert_array_equal(model.predict_proba(pictures[0]), before)


def test_a_head_alone_has_nothing_to_move(pictures):
    model = FineTunedClassifier(tiny_cnn, random_state=0).fit(*pictures)
    assert model.interpolation_ == 1.0
    with pytest.raises(ValueError, match="only a trained head"):
        model.interpolation_ = 0.5


def test_auto_takes_what_serves_samples_that_were_held_out(pictures):
    X, y = pictures
    noise = np.random.default_rng(0).permutation(y)  # labels that nothing explains: tuning can only harm
    harmed = classifier(interpolation="auto", lr=0.1, head_lr=0.1, max_epochs=5).fit(X, noise)
    assert harmed.interpolation_ in FACTORS
    assert harmed.interpolation_ <= 0.2
    stopped = classifier(interpolation="auto", early_stopping=True, validation_fraction=0.3).fit(X, y)
    assert stopped.interpolation_ in FACTORS


def test_auto_calls_a_persons_callbacks_for_the_one_training_alone(pictures):
    from skorch.callbacks import Callback

    class Counts(Callback):
        count = 0

        def on_epoch_end(self, net, **kwargs):
            Counts.count += 1

    classifier(interpolation="auto", callbacks=[Counts()]).fit(*pictures)
    assert Counts.count == HOW["max_epochs"]


def test_frozen_blocks_are_not_moved(pictures):
    X, y = pictures
    loaded = FineTunedClassifier(tiny_cnn, random_state=0).fit(X, y).backbone_.network.state_dict()
    model = classifier(interpolation=0.5).fit(X, y)
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.backbone_.network.state_dict().items())


def test_a_warm_start_goes_on_from_where_the_weights_are(pictures):
    X, y = pictures
    model = classifier(interpolation=0.5, warm_start=True).fit(X, y)
    model.set_params(max_epochs=1, lr=1e-12, head_lr=1e-12, weight_decay=0.0, interpolation=None)
    before = model.predict_proba(X)
    np.testing.assert_allclose(model.fit(X, y).predict_proba(X), before, atol=1e-5)
    assert model.interpolation_ == 1.0


def size_of_logits(model, X, factor):
    model.interpolation_ = factor
    logits = np.log(model.predict_proba(X))
    return float(np.sqrt(np.square(logits - logits.mean(axis=1, keepdims=True)).mean()))


@pytest.mark.parametrize("strategy", ["lp_ft", "gradual"])
def test_a_tuned_network_is_no_surer_of_its_samples_than_the_calibrated_head_was(pictures, strategy):
    X, y = pictures
    model = classifier(strategy=strategy, max_epochs=8, lr=3e-3, head_lr=3e-2).fit(X, y)
    free = classifier(strategy=strategy, max_epochs=8, lr=3e-3, head_lr=3e-2, head_C=model.head_C_).fit(X, y)
    start, end = size_of_logits(model, X, 0.0), size_of_logits(model, X, 1.0)
    assert end == pytest.approx(start, rel=0.01)
    assert size_of_logits(free, X, 1.0) > 1.1 * size_of_logits(free, X, 0.0)


def test_logits_are_halved_at_most(pictures):
    X, y = pictures
    tuned = {"max_epochs": 20, "lr": 1e-2, "head_lr": 0.3}
    model = classifier(**tuned).fit(X, y)
    assert size_of_logits(model, X, 1.0) > 1.1 * size_of_logits(model, X, 0.0)
