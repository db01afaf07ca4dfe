"""What a user of the classifier may rely on."""

import copy
import signal

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs import ImagePreprocessing

# One of every torchvision family.
FAMILIES = [
    "alexnet",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
    "convnext_tiny",
]
STRATEGIES = ["linear_probe", "fine_tune", "lp_ft", "gradual"]


def tiny(**parameters):
    return FineTunedClassifier(tiny_cnn, random_state=0, **{"max_epochs": 3, "freeze_depth": 2, **parameters})


def state_of(classifier):
    return {name: tensor.clone() for name, tensor in classifier.backbone_.network.state_dict().items()}


# Frozen is frozen


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("freeze_depth", [0, 1, 0.75, "all", "5"])
def test_frozen_parameters_and_buffers_stay_bit_identical(pictures, strategy, freeze_depth):
    X, y = pictures
    torch.manual_seed(0)
    network = tiny_cnn()
    loaded = copy.deepcopy(network.state_dict())
    classifier = FineTunedClassifier(
        network, freeze_depth=freeze_depth, strategy=strategy, max_epochs=2, train_bn=True, head_lr=0.1, lr=0.1
    ).fit(X, y)
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state_of(classifier).items())
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in network.state_dict().items())
    tail = tail_of(classifier)
    frozen = classifier.backbone_.frozen_names(classifier.net_.module_.freeze_depth)
    assert not frozen & set(tail)
    thawed = {name for block in classifier.backbone_.trained_blocks(freeze_depth) for name in block.parameter_names}
    if strategy == "linear_probe":
        assert all(torch.equal(tensor, loaded[name]) for name, tensor in tail.items())
    elif thawed:
        assert any(not torch.equal(tail[name], loaded[name]) for name in thawed)


def tail_of(classifier):
    """What was trained; nothing where all of the backbone is frozen."""
    tail = classifier.net_.module_.tail
    return {} if tail is None else tail.state_dict()


@pytest.mark.parametrize("name", rest_exhaustive(FAMILIES, "resnet18", "mobilenet_v3_small", "squeezenet1_1"))
def test_frozen_part_of_each_family_stays_bit_identical(name):
    from torchvision.models import get_model

    side = 224 if name == "maxvit_t" else 96 if name == "inception_v3" else 64
    extra = {
        "googlenet": {"init_weights": False},
        "inception_v3": {"init_weights": False},
        "vit_b_32": {"image_size": 64},
    }
    torch.manual_seed(0)
    network = get_model(name, weights=None, **extra.get(name, {}))
    network.preprocessing = ImagePreprocessing(crop=(side, side))
    loaded = copy.deepcopy(network.state_dict())
    X, y = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8), [0, 1]
    for strategy, depth in [("lp_ft", 0.7), ("gradual", 0.9), ("fine_tune", 0.4), ("linear_probe", "all")]:
        # Features of random networks all but vanish, so a head that is solved on them has weights in the millions.
        how = {"head_epochs": 1, "max_epochs": 1, "train_bn": True, "lr": 1e-3, "optimizer": "sgd"}
        classifier = FineTunedClassifier(network, freeze_depth=depth, strategy=strategy, **how).fit(X, y)
        after = classifier.backbone_.network.state_dict()
        assert all(torch.equal(tensor, loaded[key]) for key, tensor in after.items())
        frozen = classifier.backbone_.frozen_names(classifier.net_.module_.freeze_depth)
        assert frozen
        assert not frozen & set(tail_of(classifier))


def test_statistics_of_thawed_batch_norm_move_only_when_asked(pictures):
    X, y = pictures
    for train_bn in (False, True):
        classifier = tiny(train_bn=train_bn, freeze_depth=0).fit(X, y)
        loaded, tail = state_of(classifier), classifier.net_.module_.tail.state_dict()
        same = [torch.equal(tail[name], loaded[name]) for name in tail if name.endswith("running_mean")]
        assert same
        assert all(same) != train_bn
        assert not torch.equal(tail["1.weight"], loaded["1.weight"])  # its scale is trained all the same


def test_dropout_and_batch_norm_of_frozen_blocks_never_train(pictures):
    modes = []

    class Watch(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            tail = net.module_.tail
            if training and tail is not None:
                modes.append({name: module.training for name, module in tail.named_modules()})

    X, y = pictures
    how = {"strategy": "gradual", "freeze_depth": 1, "max_epochs": 3, "callbacks": [Watch()]}
    tiny(train_bn=True, **how).fit(X, y)
    assert not modes[0]["4.dropout"]
    assert not modes[0]["4.bn1"]
    assert modes[0]["6"]
    assert modes[-1]["4.dropout"]
    assert modes[-1]["4.bn1"]
    kept = tiny(train_bn=False, **how).fit(X, y)
    statistics = {name: value for name, value in tail_of(kept).items() if "running" in name}
    assert statistics
    loaded = state_of(kept)
    assert all(torch.equal(value, loaded[name]) for name, value in statistics.items())


def test_predict_runs_in_eval_mode(pictures):
    X, y = pictures
    classifier = tiny(hidden_layer_sizes=(8,), dropout=0.5, freeze_depth=0).fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), classifier.predict_proba(X))
    assert not any(module.training for module in classifier.net_.module_.modules())


# Strategies


@pytest.mark.parametrize("layer", [None, "stages"])
def test_linear_probe_is_logistic_regression_on_the_features(pictures, layer):
    X, y = pictures
    extractor = PretrainedFeatureExtractor(tiny_cnn, layer=layer, random_state=0)
    features = extractor.fit_transform(X)
    for strategy in ("linear_probe", "lp_ft"):
        classifier = tiny(strategy=strategy, freeze_depth="all", layer=layer, head_C=3.0).fit(X, y)
        np.testing.assert_array_equal(classifier.transform(X), features)
        with torch.no_grad():
            scaled = classifier.net_.module_.head[0](torch.from_numpy(features)).double().numpy()
        assert (scaled**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
        expected = LogisticRegression(C=3.0, tol=1e-8, max_iter=1000).fit(scaled, y).predict_proba(scaled)
        np.testing.assert_allclose(classifier.predict_proba(X), expected, atol=1e-3)
        assert classifier.history_ == []
        assert classifier.n_iter_ >= 1
        assert classifier.head_C_ == 3.0
        assert not len(classifier.head_C_path_["C"])


def test_phases_are_in_the_history(pictures):
    X, y = pictures
    history = tiny(head_epochs=4, max_epochs=3).fit(X, y).history_
    assert [(entry["phase"], entry["epoch"]) for entry in history] == [
        *(("head", epoch) for epoch in range(1, 5)),
        *(("fine_tune", epoch) for epoch in range(1, 4)),
    ]
    assert all(entry["train_loss"] > 0 and entry["seconds"] > 0 for entry in history)
    assert {entry["phase"] for entry in tiny(strategy="fine_tune").fit(X, y).history_} == {"fine_tune"}


def test_lp_ft_starts_from_the_solved_head(pictures):
    X, y = pictures
    solved = tiny(strategy="linear_probe").fit(X, y)
    barely = tiny(strategy="lp_ft", max_epochs=1, lr=1e-12, head_lr=1e-12, weight_decay=0.0).fit(X, y)
    np.testing.assert_allclose(barely.predict_proba(X), solved.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("strategy", ["lp_ft", "gradual", "fine_tune"])
@pytest.mark.parametrize("head_epochs", ["auto", 1])
def test_the_head_is_trained_with_the_blocks(pictures, strategy, head_epochs):
    X, y = pictures
    how = {"strategy": strategy, "head_epochs": head_epochs, "max_epochs": 3, "head_lr": 0.1}
    weights = [
        tiny(freeze_depth=2, lr=lr, **how).fit(X, y).net_.module_.head[-1].weight.detach().clone()
        for lr in (1e-12, 1e-2)  # with blocks that hardly move, and with blocks that do
    ]
    before = tiny(freeze_depth=2, **{**how, "strategy": "linear_probe"}).fit(X, y).net_.module_.head[-1].weight
    assert not torch.allclose(weights[0], before, atol=1e-3)
    assert not torch.equal(weights[0], weights[1])


def test_gradual_thaws_from_the_head_down_to_freeze_depth(pictures):
    thawed = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            if net.module_.tail is not None:
                names = {n.split(".")[0] for n, p in net.module_.tail.named_parameters() if p.requires_grad}
                thawed.append(sorted(names, key=int))

    X, y = pictures
    tiny(strategy="gradual", freeze_depth=1, max_epochs=3, callbacks=[Watch()]).fit(X, y)
    assert thawed == [["6", "7"], ["5", "6", "7"], ["4", "5", "6", "7"]]


def test_layer_decay_lowers_the_rate_block_by_block(pictures):
    X, y = pictures
    rates = {}

    class Watch(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            names = {id(parameter): name for name, parameter in net.module_.named_parameters()}
            for group in net.optimizer_.param_groups:
                rates.update({names[id(parameter)]: group["lr"] for parameter in group["params"]})

    tiny(freeze_depth=1, layer_decay=0.5, lr=0.01, head_lr=0.3, max_epochs=1, callbacks=[Watch()]).fit(X, y)
    assert rates["head.1.weight"] == 0.3
    assert rates["tail.6.weight"] == rates["tail.7.bias"] == 0.01
    assert rates["tail.5.conv1.weight"] == pytest.approx(0.005)
    assert rates["tail.4.conv2.bias"] == pytest.approx(0.0025)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nadam", "radam", "rmsprop", "sgd", torch.optim.Adagrad])
def test_optimizer_by_name_or_class(pictures, optimizer):
    X, y = pictures
    assert len(tiny(optimizer=optimizer).fit(X, y).history_) == 3


def test_layer_is_where_the_backbone_ends(pictures):
    X, y = pictures
    classifier = tiny(layer=2, freeze_depth=1, pooling="flatten").fit(X, y)
    extractor = PretrainedFeatureExtractor(tiny_cnn, layer=2, pooling="flatten", random_state=0).fit(X)
    assert classifier.transform(X).shape[1] == extractor.n_features_out_
    assert len(classifier.backbone_.blocks) == 2


# Labels and weights


@pytest.mark.parametrize(
    "labels",
    [["cat", "dog"], [7, -3], [True, False], ["a", "b", "c"], [np.int8(1), np.int8(5), np.int8(9)]],
)
def test_labels_come_back_as_they_were(pictures, labels):
    X, _ = pictures
    y = np.array([labels[i % len(labels)] for i in range(len(X))])
    classifier = tiny().fit(X, y)
    np.testing.assert_array_equal(classifier.classes_, np.unique(y))
    assert classifier.predict(X).dtype == y.dtype
    assert set(classifier.predict(X)) <= set(y)
    probabilities = classifier.predict_proba(X)
    assert probabilities.shape == (len(X), len(labels))
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize(
    "parameters", [{"freeze_depth": "all"}, {"freeze_depth": "all", "head_epochs": 40, "head_lr": 0.1}, {}]
)
def test_sample_weight_and_class_weight_pull(pictures, parameters):
    X, _ = pictures
    y = np.random.default_rng(0).integers(0, 2, len(X))  # nothing to learn but how frequent a class is
    heavy = np.where(y == 1, 50.0, 1.0)
    plain = tiny(**parameters).fit(X, y).predict_proba(X)[:, 1].mean()
    assert tiny(**parameters).fit(X, y, sample_weight=heavy).predict_proba(X)[:, 1].mean() > plain + 0.1
    assert tiny(**parameters, class_weight={1: 50}).fit(X, y).predict_proba(X)[:, 1].mean() > plain + 0.1


def test_class_weight_is_the_same_as_the_weights_it_stands_for(pictures):
    X, y = pictures
    weights = np.where(y == "leaf", 3.0, 1.0)
    by_class = tiny(class_weight={"leaf": 3.0}).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(by_class, tiny().fit(X, y, sample_weight=weights).predict_proba(X))


def test_balanced_class_weight_evens_out_rare_classes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = (np.arange(200) < 20).astype(int)
    X[y == 1] += 0.7
    plain = FineTunedClassifier(tiny_vectors, random_state=0).fit(X, y)
    balanced = FineTunedClassifier(tiny_vectors, random_state=0, class_weight="balanced").fit(X, y)
    assert balanced.predict(X).mean() > plain.predict(X).mean() + 0.1


# Early stopping, warm start, callbacks, augmentation


def test_early_stopping_restores_the_best_epoch():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(120, 4)), rng.integers(0, 2, 120)  # noise: whatever is learned is overfitting
    X = X.astype(np.float32)
    classifier = FineTunedClassifier(
        tiny_vectors,
        freeze_depth=0,
        strategy="fine_tune",
        early_stopping=True,
        validation_fraction=0.3,
        n_iter_no_change=4,
        max_epochs=200,
        lr=0.01,
        random_state=3,
    ).fit(X, y)
    losses = [entry["valid_loss"] for entry in classifier.history_]
    assert len(losses) < 200
    assert len(losses) - 1 - int(np.argmin(losses)) <= 4 + 1
    assert all(0 <= entry["valid_accuracy"] <= 1 for entry in classifier.history_)
    # The held-out rows are the classifier's own secret; the best loss is found again on one split alone.
    with torch.random.fork_rng():
        torch.manual_seed(classifier._seed())
        seed = int(torch.randint(2**31 - 1, ()))
    _, held_out = train_test_split(np.arange(120), test_size=0.3, stratify=y, random_state=seed)
    found = log_loss(y[held_out], classifier.predict_proba(X[held_out]))
    assert found == pytest.approx(min(losses), rel=1e-3)


def test_early_stopping_shows_the_validation_accuracy_of_a_head(pictures):
    X, y = pictures
    classifier = tiny(freeze_depth="all", early_stopping=True, validation_fraction=0.25).fit(X, y)
    assert len(classifier.history_) > 1
    assert "valid_accuracy" in classifier.history_[0]


def test_warm_start_continues(pictures):
    X, y = pictures
    twice = tiny(warm_start=True, strategy="fine_tune", max_epochs=5, lr=1e-3).fit(X, y)
    first = [entry["train_loss"] for entry in twice.history_]
    second = [entry["train_loss"] for entry in twice.fit(X, y).history_]
    assert second[0] < first[-1] < first[0]
    again = [entry["train_loss"] for entry in twice.set_params(warm_start=False).fit(X, y).history_]
    assert again == pytest.approx(first, rel=1e-3)
    with pytest.raises(ValueError, match="warm_start"):
        twice.set_params(warm_start=True).fit(X, np.where(y == "leaf", "tree", "rock"))


def test_callbacks_are_called_in_each_phase(pictures):
    calls = []

    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            calls.append(len(net.history))

    X, y = pictures
    tiny(callbacks=[Count()], head_epochs=2, max_epochs=3).fit(X, y)
    assert calls == [1, 2, 1, 2, 3]


def test_augment_touches_training_alone(pictures):
    X, y = pictures
    seen = []

    def spy(image):
        seen.append(tuple(image.shape))
        return image

    classifier = tiny(augment=spy, freeze_depth=1, max_epochs=2).fit(X, y)
    after_fit = len(seen)
    assert after_fit == 2 * len(X) + 1, "each epoch, and one look at what comes back"
    classifier.predict(X)
    classifier.transform(X)
    assert len(seen) == after_fit
    plain = tiny(freeze_depth=1, max_epochs=2).fit(X, y)
    # Batches of other sizes round differently, and Adam makes steps of one size from gradients of any.
    np.testing.assert_allclose(classifier.predict_proba(X), plain.predict_proba(X), atol=0.05)


@pytest.mark.parametrize("level", ["light", "standard", "strong"])
def test_augment_levels_train_and_repeat(pictures, level):
    X, y = pictures
    one = tiny(augment=level, freeze_depth="all", head_epochs=2).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(
        tiny(augment=level, freeze_depth="all", head_epochs=2).fit(X, y).predict_proba(X), one
    )
    assert not np.array_equal(tiny(freeze_depth="all", head_epochs=2).fit(X, y).predict_proba(X), one)


def test_augment_is_for_images():
    with pytest.raises(ValueError, match="augment"):
        FineTunedClassifier(tiny_vectors, augment="light").fit(np.eye(4), [0, 1, 0, 1])


# Memory, randomness, failure


def test_activations_too_large_to_keep_are_computed_with_the_same_result(pictures, monkeypatch, capsys):
    X, y = pictures
    kept = tiny(freeze_depth=1, verbose=1).fit(X, y)
    assert "of outputs of frozen blocks for training" in capsys.readouterr().out
    monkeypatch.setattr("sktransfer._training._activation_sources.KEPT_BYTES", 1000)
    computed = tiny(freeze_depth=1, verbose=1).fit(X, y)
    assert "computed in each epoch" in capsys.readouterr().out
    # Batches of other sizes round differently, and Adam makes steps of one size from gradients of any.
    np.testing.assert_allclose(computed.predict_proba(X), kept.predict_proba(X), atol=0.05)


def test_fit_leaves_the_global_random_state_alone(pictures):
    X, y = pictures
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny(dropout=0.3, augment="light").fit(X, y)
    assert torch.equal(torch.rand(3), expected)


def test_random_state_decides(pictures):
    X, y = pictures

    def result(seed):
        return tiny(weights=None, freeze_depth=0).set_params(random_state=seed).fit(X, y).predict_proba(X)

    np.testing.assert_array_equal(result(1), result(1))
    assert not np.array_equal(result(1), result(2))


def test_loss_that_turns_nan_names_the_rate_and_leaves_nothing_half_fitted(pictures):
    X, y = pictures
    classifier = tiny(lr=1e30, head_lr=1e30, strategy="fine_tune", optimizer="sgd")
    with pytest.raises(ValueError, match=r"head_lr=1e\+30 and lr=1e\+30.*ten times smaller"):
        classifier.fit(X, y)
    assert not hasattr(classifier, "net_")


def test_ctrl_c_ends_fit(pictures):
    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            signal.raise_signal(signal.SIGINT)

    X, y = pictures
    classifier = tiny(callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X, y)
    assert not hasattr(classifier, "net_")


def test_a_last_batch_of_one_does_not_break_batch_norm(pictures):
    X, y = pictures
    classifier = tiny(train_bn=True, freeze_depth=0, batch_size=23).fit(X, y)
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_own_module_is_copied_not_trained(pictures):
    X, y = pictures
    network = tiny_cnn().train()
    before = copy.deepcopy(network.state_dict())
    classifier = FineTunedClassifier(network, freeze_depth=0, max_epochs=2, lr=0.1, random_state=0).fit(X, y)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    expected = classifier.predict_proba(X)
    with torch.no_grad():
        nn.init.zeros_(network[0].weight)
    np.testing.assert_array_equal(classifier.predict_proba(X), expected)


def batch_norm_in_front():
    """Return a network whose BatchNorm stands in front of a ReLU's convolution, so that it is folded into nothing."""
    torch.manual_seed(0)
    bodies = [nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 8, 3, padding=1)) for c in (8, 8)]
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), *bodies, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    return network.eval()


@pytest.mark.parametrize("strategy", ["lp_ft", "fine_tune", "gradual"])
@pytest.mark.parametrize("train_bn", [False, True])
def test_statistics_of_tuned_batch_norm_move_only_if_asked_for(pictures, strategy, train_bn):
    X, y = pictures
    model = FineTunedClassifier(
        batch_norm_in_front, freeze_depth=1, strategy=strategy, max_epochs=2, train_bn=train_bn, random_state=0
    ).fit(X, y)
    tail = model.backbone_.tail(1, train_bn, model.net_.module_.layers).state_dict()
    tuned = model.net_.module_.tail.state_dict()
    means = [name for name in tuned if "running" in name]
    assert means
    for name in means:
        assert torch.equal(tuned[name], tail[name]) is not train_bn
