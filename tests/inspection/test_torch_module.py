"""An estimator as a module: it computes what the estimator does, with gradients, and leaves it alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer.inspection import torch_module

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "inside.md"
TUNED = {"freeze_depth": 2, "max_epochs": 2, "lr": 1e-2}
HEADS = {
    "solved": {},
    "trained": {"head_epochs": 2},
    "hidden": {"hidden_layer_sizes": (8,), "dropout": 0.5, "head_epochs": 2},
    "tuned": TUNED,
    "tuned, with BatchNorm": {**TUNED, "train_bn": True},
    "all tuned": {**TUNED, "freeze_depth": 0},
    "cut inside": {**TUNED, "freeze_depth": "1"},
    "half-way": {**TUNED, "interpolation": 0.5},
    "one layer": {"layer": None},
}


def same_probabilities(model, X, function=None):
    module = torch_module(model)
    with torch.no_grad():
        logits = module(module.prepare(X))
        found = (logits.softmax(1) if function is None else function(logits)).double().numpy()
    np.testing.assert_allclose(found, model.predict_proba(X), atol=1e-5)
    return module


@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize("head", HEADS)
def test_softmax_of_logits_is_predict_proba(pictures, head, n_classes):
    X = pictures[0]
    y = np.arange(24) % n_classes
    model = FineTunedClassifier(tiny_cnn, random_state=0, precision="float32", **HEADS[head]).fit(X, y)
    same_probabilities(model, X)


@pytest.mark.parametrize("depth", rest_exhaustive(["layer1.0", "layer3", 0.5], 0.5))
def test_a_network_is_the_same_with_residual_blocks_cut_at_any_depth(pictures, depth):
    X, y = pictures
    model = FineTunedClassifier(
        "resnet18", weights=None, random_state=0, precision="float32", freeze_depth=depth, max_epochs=1
    ).fit(X, y)
    module = same_probabilities(model, X)
    assert module.block_names == [block.name for block in model.backbone_.blocks]


@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 2, "max_epochs": 1}])
@pytest.mark.parametrize("kind", rest_exhaustive(["bert", "gpt2"], "bert"))
def test_texts_of_different_lengths_are_filled_up(kind, parameters, tmp_path):
    X, y = make_texts()
    model = FineTunedClassifier(make_text_model(kind, tmp_path), random_state=0, precision="float32", **parameters).fit(
        X, y
    )
    module = same_probabilities(model, X)
    assert (module.prepare(X) == -1).any()


@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 2, "max_epochs": 1}])
@pytest.mark.parametrize("kind", rest_exhaustive(["whisper", "wav2vec2", "audio-spectrogram-transformer"], "wav2vec2"))
def test_sounds_of_different_lengths_are_filled_up(kind, parameters, tmp_path):
    X, y = make_sounds()
    X = [np.tile(sound, 1 + number % 7) for number, sound in enumerate(X)]
    model = FineTunedClassifier(
        make_sound_model(kind, tmp_path), random_state=0, sampling_rate=1000, precision="float32", **parameters
    ).fit(X, y)
    module = same_probabilities(model, X)
    prepared = module.prepare(X)
    assert prepared.ndim >= 3
    module(prepared).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in module.parameters() if parameter.grad is not None)


def test_several_labels_numbers_vectors_and_features(pictures):
    X, y = pictures
    how = {"random_state": 0, "precision": "float32"}
    labels = np.column_stack([y == "leaf", X[:, 0, 0, 0] > 60]).astype(int)
    same_probabilities(FineTunedClassifier(tiny_cnn, **how).fit(X, labels), X, torch.sigmoid)
    numbers = 1e5 + X.mean(axis=(1, 2, 3))
    regressor = FineTunedRegressor(tiny_cnn, **how).fit(X, numbers)
    module = torch_module(regressor)
    np.testing.assert_allclose(module(module.prepare(X)).detach()[:, 0], regressor.predict(X), rtol=1e-6)
    rows = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    same_probabilities(FineTunedClassifier(tiny_vectors, **how).fit(rows, y), rows)
    for layer in (None, [3, 1], 2):
        extractor = PretrainedFeatureExtractor(tiny_cnn, layer=layer, precision="float32").fit(X)
        module = torch_module(extractor)
        np.testing.assert_allclose(module(module.prepare(X)).detach(), extractor.transform(X), atol=1e-5)
        assert all(parameter.requires_grad for parameter in module.parameters())


def test_gradients_are_on_and_the_estimator_stays_as_it_is(pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, random_state=0, **TUNED).fit(X, y)
    before, fingerprint = model.predict_proba(X), model.backbone_.fingerprint
    module = torch_module(model)
    assert not module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    prepared = module.prepare(X).requires_grad_()
    module(prepared)[:, 0].sum().backward()
    assert prepared.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in module.parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert model.backbone_.fingerprint == fingerprint
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert not any(parameter.requires_grad for parameter in model.backbone_.network.parameters())


def test_a_hook_at_the_end_of_a_block_sees_what_the_block_gives(pictures):
    X, y = pictures
    model = FineTunedClassifier("resnet18", weights=None, random_state=0, precision="float32").fit(X, y)
    module, seen = torch_module(model), {}
    assert not any(getattr(layer, "inplace", False) for layer in module.modules())
    assert any(getattr(layer, "inplace", False) for layer in model.backbone_.network.modules())
    for name in ("layer2.0", "layer4.1"):
        module.block(name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    module(module.prepare(X))
    for name, output in seen.items():
        whole, values = model.backbone_.network, []
        hook = whole.get_submodule(name).register_forward_hook(lambda _, __, value, values=values: values.append(value))
        whole(module.prepare(X))
        hook.remove()
        np.testing.assert_allclose(output.detach(), values[0], atol=1e-4)
        assert output.ndim == 4  # of the last block too, behind which the network pools
    assert module.block(-1) is module.block("layer4.1") is module.block(len(module.block_names))
    with pytest.raises(
        ValueError, match=r"^Got block='layer4\.7'; expected one of 9 names\. Did you mean .*'layer4\.1'.*\?$"
    ):
        module.block("layer4.7")
    for number in (0, 99, -99):
        with pytest.raises(ValueError, match="expected a number from 1 to"):
            module.block(number)


def test_what_is_not_fitted_or_not_all_torch_gets_a_sentence(pictures):
    X, y = pictures
    with pytest.raises(NotFittedError):
        torch_module(FineTunedClassifier(tiny_cnn))
    pipeline = make_pipeline(PretrainedFeatureExtractor(tiny_cnn), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="followed by LogisticRegression; expected one of"):
        torch_module(pipeline)
    search = GridSearchCV(FineTunedClassifier(tiny_cnn, random_state=0), {"layer": [None]}, cv=2).fit(X, y)
    same_probabilities(search.best_estimator_, X)
    assert torch_module(search).block_names == torch_module(search.best_estimator_).block_names


def snippet(told_by):
    blocks = [block.split("```")[0] for block in GUIDE.read_text().split("```python\n")[1:]]
    (code,) = [block for block in blocks if told_by in block]
    return code


@pytest.fixture(params=rest_exhaustive(["squeezenet1_1", "mobilenet_v2"], "mobilenet_v2"))
def seen(request, pictures):
    X, y = pictures
    model = FineTunedClassifier(request.param, weights=None, random_state=0).fit(X, y)
    return {"classifier": model, "X": X}


def test_the_recipe_of_grad_cam_runs(seen):
    exec(snippet("register_forward_hook"), seen)
    assert seen["heat"].shape == seen["prepared"].shape[2:]
    assert float(seen["heat"].min()) >= 0


def test_the_recipe_with_captum_runs(seen):
    pytest.importorskip("captum", reason="needs captum")
    exec(snippet("captum"), seen)
    assert seen["pixels"].shape == seen["prepared"].shape
    assert seen["heat"].shape[2:] == seen["prepared"].shape[2:]
