"""Training in parts by threads: the same network as from whole batches, to rounding, and the same bits each time."""

import random
import threading
import time

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from pretrained_models import make_text_model, make_texts
from skorch.callbacks import Callback
from torch import nn

from sktransfer import FineTunedClassifier
from sktransfer._computing._execution import Execution
from sktransfer._training import _activation_sources, _batch_parts
from sktransfer._training._batch_parts import BatchParts, in_parts
from sktransfer._training._suffix_network import SuffixNetwork

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
Y = np.arange(48) % 3


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Four threads of torch, and no network too small for them."""
    monkeypatch.setattr(_batch_parts, "LEAST_WORK", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    assert torch.get_num_threads() == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sktransfer")]
    torch.set_num_threads(before)


@pytest.fixture
def divided(monkeypatch):
    """The number of parts of each batch that was divided."""
    counts, original = [], BatchParts.run_with_gradients

    def run(self, item):
        counts.append(len(item[0]))
        return original(self, item)

    monkeypatch.setattr(BatchParts, "run_with_gradients", run)
    return counts


def fit(network=tiny_cnn, X=X, y=Y, **given):
    how = {"freeze_depth": 1, "max_epochs": 3, "random_state": 0, "batch_size": 16}
    how |= {"precision": "float32", "optimizer": "sgd", "lr": 0.01}
    return FineTunedClassifier(network, **how | given).fit(X, y)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.net_.module_.state_dict().items()}


def without_dropout():
    network = tiny_cnn()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return network


@pytest.mark.parametrize(
    "given", [{}, {"freeze_depth": 0}, {"strategy": "gradual"}, {"strategy": "fine_tune", "lr": 1e-3}]
)
def test_parts_train_to_the_same_weights_as_whole_batches_to_rounding(given, divided):
    parts = fit(without_dropout, **given)
    assert set(divided) == {4}
    torch.set_num_threads(1)
    whole = fit(without_dropout, **given)
    torch.set_num_threads(4)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_no_bit_depends_on_which_thread_is_first(kind, monkeypatch, divided, tmp_path):
    """With dropout, in blocks and in attention, and with threads that wake when they please."""
    if kind == "texts":
        make_text_model("bert", tmp_path)
        backbone, samples = f"hf:{tmp_path}", make_texts(48)[0]
    else:
        backbone, samples = tiny_cnn, X
    given = {"X": samples, "dropout": 0.3}
    first = weights(fit(backbone, **given))
    assert divided
    original = BatchParts.run_with_gradients

    def late(self, item):
        time.sleep(random.random() * 0.005)
        return original(self, item)

    monkeypatch.setattr(BatchParts, "run_with_gradients", late)
    for _ in range(2):
        again = weights(fit(backbone, **given))
        assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_dropout_drops_in_parts(divided):
    with_dropout, without = weights(fit(tiny_cnn)), weights(fit(without_dropout))
    assert divided
    assert not all(torch.equal(with_dropout[name], tensor) for name, tensor in without.items())


class AcrossSamples(nn.Module):
    """Takes the mean of a batch away, as no layer in eval mode should."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Counts(nn.Module):
    """Has a buffer that it writes to while it is trained."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return x


class DropsChannels(nn.Module):
    """Draws where it can be given no generator."""

    def forward(self, x):
        return nn.functional.dropout2d(x, 0.2, self.training)


@pytest.mark.parametrize("kind", [nn.Identity, AcrossSamples, DropsChannels, Counts, lambda: nn.BatchNorm2d(4)])
def test_a_network_that_cannot_be_divided_is_run_on_whole_batches(kind, divided):
    tail = nn.Sequential(nn.Conv2d(3, 4, 3), kind())
    module = SuffixNetwork(tail, nn.Linear(4, 2), "avg", train_bn=True)
    module.thaw({name for name, _ in tail.named_parameters()})
    module.train()
    tail[1].training = True
    batch = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with in_parts(module, Execution.plan(16, None, "cpu", "float32", 0)):
        found = module(batch)
        assert torch.get_num_threads() == (1 if kind is nn.Identity else 4)
        assert (module.runner is None) == (kind is not nn.Identity)
        found.sum().backward()
    assert divided == [4] * 4 * (kind is nn.Identity)
    assert module.runner is None
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    if kind is Counts:
        assert tail[1].calls == 1
        return
    module.zero_grad()
    torch.manual_seed(0)
    expected = module(batch)
    expected.sum().backward()
    torch.testing.assert_close(found, expected)
    for gradient, parameter in zip(gradients, module.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)
    torch.set_rng_state(state)


def test_statistics_of_batchnorm_are_those_of_whole_batches(divided):
    fit(train_bn=True)
    assert not divided


def test_small_batches_stay_whole(divided):
    fit(batch_size=7)
    assert not divided


class Sees(Callback):
    """Notes with how many threads torch computes, here and in a thread that is new."""

    def __init__(self):
        self.seen = []

    def on_epoch_begin(self, net, **kwargs):
        self.seen.append(torch.get_num_threads())
        other = threading.Thread(target=lambda: self.seen.append(torch.get_num_threads()))
        other.start()
        other.join()


def test_threads_of_others_compute_as_before_while_a_network_is_trained():
    sees = Sees()
    fit(callbacks=[sees], max_epochs=1)
    assert sees.seen == [1, 4]
    assert torch.get_num_threads() == 4


class Raises(Callback):
    def __init__(self, error):
        self.error = error

    def on_batch_end(self, net, training, **kwargs):
        if training and len(net.history) == 2:
            raise self.error("here")


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_an_error_leaves_no_thread_and_torch_as_it_was(error, divided):
    with pytest.raises(error, match="here"):
        fit(callbacks=[Raises(error)])
    assert divided
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [4]


def test_an_error_in_a_part_is_raised_once_all_are_done(monkeypatch):
    done, original = [], BatchParts.run_with_gradients

    def fails(self, item):
        result = original(self, item)
        time.sleep(0.01)
        done.append(len(done))
        if len(done) == 1:
            raise RuntimeError("a part failed")
        return result

    monkeypatch.setattr(BatchParts, "run_with_gradients", fails)
    with pytest.raises(RuntimeError, match="a part failed"):
        fit()
    assert len(done) == 4


def test_threads_that_end_by_themselves_leave_their_parts_to_the_caller(monkeypatch):
    original = threading.Thread.run
    expected = weights(fit())

    def run(self):
        if not self.name.startswith("sktransfer-train"):
            original(self)

    monkeypatch.setattr(threading.Thread, "run", run)
    monkeypatch.setattr("sktransfer._process._workers.LOOKS_EVERY", 0.02)
    monkeypatch.setattr("sktransfer._computing._threads.LOOKS_EVERY", 0.02)
    again = weights(fit())
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def test_held_out_samples_are_scored_in_parts_too():
    how = {"early_stopping": True, "validation_fraction": 0.4}
    parts = fit(without_dropout, **how)
    torch.set_num_threads(1)
    whole = fit(without_dropout, **how)
    torch.set_num_threads(4)
    assert [entry["valid_loss"] for entry in parts.history_] == pytest.approx(
        [entry["valid_loss"] for entry in whole.history_], rel=1e-3
    )


def augmented(**given):
    return fit(augment="strong", freeze_depth=given.pop("freeze_depth", 0), feature_cache=None, **given)


@pytest.mark.parametrize("freeze_depth", [0, 2])
def test_what_is_augmented_ahead_of_training_is_the_same_each_time(freeze_depth, monkeypatch):
    first = weights(augmented(freeze_depth=freeze_depth))
    from sktransfer.inputs.images import _reader

    original = _reader.ImageSamples.load

    def late(self, index):
        time.sleep(random.random() * 0.003)
        return original(self, index)

    monkeypatch.setattr(_reader.ImageSamples, "load", late)
    again = weights(augmented(freeze_depth=freeze_depth))
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    other = weights(augmented(freeze_depth=freeze_depth, random_state=1))
    assert not all(torch.equal(other[name], tensor) for name, tensor in first.items())


def test_an_augmentation_of_ones_own_is_called_in_the_thread_of_fit_and_in_order(monkeypatch):
    names, drawn = set(), []

    def augment(image):
        names.add(threading.current_thread())
        drawn.append(float(torch.rand(())))
        return image

    fit(augment=augment, freeze_depth=0, max_epochs=2)
    first = list(drawn)
    drawn.clear()
    fit(augment=augment, freeze_depth=0, max_epochs=2)
    assert names == {threading.current_thread()}
    assert drawn == first
    assert len(first) >= 2 * len(X)


def test_no_more_than_the_next_batch_is_computed_ahead(monkeypatch):
    from sktransfer.inputs.images import _reader

    loaded, original, most = [], _reader.ImageSamples.load, []

    def load(self, index):
        loaded.append(index)
        return original(self, index)

    class Looks(Callback):
        def on_train_begin(self, net, **kwargs):
            self.batches = 0
            loaded.clear()

        def on_batch_begin(self, net, batch, training, **kwargs):
            time.sleep(0.05)  # what can run ahead does
            self.batches += len(batch[0])
            most.append(len(loaded) - self.batches)

    monkeypatch.setattr(_reader.ImageSamples, "load", load)
    many, how = RNG.integers(0, 256, (160, 16, 16, 3), dtype=np.uint8), {"augment": "light", "feature_cache": None}
    monkeypatch.setattr("sktransfer._computing._execution.VALUES_AT_ONCE", 8 * 3 * 16 * 16)
    fit(X=many, y=np.arange(160) % 2, freeze_depth=0, max_epochs=1, callbacks=[Looks()], **how)
    assert 0 < max(most) <= 16 + 4 * 8 + 16


def test_each_sample_is_augmented_by_another_draw_in_each_epoch(monkeypatch):
    seen, original = [], _activation_sources.ComputedActivations.batches

    def batches(self, groups):
        for batch in original(self, groups):
            seen.append(batch.clone())
            yield batch

    monkeypatch.setattr(_activation_sources.ComputedActivations, "batches", batches)
    same = np.repeat(X[:1], 48, axis=0)
    fit(X=same, strategy="fine_tune", augment="strong", freeze_depth=0, max_epochs=2, feature_cache=None)
    images = torch.cat([batch for batch in seen if len(batch) == 16])
    assert len(images) >= 96
    assert len({image.numpy().tobytes() for image in images}) > 0.9 * len(images)
