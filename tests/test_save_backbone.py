"""save_backbone: a network tuned for one task is where the next one begins."""

import os
import pickle
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from torch import nn
from torchvision.models import get_model

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone

HOW: dict[str, Any] = {"freeze_depth": 2, "max_epochs": 2, "lr": 0.01, "batch_size": 8, "random_state": 0}
TEXTS = np.array(["a good film", "a very dull story", "the film is long and slow", "not bad"] * 3, dtype=object)


def quietly(estimator: Any, X: Any, y: Any) -> Any:
    """Fit where warnings of too few samples do not matter; none of the weights may come."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        estimator.fit(X, y)
    assert not [one for one in told if "Left out" in str(one.message)]
    return estimator


def tuned_state(estimator: Any) -> dict[str, torch.Tensor]:
    """What the whole network would hold with the tuned blocks in it."""
    state = {name: tensor.clone() for name, tensor in estimator.backbone_.network.state_dict().items()}
    tail = estimator.net_.module_.tail
    changed = {} if tail is None else {name: t for name, t in tail.state_dict().items() if name in state}
    return state | changed


def features_again(first: Any, backbone: Any, path: Path, X: Any, y: Any, **how: Any) -> np.ndarray:
    """Features of another estimator, of the blocks that it found in the file: cut as the first, and not tuned on."""
    second = quietly(FineTunedClassifier(backbone, weights=path, **{**HOW, **how, "random_state": 3}), X, y)
    if how.get("freeze_depth") != "all":
        second.interpolation_ = 0.0
    return second.transform(X)


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0])
def test_another_estimator_has_the_tuned_features_bit_for_bit(factor: float, pictures, tmp_path: Path):
    X, y = pictures
    first = FineTunedClassifier(tiny_cnn, **HOW).fit(X, y)
    first.interpolation_ = factor
    first.save_backbone(tmp_path / "b.safetensors")
    assert np.array_equal(features_again(first, tiny_cnn, tmp_path / "b.safetensors", X, y), first.transform(X))
    own = load_backbone(tiny_cnn).network.state_dict()
    written = load_file(tmp_path / "b.safetensors")
    assert written.keys() == own.keys() - {"11.weight", "11.bias"}
    loaded = load_backbone(tiny_cnn, tmp_path / "b.safetensors").network.state_dict()
    state = tuned_state(first)
    assert all(torch.equal(loaded[name], state[name]) for name in written)
    started = first.backbone_.network.state_dict()
    moved = {name for name in written if not torch.equal(written[name], started[name])}
    assert bool(moved) == (factor > 0)


DEPTHS = {"squeezenet1_1": 0.5, "mobilenet_v2": 0.8, "timm:test_resnet": 0.5, "timm:test_vit": 0.5, "bert": 1,
          "distilbert": 0, "roberta": 0.5, "albert": 0, "gpt2": 1}  # fmt: skip


@pytest.mark.parametrize("backbone", rest_exhaustive(DEPTHS, "squeezenet1_1", "bert"))
def test_networks_of_all_sources_go_on_where_they_were(backbone: str, pictures, tmp_path: Path):
    X, y, depth = pictures[0][:12], pictures[1][:12], DEPTHS[backbone]
    weights: Any = None
    if backbone.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed")
    elif backbone not in sktransfer.backbones.list_backbones():
        pytest.importorskip("transformers", reason="transformers is not installed")
        from pretrained_models import make_text_model

        backbone, weights, X = make_text_model(backbone, tmp_path / "model"), "DEFAULT", TEXTS
    first = quietly(FineTunedClassifier(backbone, weights=weights, **{**HOW, "freeze_depth": depth}), X, y)
    path = tmp_path / "b.safetensors"
    first.save_backbone(path)
    assert np.array_equal(features_again(first, backbone, path, X, y, freeze_depth=depth), first.transform(X))
    written, state = load_file(path), tuned_state(first)
    assert all(torch.equal(tensor, state[name]) for name, tensor in written.items())
    assert any(not torch.equal(tensor, first.backbone_.network.state_dict()[name]) for name, tensor in written.items())


def test_a_library_takes_the_file_too(pictures, tmp_path: Path):
    X, y = pictures[0][:12], pictures[1][:12]
    first = quietly(FineTunedClassifier("squeezenet1_1", weights=None, **HOW), X, y)
    first.save_backbone(tmp_path / "b.safetensors")
    network = get_model("squeezenet1_1", weights=None)
    found = network.load_state_dict(load_file(tmp_path / "b.safetensors"), strict=False)
    assert sorted(found.missing_keys) == ["classifier.1.bias", "classifier.1.weight"]
    assert not found.unexpected_keys


def test_statistics_that_were_tuned_go_with_it(pictures, tmp_path: Path):
    X, y = pictures
    first = FineTunedClassifier(tiny_cnn, train_bn=True, **HOW).fit(X, y)
    first.save_backbone(tmp_path / "b.safetensors")
    written, before = load_file(tmp_path / "b.safetensors"), first.backbone_.network.state_dict()
    changed = [name for name in written if not torch.equal(written[name], before[name])]
    assert "7.running_mean" in changed
    assert "7.num_batches_tracked" in changed
    assert not any(name.startswith(("0.", "1.")) for name in changed)


def test_blocks_behind_the_layer_that_was_used_are_in_it(pictures, tmp_path: Path):
    X, y = pictures
    first = FineTunedClassifier(tiny_cnn, layer=3, **HOW).fit(X, y)
    first.save_backbone(tmp_path / "b.safetensors")
    assert "6.weight" in load_file(tmp_path / "b.safetensors")
    quietly(FineTunedClassifier(tiny_cnn, weights=tmp_path / "b.safetensors", **HOW), X, y)


@pytest.mark.parametrize("strategy", ["linear_probe", "lp_ft"])
def test_a_network_that_was_not_tuned_is_written_as_it_was_loaded(strategy: str, pictures, tmp_path: Path):
    X, y = pictures
    depth = 2 if strategy == "linear_probe" else "all"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = FineTunedClassifier(tiny_cnn, strategy=strategy, **{**HOW, "freeze_depth": depth}).fit(X, y)
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(X)
    own = first.backbone_.network.state_dict()
    for estimator in (first, extractor):
        estimator.save_backbone(tmp_path / "b.safetensors")
        written = load_file(tmp_path / "b.safetensors")
        assert written.keys() == own.keys() - {"11.weight", "11.bias"}
        assert all(torch.equal(tensor, own[name]) for name, tensor in written.items())
    again = PretrainedFeatureExtractor(tiny_cnn, weights=tmp_path / "b.safetensors").fit(X)
    assert np.array_equal(again.transform(X), extractor.transform(X))


def test_regressors_and_models_that_were_loaded_write_it_too(pictures, tmp_path: Path):
    X, _ = pictures
    first = quietly(FineTunedRegressor(tiny_cnn, **HOW), X, np.arange(len(X)) % 5.0)
    first.interpolation_ = 0.5
    first.save_backbone(tmp_path / "b.safetensors")
    sktransfer.save(first, tmp_path / "model.safetensors")
    others = sktransfer.load(tmp_path / "model.safetensors", backbone=tiny_cnn), pickle.loads(pickle.dumps(first))
    for other in others:
        other.save_backbone(tmp_path / "c.safetensors")
        assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


class Tied(nn.Module):
    """A weight that two layers share, and one that a layer in front of the cut shares with one behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.mixed = nn.Linear(4, 4), nn.Linear(4, 4)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mixed.weight = self.first.weight
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.mixed(torch.relu(self.first(x))))
        return torch.relu(self.b(torch.relu(self.a(x))))


def test_tied_weights_stay_tied(tmp_path: Path):
    X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    first = quietly(FineTunedClassifier(Tied, **{**HOW, "freeze_depth": 1}), X, y)
    first.save_backbone(tmp_path / "b.safetensors")
    written, before = load_file(tmp_path / "b.safetensors"), first.backbone_.network.state_dict()
    assert torch.equal(written["a.weight"], written["b.weight"])
    assert not torch.equal(written["a.weight"], before["a.weight"])
    assert torch.equal(written["first.weight"], written["mixed.weight"])
    second = features_again(first, Tied, tmp_path / "b.safetensors", X, y, freeze_depth=1)
    assert np.array_equal(second, first.transform(X))


# Preprocessing


@pytest.mark.parametrize(("backbone", "tag"), [("resnet50", "IMAGENET1K_V2"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")])
def test_the_preprocessing_of_the_first_weights_goes_on(backbone: str, tag: str, tmp_path: Path, monkeypatch):
    """Also where the network is built for another size of pictures; here it is not built, for that takes long."""
    from sktransfer._files._network_file import write_network
    from sktransfer.backbones.sources._torchvision import TorchvisionSource
    from sktransfer.backbones.sources._weights_file import RECIPE

    known, path = TorchvisionSource(backbone, tag), tmp_path / "b.safetensors"
    write_network(path, {"a": torch.ones(1)}, {RECIPE: known.recipe_name})
    source = TorchvisionSource(backbone, path)
    network = nn.Identity()
    assert source.preprocessing(network) == known.preprocessing(network)
    assert source.recipe_name == tag
    path.unlink()  # as on another machine
    assert TorchvisionSource(**source.record).preprocessing(network) == known.preprocessing(network)
    write_network(path, {"a": torch.ones(1)}, {RECIPE: "of a version to come"})
    assert TorchvisionSource(backbone, path).preprocessing(network) != known.preprocessing(network)


def test_the_preprocessing_of_a_tag_of_timms_goes_on(tmp_path: Path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from sktransfer._files._network_file import write_network
    from sktransfer.backbones.sources._timm import TimmSource
    from sktransfer.backbones.sources._weights_file import RECIPE

    tag, path = "r160_in1k", tmp_path / "b.safetensors"
    assert f"test_resnet.{tag}" in timm.list_pretrained("test_resnet.*")
    write_network(path, {"a": torch.ones(1)}, {RECIPE: tag})
    source = TimmSource("timm:test_resnet", path)
    assert source.recipe_name == tag
    assert TimmSource("timm:test_resnet", tag).recipe_name == tag


def test_the_name_of_weights_is_in_a_file_of_torchvisions_networks(pictures, assets: Path, tmp_path: Path):
    weights = assets / "weights" / "mobilenet_v2-int8-dequantized.pth"
    first = PretrainedFeatureExtractor("mobilenet_v2", weights=weights).fit(pictures[0])
    first.save_backbone(tmp_path / "b.safetensors")
    second = PretrainedFeatureExtractor("mobilenet_v2", weights=tmp_path / "b.safetensors").fit(pictures[0])
    assert second.backbone_.recipe_name == first.backbone_.recipe_name == "IMAGENET1K_V1"
    assert second.backbone_.preprocessing == first.backbone_.preprocessing
    assert np.array_equal(second.transform(pictures[0]), first.transform(pictures[0]))


# The next task


def digits_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def test_digits_that_were_learned_help_with_others(tmp_path: Path):
    """In as many steps: with several times as many, a network that begins at random gets there too."""
    X, y = load_digits(return_X_y=True)
    X, first_half = X.reshape(-1, 8, 8).astype(np.float32), y < 5
    how = {"freeze_depth": 0, "strategy": "fine_tune", "lr": 3e-3, "head_lr": 3e-3, "layer": None, "max_epochs": 10,
           "pixel_range": (0, 16), "device": "cpu", "feature_cache": None}  # fmt: skip
    learned = FineTunedClassifier(digits_cnn, random_state=0, **how).fit(X[first_half][:450], y[first_half][:450])
    learned.save_backbone(tmp_path / "digits.safetensors")
    X, y = X[~first_half], y[~first_half]
    scores = []
    for draw in range(3):
        order = np.random.default_rng(draw).permutation(len(y))
        few, rest = order[:50], order[50:]
        scores.append(
            [
                FineTunedClassifier(digits_cnn, weights=weights, random_state=draw, **how)
                .fit(X[few], y[few])
                .score(X[rest], y[rest])
                for weights in (tmp_path / "digits.safetensors", "DEFAULT")
            ]
        )
    transferred, from_scratch = np.mean(scores, axis=0)
    assert transferred > from_scratch + 0.03, scores


# What cannot be


def test_a_saved_model_is_no_file_of_weights(fitted, tmp_path: Path):
    sktransfer.save(fitted, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"a model that sktransfer\.save has written.*save_backbone\(NEW_PATH\)"):
        load_backbone(tiny_vectors, tmp_path / "model.safetensors")


ALL = [
    PretrainedFeatureExtractor(tiny_vectors, random_state=0),
    FineTunedClassifier(tiny_vectors, random_state=0),
    FineTunedRegressor(tiny_vectors, random_state=0),
]


@pytest.mark.parametrize("estimator", ALL, ids=lambda one: type(one).__name__)
def test_what_is_not_fitted_has_no_network(estimator: Any, tmp_path: Path):
    with pytest.raises(NotFittedError, match=r"not fitted yet"):
        estimator.save_backbone(tmp_path / "b.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def fitted() -> PretrainedFeatureExtractor:
    return PretrainedFeatureExtractor(tiny_vectors, random_state=0).fit(np.ones((4, 4), dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "nowhere/b.safetensors",
            FileNotFoundError,
            "whose folder does not exist; expected an existing folder. Create it",
        ),
        ("folder.safetensors", IsADirectoryError, "which is a folder; expected the name of a file"),
        ("b.pth", ValueError, r"expected a name that ends in '\.safetensors'.*torch\.save"),
        ("b", ValueError, r"expected a name that ends in '\.safetensors'"),
    ],
)
def test_a_path_that_cannot_be_is_told(name: str, error: type[Exception], message: str, fitted, tmp_path: Path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(error, match=message):
        fitted.save_backbone(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_file_is_written_whole_or_stays_what_it_was(fitted, tmp_path: Path, monkeypatch):
    path = tmp_path / "b.safetensors"
    fitted.save_backbone(str(path))
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()

    def stop(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(OSError, match="No space left"):
        fitted.save_backbone(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["b.safetensors"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
