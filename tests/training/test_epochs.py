"""skorch's callbacks do in a fit what they do in skorch: they see batches, record metrics, and may end training."""

import signal

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from pretrained_models import make_text_model
from sklearn.metrics import f1_score
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
)
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = np.where(X[:, 0] + 0.3 * X[:, 1] > 0, "b", "a")


def network(n_features):
    return nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())


def fit(*callbacks, y=Y, sample_weight=None, **more):
    how = {"freeze_depth": 0, "strategy": "fine_tune", "max_epochs": 4, "random_state": 0, "batch_size": 16, **more}
    model = FineTunedClassifier(network, weights=None, callbacks=list(callbacks), **how)
    return model.fit(X, y, sample_weight)


SCORINGS = {
    "accuracy": "accuracy",
    "f1_macro": "f1_macro",
    "roc_auc": "roc_auc",
    "neg_log_loss": "neg_log_loss",
    "metric function": f1_score,
    "callable": lambda net, X, y: float((net.predict(X) == y).mean()),
}


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(
    ("caching", "on_train", "weighted"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, 0)],
)
def test_metrics_of_each_epoch_are_in_the_history(scoring, caching, on_train, weighted):
    callback = EpochScoring(
        SCORINGS[scoring], on_train=on_train, use_caching=caching, name="metric", lower_is_better=False
    )
    weight = np.linspace(1, 3, len(Y)) if weighted else None
    held_out = {} if on_train else {"early_stopping": True, "validation_fraction": 0.3}
    model = fit(callback, sample_weight=weight, **held_out)
    assert [row["metric"] <= 1 for row in model.history_] == [True] * 4
    assert all(isinstance(row["metric_best"], bool) for row in model.history_)


@pytest.mark.parametrize("caching", [True, False])
def test_a_metric_is_that_of_the_samples_it_names(caching):
    """At a rate of next to nothing, what is recorded is the accuracy of the network that comes out."""
    callback = EpochScoring("accuracy", on_train=True, use_caching=caching, name="acc", lower_is_better=False)
    model = fit(callback, lr=1e-12, head_lr=1e-12, max_epochs=1)
    assert model.history_[0]["acc"] == model.score(X, Y)


def test_metrics_of_samples_of_different_sizes_pair_each_with_its_own_label(tmp_path):
    folder = make_text_model("bert", tmp_path)
    texts = [("good " if number % 3 else "bad ") * (1 + number % 7) for number in range(30)]
    y = np.array([text.split()[0] for text in texts])
    callback = EpochScoring("accuracy", on_train=True, use_caching=False, name="acc", lower_is_better=False)
    model = FineTunedClassifier(
        folder, freeze_depth=1, strategy="lp_ft", max_epochs=1, lr=1e-12, head_lr=1e-12, batch_size=4,
        callbacks=[callback], random_state=0, precision="float32",
    ).fit(texts, y)  # fmt: skip
    assert model.history_[0]["acc"] == model.score(texts, y) > 0.9


@pytest.mark.parametrize("caching", [True, False])
def test_metrics_of_each_batch(caching):
    model = fit(BatchScoring("accuracy", on_train=True, use_caching=caching, name="acc", lower_is_better=False))
    assert all(0 <= row["acc"] <= 1 for row in model.history_)


def test_a_callback_sees_batches_of_inputs_and_plain_class_indices():
    seen = []

    class Look(Callback):
        def on_batch_end(self, net, batch, training, loss, y_pred, **kwargs):
            inputs, labels = batch
            seen.append((inputs.shape[1], labels.dtype, y_pred.shape, float((y_pred.argmax(1) == labels).sum())))

    fit(Look(), sample_weight=np.linspace(1, 2, len(Y)), max_epochs=1)
    assert [entry[:3] for entry in seen] == [(6, torch.int64, (size, 2)) for size in (16, 16, 8)]


class Ends(Callback):
    """Ends training after some epochs, as skorch's own callbacks do."""

    def __init__(self, after=2):
        self.after = after

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.after:
            self.end()

    def end(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("strategy", ["fine_tune", "lp_ft"])
def test_a_callback_may_end_training(strategy):
    model = fit(Ends(), strategy=strategy, head_epochs=3)
    assert [row["epoch"] for row in model.history_] == ([1, 2] if strategy == "fine_tune" else [1, 2, 1, 2])
    assert model.predict(X).shape == Y.shape
    if strategy == "fine_tune":
        assert model.n_iter_ == 2


def test_ctrl_c_in_a_callback_ends_the_fit_and_leaves_the_estimator_as_it_was():
    class Interrupted(Callback):
        def on_epoch_end(self, net, **kwargs):
            signal.raise_signal(signal.SIGINT)

    model = FineTunedClassifier(
        network, weights=None, freeze_depth=0, strategy="fine_tune", callbacks=[Interrupted()], random_state=0
    )
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert not hasattr(model, "net_")


def test_early_stopping_by_a_metric_of_ones_own():
    metric = EpochScoring("accuracy", on_train=True, name="acc", lower_is_better=False)
    stop = EarlyStopping(monitor="acc", lower_is_better=False, patience=2)
    model = fit(metric, stop, lr=1e-12, head_lr=1e-12, max_epochs=30)
    assert model.n_iter_ == 3


def test_other_callbacks_of_skorch(tmp_path):
    checkpoint = Checkpoint(dirname=str(tmp_path / "best"), monitor="train_loss_best", load_best=True)
    schedule = LRScheduler(policy="StepLR", step_size=1)
    model = fit(checkpoint, schedule, GradientNormClipping(1.0), max_epochs=3)
    assert (tmp_path / "best" / "params.pt").exists()
    assert model.history_[0]["event_cp"] is True
    assert model.n_iter_ == 3


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping(monitor="valid_loss"),
        EarlyStopping(monitor="acuracy"),
        Checkpoint(monitor="valid_loss_best", f_params=None, f_optimizer=None, f_criterion=None, f_history=None),
        LRScheduler(policy="ReduceLROnPlateau", monitor="valid_loss"),
    ],
    ids=["early stopping", "misspelt", "checkpoint", "schedule"],
)
def test_a_monitor_that_has_nothing_to_monitor_is_told_so(callback):
    with pytest.raises(ValueError, match=r"a callback that monitors '.*', which this fit does not record") as caught:
        fit(callback)
    assert "early_stopping=True" in str(caught.value)
    assert "'train_loss'" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_error_of_a_callbacks_own_stays_what_it_is():
    class Broken(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fit(Broken())


def test_a_model_with_metrics_is_saved_with_them(tmp_path):
    model = fit(EpochScoring("accuracy", on_train=True, name="acc", lower_is_better=False))
    model.set_params(callbacks=None, backbone=network)
    sktransfer.save(model, tmp_path / "model.safetensors")
    again = sktransfer.load(tmp_path / "model.safetensors", backbone=network)
    assert again.history_ == model.history_
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert list(model.net_.classes_) == ["a", "b"]


def test_metrics_with_a_network_for_images(pictures):
    images, labels = pictures
    callback = EpochScoring("accuracy", on_train=True, name="acc", lower_is_better=False)
    model = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=2, callbacks=[callback], random_state=0)
    assert all("acc" in row for row in model.fit(images, labels).history_)


class Rates(Callback):
    """Notes the learning rates of each step."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.seen.append([group["lr"] for group in net.optimizer_.param_groups])


def rates(*callbacks, **how):
    seen = Rates()
    fit(seen, *callbacks, lr=1e-3, head_lr=1e-2, max_epochs=5, **how)
    return np.array(seen.seen)


def test_learning_rates_rise_and_then_fall_to_nothing():
    found = rates()
    assert len(found) == 5 * 3
    for group, greatest in enumerate((1e-2, 1e-3)):
        steps = found[:, group]
        top = int(steps.argmax())
        assert steps.max() == pytest.approx(greatest)
        assert 1 <= top <= 2
        assert (np.diff(steps[: top + 1]) > 0).all()
        assert (np.diff(steps[top:]) < 0).all()
        assert steps[-1] < 0.03 * greatest


def test_constant_rates_stay():
    assert (rates(lr_schedule="constant") == [1e-2, 1e-3]).all()


def test_a_schedule_of_ones_own_takes_the_place_of_the_cosine():
    for given in (
        LRScheduler("StepLR", step_size=1, gamma=0.5),
        ("mine", LRScheduler("StepLR", step_size=1, gamma=0.5)),
    ):
        found = rates(given)
        assert found[:, 1] == pytest.approx(1e-3 * 0.5 ** np.repeat(np.arange(5), 3))


def test_a_fit_of_one_step_learns():
    model = fit(max_epochs=1, batch_size=64, lr=1e-2, head_lr=1e-1)
    other = fit(max_epochs=1, batch_size=64, lr=1e-12, head_lr=1e-12)
    assert not np.allclose(model.predict_proba(X), other.predict_proba(X))


def test_no_gradient_is_left_behind_and_a_record_is_brought_to_the_cpu(monkeypatch):
    module = fit().net_.module_
    assert all(parameter.grad is None for parameter in module.parameters())
    names = set(module.to_record()[1])
    assert {name.partition(".")[0] for name in names} >= {"head", "tail"}
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: "here")
    assert module.to_record()[1] == dict.fromkeys(names, "here")


@pytest.mark.parametrize("augment", [None, "standard"])
def test_a_validation_set_of_ones_own_is_judged_by_its_own_labels_while_the_head_is_trained(pictures, augment):
    """Not by those of the training samples that stand in the same rows."""
    images, labels = pictures
    held_out = np.flatnonzero(labels == "stone")
    how = {"head_epochs": 2, "augment": augment, "random_state": 0}
    model = FineTunedClassifier(tiny_cnn(), weights=None, **how)
    model.fit(images, labels, X_val=images[held_out], y_val=labels[held_out])
    last = model.history_[-1]
    assert last["phase"] == "head"
    assert last["valid_accuracy"] == model.score(images[held_out], labels[held_out])
    probabilities = model.predict_proba(images[held_out])[:, list(model.classes_).index("stone")]
    assert last["valid_loss"] == pytest.approx(-np.log(probabilities).mean(), rel=1e-4)
