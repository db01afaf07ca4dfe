"""Which parameters of tuned blocks learn: norms, biases or low-rank updates; all others stay as they were loaded."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from pretrained_models import make_text_model
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor
from sktransfer._training._low_rank import add_low_rank
from sktransfer.backbones import load_backbone, restore_backbone
from sktransfer.inputs import ImagePreprocessing

HOW = {
    "freeze_depth": 1, "max_epochs": 2, "lr": 1e-2, "random_state": 0, "precision": "float32", "lora_rank": 2,
}  # fmt: skip
SOME = ("norm", "bias", "lora")

# Parameters of tiny_cnn behind its first block, by hand.
NORMS = {f"{layer}.{own}" for layer in ("4.bn1", "5.bn1", "7") for own in ("weight", "bias")}
BIASES = {"4.conv2.bias", "5.conv2.bias", "6.bias"}
WEIGHTS = {f"{layer}.weight" for layer in ("4.conv1", "4.conv2", "5.conv1", "5.conv2", "6")}
CHANGED = {"norm": NORMS, "bias": NORMS | BIASES, "lora": WEIGHTS}


WAYS = [
    {"layer_decay": 0.01}, {"weight_decay": 5.0}, {"augment": "light"}, {"interpolation": "auto"},
    {"optimizer": "sgd"}, {"precision": "bfloat16"}, {"lora_alpha": 1e-3},
]  # fmt: skip


def classifier(trainable="lora", **parameters):
    how = {key: value for key, value in HOW.items() if key != "lora_rank" or trainable == "lora"}
    return FineTunedClassifier(tiny_cnn, **{**how, "trainable": trainable, **parameters})


def changed(model):
    """Return the names of tensors behind the cut that differ from the backbone's."""
    module = model.net_.module_
    module.attach(model.backbone_)
    loaded = model.backbone_.network.state_dict()
    return {name for name, tensor in module.tail.state_dict().items() if not torch.equal(tensor, loaded[name])}


def tensors_of(model):
    return model.net_.module_.to_record()[1]


@pytest.mark.parametrize("strategy", rest_exhaustive(["lp_ft", "fine_tune", "gradual"], "gradual"))
@pytest.mark.parametrize("trainable", SOME)
def test_what_does_not_learn_stays_bit_identical(trainable, strategy, pictures):
    X, y = pictures
    model = classifier(trainable, strategy=strategy, max_epochs=4).fit(X, y)
    assert changed(model) == CHANGED[trainable]
    assert load_backbone(tiny_cnn, seed=model._seed()).fingerprint == model.backbone_.fingerprint
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"]


@pytest.mark.parametrize("trainable", ["norm", "lora"])
def test_statistics_of_batch_norm_follow_train_bn_alone(trainable, pictures):
    X, y = pictures
    statistics = {f"{layer}.{own}" for layer in ("4.bn1", "5.bn1", "7") for own in ("running_mean", "running_var")}
    counts = {f"{layer}.num_batches_tracked" for layer in ("4.bn1", "5.bn1", "7")}
    assert changed(classifier(trainable, train_bn=True).fit(X, y)) == CHANGED[trainable] | statistics | counts


@pytest.mark.parametrize("trainable", rest_exhaustive(SOME, "lora"))
def test_layers_are_in_the_mode_that_they_are_in_where_all_of_them_learn(trainable, pictures):
    X, y = pictures

    class Modes(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            modes.append([module.training for _, module in _layers(net.module_.tail)])

    found = []
    for which in ("all", trainable):
        modes: list = []
        classifier(which, callbacks=[Modes()]).fit(X, y)
        found.append(modes[0])
    assert found[0] == found[1]
    assert any(found[0])


def _layers(tail):
    return [(name, module) for name, module in tail.named_modules() if "parametrizations" not in name]


@pytest.mark.parametrize("store_backbone", [True, False])
@pytest.mark.parametrize("way", rest_exhaustive([{}, {"train_bn": True}, {"interpolation": 0.5}, {"layer": "5"}], {}))
@pytest.mark.parametrize("trainable", rest_exhaustive(SOME, "bias", "lora"))
def test_a_file_holds_what_differs_alone_and_gives_the_same_bits(trainable, way, store_backbone, pictures, tmp_path):
    X, y = pictures
    model = classifier(trainable, store_backbone=store_backbone, **way).fit(X, y)
    expected = model.predict_proba(X)
    sktransfer.save(model, tmp_path / "model.safetensors")
    for again in (
        sktransfer.load(tmp_path / "model.safetensors", backbone=tiny_cnn),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model)))),
    ):
        np.testing.assert_array_equal(again.predict_proba(X), expected)
        again.interpolation_, model.interpolation_ = 0.25, 0.25
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        model.interpolation_ = way.get("interpolation", 1.0)
    held = {name for name in tensors_of(model) if name.startswith(("tail.", "left.", "right."))}
    differing = changed(model)
    if trainable == "lora":
        pairs = {f"{side}.{name}" for name in differing & WEIGHTS for side in ("left", "right")}
        assert held == pairs | {f"tail.{name}" for name in differing - WEIGHTS}
    else:
        assert held == {f"tail.{name}" for name in differing}


def test_the_same_bits_are_loaded_whatever_the_number_of_threads_is(pictures, tmp_path):
    X, y = pictures
    model = classifier().fit(X, y)
    weights = {name: tensor.clone() for name, tensor in model.net_.module_.tail.state_dict().items()}
    data = pickle.dumps(model)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 3)
        again = pickle.loads(data)
        again.net_.module_.attach(again.backbone_)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.net_.module_.tail.state_dict().items())


@pytest.mark.parametrize("shape", [(5, 7), (8, 3, 3, 3), (300, 200)])
def test_low_rank_matrices_are_added_as_their_product_is(shape):
    weight = torch.randn(shape)
    left, right = torch.randn(shape[0], 3), torch.randn(3, weight[0].numel())
    added = add_low_rank(weight, (left, right))
    torch.testing.assert_close(added, weight + (left.double() @ right.double()).view(shape).float())
    for_each = torch.stack([add_low_rank(weight[i : i + 1], (left[i : i + 1], right))[0] for i in range(shape[0])])
    assert torch.equal(added, for_each), "a bit depends on what stands beside it"
    for wrong in ((left, right.T), (left[1:], right), (left[:, 1:], right), (left[0], right)):
        with pytest.raises(ValueError, match="low-rank matrices of shapes"):
            add_low_rank(weight, wrong)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 10), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Conv1d(4, 6, 3)],
    ids=lambda layer: type(layer).__name__ + str(getattr(layer, "kernel_size", "")),
)
def test_what_is_merged_is_what_peft_computes(layer):
    from peft import LoraConfig, inject_adapter_in_model

    from sktransfer._training._low_rank import insert, make_low_rank, merge

    network = nn.Sequential(layer)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = make_low_rank(network, ("0.weight",), 2, 6.0)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6, target_modules=["0"]), copy.deepcopy(network))
    update, adapted = made["0.weight"], theirs[0]
    torch.testing.assert_close(update.right, adapted.lora_A["default"].weight.flatten(1), rtol=0, atol=0)
    assert (update.left == 0).all()
    assert (adapted.lora_B["default"].weight == 0).all()
    with torch.no_grad():
        update.left.normal_()
        adapted.lora_B["default"].weight.copy_(update.left.view_as(adapted.lora_B["default"].weight))
    x = {nn.Linear: torch.randn(5, 6), nn.Conv1d: torch.randn(5, 4, 9)}.get(type(layer), torch.randn(5, 4, 8, 8))
    expected = theirs(x)
    ours = copy.deepcopy(network)
    inserted = insert(ours, made)
    torch.testing.assert_close(ours(x), expected)
    merge(ours, inserted)
    torch.testing.assert_close(ours(x), expected)
    assert type(ours[0]) is type(layer)
    assert ours.state_dict().keys() == network.state_dict().keys()


class Attending(nn.Module):
    """Tokens that attend to each other; a linear layer that is called, one whose weight is read, and a shared one."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.middle = nn.Linear(16, 16)
        self.read, self.called = nn.Linear(16, 16), nn.Linear(16, 16)
        self.same = nn.Linear(16, 16)
        self.same.weight = self.called.weight
        self.head = nn.Linear(16, 2)
        self.preprocessing = ImagePreprocessing(crop=(16, 16))

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.norm(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.middle(x)
        x = x + functional.linear(functional.gelu(x), self.read.weight, self.read.bias)
        x = x + self.same(self.called(x))
        return self.head(x.mean(1))


def test_each_weight_that_is_multiplied_by_learns_however_the_network_uses_it(pictures):
    X, y = pictures
    how = {**HOW, "freeze_depth": 0, "lr": 1e-2, "max_epochs": 3, "layer": None}
    model = FineTunedClassifier(Attending, trainable="lora", **how).fit(X, y)
    layers = ("embed", "middle", "read", "called", "same", "attention.out_proj")
    assert changed(model) == {"attention.in_proj_weight", *(f"{layer}.weight" for layer in layers)}
    tail = model.net_.module_.tail
    assert torch.equal(tail.state_dict()["same.weight"], tail.state_dict()["called.weight"])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


FAMILIES = ["bert", "gpt2", "albert", "llama", "deberta-v2"]
TEXTS = np.array(["a good film", "the story is dull", "great fun", "not very good", "a bad story", "fun"] * 2, object)


@pytest.mark.parametrize("trainable", SOME)
@pytest.mark.parametrize("kind", rest_exhaustive(FAMILIES, "gpt2"))
def test_networks_of_transformers_learn_so_too(kind, trainable, tmp_path):
    name = make_text_model(kind, tmp_path / "model")
    y = [0, 1, 1, 0, 0, 1] * 2
    model = FineTunedClassifier(name, trainable=trainable, **{**HOW, "store_backbone": False})
    if trainable != "lora":
        model.set_params(lora_rank=8)
    p = model.fit(TEXTS, y).predict_proba(TEXTS)
    names = changed(model)
    assert names
    if trainable == "norm":
        assert all("norm" in one.lower() or "ln_" in one for one in names)
    if trainable == "lora":
        assert all(one.endswith("weight") and "norm" not in one.lower() for one in names)
    sktransfer.save(model, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.safetensors").predict_proba(TEXTS), p)


def test_the_same_seed_gives_the_same_bits_and_no_number_is_drawn_from_the_global_generator(pictures):
    X, y = pictures
    state = torch.get_rng_state()
    one = classifier().fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    other = classifier().fit(X, y)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    third = classifier(random_state=1, weights=None).fit(X, y)
    assert not np.array_equal(third.predict_proba(X), one.predict_proba(X))


@pytest.mark.parametrize("second", rest_exhaustive(["all", *SOME], "lora"))
@pytest.mark.parametrize("first", rest_exhaustive(["all", *SOME], "norm", "lora"))
def test_a_second_fit_goes_on_from_what_the_first_has_left(first, second, pictures):
    X, y = pictures
    model = classifier(first, warm_start=True).fit(X, y)
    before = {name: tensor.clone() for name, tensor in model.net_.module_.tail.state_dict().items()}
    model.set_params(trainable=second, lora_rank=2 if second == "lora" else 8).fit(X, y)
    after = model.net_.module_.tail.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == (CHANGED[second] if second != "all" else NORMS | BIASES | WEIGHTS)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    again.interpolation_ = model.interpolation_ = 0.5
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("trainable", rest_exhaustive(SOME, "lora"))
def test_early_stopping_restores_the_best_epoch(trainable, pictures):
    X, y = pictures
    how = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_epochs": 8, "lr": 0.3}
    model = classifier(trainable, lr_schedule="constant", **how).fit(X, y)
    losses = [entry["valid_loss"] for entry in model.history_ if entry["phase"] == "fine_tune"]
    best = int(np.argmin(losses)) + 1
    assert best < len(losses)
    short = classifier(trainable, lr_schedule="constant", **{**how, "max_epochs": best, "n_iter_no_change": best})
    np.testing.assert_allclose(model.predict_proba(X), short.fit(X, y).predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("way", rest_exhaustive(WAYS, WAYS[0]), ids=str)
def test_what_says_how_to_train_has_its_effect_on_low_rank_updates(way, pictures):
    X, y = pictures
    plain, other = classifier().fit(X, y), classifier(**way).fit(X, y)
    assert changed(plain) == WEIGHTS
    assert changed(other) in (WEIGHTS, set())
    if "layer_decay" in way:
        ends = [tensors_of(model) for model in (plain, other)]
        sizes = [[(left["left.4.conv1.weight"] @ left["right.4.conv1.weight"]).norm()] for left in ends]
        assert sizes[1][0] < 0.1 * sizes[0][0]
    assert not np.array_equal(plain.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("trainable", rest_exhaustive(SOME, "lora"))
def test_numbers_and_several_labels_are_learned_so_too(trainable, pictures):
    X, y = pictures
    how = {**HOW, "lora_rank": 2 if trainable == "lora" else 8, "trainable": trainable}
    regressor = FineTunedRegressor(tiny_cnn, **how).fit(X, np.arange(len(X), dtype=float))
    assert changed(regressor) == CHANGED[trainable]
    several = FineTunedClassifier(tiny_cnn, **how).fit(X, np.stack([y == "leaf", np.arange(len(y)) % 3 == 0], 1) * 1)
    assert changed(several) == CHANGED[trainable]
    vectors = FineTunedRegressor(tiny_vectors, **{**how, "trainable": "lora"}).fit(np.eye(6, 4), np.arange(6.0))
    assert changed(vectors) == {"2.weight"}


def test_a_search_passes_each_image_through_the_frozen_part_once(pictures):
    X, y = pictures
    sktransfer.clear_cache()
    model = classifier("all", max_epochs=1)
    grid = [{"trainable": ["all", "norm", "bias"]}, {"trainable": ["lora"], "lora_rank": [1, 2]}]
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    known = sktransfer.cache_info()
    assert known.misses == len(X)
    assert known.hits > 14 * len(X)
    assert clone(search.best_estimator_).get_params() == search.best_estimator_.get_params()


def test_the_summary_counts_what_learns(pictures):
    X, y = pictures
    n_all = sum(parameter.numel() for parameter in tiny_cnn()[:-1].parameters())
    for trainable, n_trained in (("norm", 2 * (8 + 8 + 16)), ("bias", 2 * (8 + 8 + 16) + 8 + 8 + 16)):
        model = classifier(trainable).fit(X, y)
        for summary in (model.backbone_.summary(), pickle.loads(pickle.dumps(model)).backbone_.summary()):
            assert (summary.n_trainable, summary.n_frozen) == (n_trained, n_all - n_trained)
            assert f"trainable {n_trained}, frozen" in str(summary)
            assert f"{trainable}: " in summary._repr_html_()
            assert summary.rows[0].state == "frozen"
    summary = classifier("lora").fit(X, y).backbone_.summary()
    assert summary.n_trainable == 2 * (4 * (8 + 8 * 9) + (16 + 8 * 9))
    assert summary.n_frozen == n_all
    backbone = load_backbone(tiny_cnn)
    record, tensors = backbone.to_record()
    del record["learning"]  # which earlier versions did not write
    assert str(restore_backbone(record, tensors, tiny_cnn).summary()) == str(backbone.summary())


def test_peft_is_asked_for_only_by_lora_and_named_with_its_extra_where_it_is_missing(pictures, monkeypatch):
    X, y = pictures
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "sktransfer\[lora\]"'):
        classifier().fit(X, y)
    for trainable in ("norm", "bias"):
        classifier(trainable).fit(X, y)


def test_who_predicts_needs_no_peft(pictures, monkeypatch):
    X, y = pictures
    model = classifier().fit(X, y)
    expected, data = model.predict_proba(X), pickle.dumps(model)
    monkeypatch.setitem(sys.modules, "peft", None)
    np.testing.assert_array_equal(pickle.loads(data).predict_proba(X), expected)


def test_a_rank_is_refused_before_training_with_the_greatest_that_fits(pictures):
    X, y = pictures
    with pytest.raises(
        ValueError, match=r"Got lora_rank=9, but '4.conv1.weight' .* is a matrix of 8 x 72; expected at"
    ):
        classifier(lora_rank=9).fit(X, y)
    model = classifier(lora_rank=8).fit(X, y)
    assert hasattr(model, "net_")


def test_a_file_whose_tensors_were_exchanged_is_refused(pictures):
    X, y = pictures
    model = classifier("norm").fit(X, y)
    record, tensors = model.net_.module_.to_record()
    less = {name: tensor for name, tensor in tensors.items() if name != "tail.7.weight"}
    with pytest.raises(ValueError, match="do not match their record"):
        sktransfer.restore_suffix(record, less)
    record, tensors = classifier().fit(X, y).net_.module_.to_record()
    less = {name: tensor for name, tensor in tensors.items() if name != "left.6.weight"}
    with pytest.raises(ValueError, match="are not pairs"):
        sktransfer.restore_suffix(record, less)
    for strange in (
        {"left.6.weight": torch.ones(3, 2)},
        {"left.9.weight": torch.ones(3, 2), "right.9.weight": torch.ones(2, 3)},
    ):
        module = sktransfer.restore_suffix(record, {**tensors, **strange})
        with pytest.raises(ValueError, match="Got tuned blocks that do not match"):
            module.attach(model.backbone_)


def test_parameters_that_have_no_effect_are_told(pictures):
    X, y = pictures
    with pytest.warns(UserWarning, match=r"Got trainable='norm' with freeze_depth='all', which trains only the head"):
        classifier("norm", freeze_depth="all", max_epochs=10, lr=3e-5).fit(X, y)
    with pytest.warns(UserWarning, match="Got lora_rank=4 with trainable='all', where it has no effect"):
        classifier("all", lora_rank=4).fit(X, y)
    with pytest.warns(UserWarning, match="Got lora_rank=4 and lora_alpha=2 with trainable='bias', where they have no"):
        classifier("bias", lora_rank=4, lora_alpha=2).fit(X, y)
