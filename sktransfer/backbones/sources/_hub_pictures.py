"""Networks of transformers for pictures: how pictures are prepared for them, and what of their results is a feature.

The library's own image processor is asked what it does to a few pictures; a record that gives the same is looked for
among those that its settings suggest. What no record gives is refused.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sktransfer._messages import shown
from sktransfer.backbones.graphs._module_calls import parameters_of
from sktransfer.backbones.sources._hub_files import ModelFiles, explained
from sktransfer.inputs import ImagePreprocessing

_ADVICE = "Save the image processor into the folder: image_processor.save_pretrained(FOLDER)."
_FILES = "preprocessor_config.json"
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

# Sides of pictures that are tried: upright, lying, square and very long, smaller and larger than what networks take.
_TRIED = ((150, 117), (301, 402), (520, 389), (64, 64), (40, 400))
# What a value may differ by, in levels of 255: processors that work on floats do not round in between.
_CLOSE, _CLOSE_OF_FLOATS = 1.01, 2.01

_MOST_PIXELS = 4096

# What networks return that are made to be a part of others, such as HGNetV2: one map for each stage that is asked for.
_MAPS = "feature_maps"

# Files of settings also name things that are not settings of pictures. These words are.
_WORDS = ("image_processor_type", "feature_extractor_type")
_ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")


class Pictures:
    """Pictures of one size enter; features are what the model's authors take.

    Parameters
    ----------
    preprocessing : ImagePreprocessing
        Which pictures the network takes.
    network : nn.Module
        The network.
    reverse : bool, default=False
        Whether the network takes the channels in the other order.
    pooled : bool, default=True
        Whether a pooled vector of the network's own is of use.
    """

    def __init__(
        self, preprocessing: ImagePreprocessing, network: nn.Module, reverse: bool = False, pooled: bool = True
    ):
        if preprocessing.crop is None:
            raise ValueError("Got a network of transformers for pictures of any size; expected one size.")
        self.shape = (preprocessing.channels, *preprocessing.crop)
        self.reverse, self.pooled, self.taken, self.usual = reverse, pooled, "last_hidden_state", "mean"
        self.n_noise = 0
        if "noise" in signature(network.forward).parameters:
            # ViT-MAE hides patches by random numbers, and orders them by these: in this order, all as they are.
            patch = getattr(network.config, "patch_size", 1)
            height, width = (patch, patch) if isinstance(patch, int) else patch
            self.n_noise = (self.shape[1] // height) * (self.shape[2] // width)

    @property
    def features(self) -> str:
        """What the features are, in words."""
        if self.taken == _MAPS:
            return "the last feature map, averaged over positions"
        if self.taken != "last_hidden_state":
            return f"the pooled vector that the network itself gives ({self.taken})"
        if self.usual == "cls":
            return (
                'the class token of the last hidden state: pooling="avg" is "cls" here, as there is no trained pooler'
            )
        return "the last hidden state, averaged over positions"

    def arguments(self, x: torch.Tensor) -> dict[str, Any]:
        """Return what the network's forward takes."""
        if self.reverse:  # channels behind red, green and blue stay where they are
            x = torch.cat([x[:, :3].flip(1), x[:, 3:]], dim=1)
        arguments: dict[str, Any] = {"pixel_values": x}
        if self.n_noise:
            arguments["noise"] = torch.arange(self.n_noise, device=x.device).expand(x.shape[0], -1)
        return arguments

    def settle(self, output: Any, network: nn.Module, watched: nn.Module) -> None:
        """Choose what the features are.

        A pooled vector is one of them where all of it was trained: a file may come without the weights of a pooler,
        which are zeros then.
        """
        maps = getattr(output, _MAPS, None)
        if getattr(output, "last_hidden_state", None) is None and isinstance(maps, list | tuple) and maps:
            self.taken = _MAPS
            return
        for name in ("pooler_output", "cls_token_value") if self.pooled else ():
            pooled, hidden = getattr(output, name, None), getattr(output, "last_hidden_state", None)
            if not isinstance(pooled, torch.Tensor) or not pooled.is_floating_point() or pooled.grad_fn is None:
                continue
            own = parameters_of(pooled, watched)
            if isinstance(hidden, torch.Tensor):
                own -= parameters_of(hidden, watched)
            state = dict(network.named_parameters())
            if own and not any(bool(state[one].any()) for one in own):
                continue
            if not own and isinstance(hidden, torch.Tensor) and hidden.ndim == 3 and _is_first(pooled, hidden):
                self.usual = "cls"  # the same, and all tokens can be pooled otherwise
                return
            self.taken = name
            return

    def found_special(self, special: torch.Tensor | None) -> None:
        """Note which tokens stand for no patch, where the features are tokens."""
        if self.taken == "last_hidden_state" and special is not None and bool(special[0]):
            self.usual = "cls"

    def read(self, output: Any) -> torch.Tensor:
        """Return the features of what the network's forward returns."""
        value = getattr(output, self.taken, None)
        if self.taken == _MAPS and value:
            value = value[-1]
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"it does not return {self.taken}")
        return value if self.taken in ("last_hidden_state", _MAPS) else value.flatten(1)


def _is_first(pooled: torch.Tensor, hidden: torch.Tensor) -> bool:
    """Tell whether a pooled vector is the first token."""
    if not pooled.is_meta:
        return torch.equal(pooled, hidden[:, 0])
    node = pooled.grad_fn
    while node is not None and type(node).__name__.startswith(("Select", "Slice")):
        node = node.next_functions[0][0]
    return node is hidden.grad_fn


# Image processors


def read_processor(files: ModelFiles, config: Any) -> tuple[ImagePreprocessing, bool]:
    """Return how pictures are prepared, and whether their channels are then reversed.

    Parameters
    ----------
    files : ModelFiles
        Of the model.
    config : transformers.PreTrainedConfig
        Of the model.

    Returns
    -------
    preprocessing : ImagePreprocessing
        Gives what the library's processor gives, to one of 255 levels.
    reverse : bool
        Whether the network takes BGR.

    Raises
    ------
    ValueError
        If there is no processor, or no record gives the same.
    """
    around = files.json("processor_config.json") or {}
    values = around.get("image_processor") or files.json(_FILES)
    if not isinstance(values, dict):
        raise ValueError(
            f"Got backbone={files}, a network for pictures without an image processor; expected {_FILES} beside "
            f"config.json. {_ADVICE}"
        )
    for name in ("size", "crop_size", "pad_size"):
        _check_sides(files, name, values.get(name))
    settings = {name: value for name, value in values.items() if name in _WORDS or _is_plain(value)}
    processor = _load_processor(files, settings, config)
    pictures = [_picture(*sides) for sides in _TRIED]
    with explained(files, _FILES, _ADVICE):
        wanted = [_run(processor, picture) for picture in pictures]
    shapes = {tuple(one.shape) for one in wanted}
    if any(one.ndim != 3 for one in wanted) or len(shapes) > 1 or wanted[0].shape[0] not in (1, 3):
        raise ValueError(
            f"Got backbone={files}, whose image processor ({type(processor).__name__}) makes values of shape "
            f"{' and '.join(str(shape) for shape in sorted(shapes))} of single pictures; expected one shape, "
            "(channels, height, width). Networks that take pictures of any size, patches or videos are not supported: "
            "give a network for pictures of one size."
        )
    channels, height, width = wanted[0].shape
    mean, deviation, reverse = _measured(processor, (height, width))
    close = _CLOSE if type(processor).__name__.endswith("Pil") else _CLOSE_OF_FLOATS
    least = [math.inf]
    for resize, crop in dict.fromkeys(_sizes(processor, (height, width))):
        record = ImagePreprocessing(
            resize, crop, _interpolation(files, processor), mean, deviation, channels, manner="transformers"
        )
        least.append(max(_difference(record, *both, reverse) for both in zip(pictures, wanted, strict=True)))
        if least[-1] <= close:
            return record, reverse
    raise ValueError(
        f"Got backbone={files}, whose image processor ({type(processor).__name__}) changes pictures in a way that "
        f"sktransfer cannot reproduce (by up to {min(least):.0f} of 255 levels); expected resizing, a crop from the "
        "centre, scaling and normalisation. Give another model."
    )


def _check_sides(files: ModelFiles, name: str, value: Any) -> None:
    """Refuse sides of pictures that would fill the memory before they are compared with anything."""
    for side in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]:
        if isinstance(side, int | float) and not 0 < side <= _MOST_PIXELS:
            raise ValueError(
                f"Got backbone={files}, whose {_FILES} says {name}: {shown(value)}; expected sides of 1 to "
                f"{_MOST_PIXELS} pixels. Correct it, or download the model again."
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return len(value) <= 16 and all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float)


def _load_processor(files: ModelFiles, settings: dict[str, Any], config: Any) -> Any:
    """Return the library's image processor, loaded from settings that name only itself, in a folder made here."""
    import transformers
    from transformers import AutoImageProcessor

    for word in _WORDS:
        name = settings.get(word)
        known = isinstance(name, str) and name.isidentifier() and name.endswith(_ENDINGS)
        if name is not None and not (known and _is_in(transformers, name)):
            del settings[word]  # the kind of network says it then
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, _FILES).write_text(json.dumps(settings), encoding="utf-8")
        with explained(files, "image processor", _ADVICE):
            return AutoImageProcessor.from_pretrained(
                folder, config=config, backend="pil", trust_remote_code=False, local_files_only=True
            )


def _is_in(library: Any, name: str) -> bool:
    """Tell whether a library has a processor of this name, or of that which it has today."""
    plain = name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    return hasattr(library, name) or hasattr(library, plain)


def _run(processor: Any, picture: Image.Image) -> torch.Tensor:
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    return torch.as_tensor(values)[0].float()


def _picture(height: int, width: int) -> Image.Image:
    """Return a picture with edges and slopes, and no value so near black or white that filters would be clipped."""
    rng = np.random.default_rng(height)
    coarse = rng.integers(50, 206, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def _measured(processor: Any, sides: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Return mean and deviation for values in [0, 1], as the processor applies them, and whether channels change."""
    height, width = sides[0], sides[1]

    def value_of(colour: tuple[int, int, int]) -> torch.Tensor:  # in the middle: around it may be a border
        values = _run(processor, Image.new("RGB", (2 * width, 2 * height), colour))
        return values[:, height // 2, width // 2].double()

    black, white, red = map(value_of, [(0, 0, 0), (255, 255, 255), (255, 0, 0)])
    reverse = len(red) == 3 and bool((red[2] - black[2]).abs() > (red[0] - black[0]).abs())
    deviation = 1 / (white - black)
    mean = -black * deviation
    if reverse:
        deviation, mean = deviation.flip(0), mean.flip(0)
    return tuple(map(_rounded, mean.tolist())), tuple(map(_rounded, deviation.tolist())), reverse


def _rounded(value: float) -> float:
    """Return a number as people write it, where float32 has it no more exactly."""
    short = round(value, 6)
    return short + 0.0 if abs(short - value) < 2e-7 else value


def _sizes(processor: Any, crop: tuple[int, int]) -> Iterator[tuple[int | tuple[int, int] | None, tuple[int, int]]]:
    """Yield sizes to resize to, and to cut from the centre, that the settings of a processor may stand for."""
    size = getattr(processor, "size", None)
    side = getattr(size, "shortest_edge", None) or None
    both = [int(getattr(size, name, None) or 0) for name in ("height", "width")]
    share = getattr(processor, "crop_pct", None) or 1.0
    if side:
        for one in (side, int(side / share), int(256 / 224 * side)):
            yield one, crop
    if all(both):
        yield (both[0], both[1]), crop
        yield (int(both[0] / share), int(both[1] / share)), crop
        yield int(both[0] / share), crop
    yield None, crop


def _interpolation(files: ModelFiles, processor: Any) -> str:
    number = getattr(processor, "resample", 2)
    name = _INTERPOLATIONS.get(int(number) if number is not None else 2)
    if name is None:
        raise ValueError(
            f"Got backbone={files}, whose {_FILES} says resample: {shown(number)}; expected one of "
            f"{', '.join(map(str, _INTERPOLATIONS))} ({', '.join(_INTERPOLATIONS.values())}). Give another model."
        )
    return name


def _difference(record: ImagePreprocessing, picture: Image.Image, wanted: torch.Tensor, reverse: bool) -> float:
    """Return how far the values of a record are from those of a processor at most, in levels of 255."""
    convert = picture if record.channels == 3 else picture.convert("L")
    pixels = np.asarray(record.fit_size(convert))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    found = record.normalise(torch.from_numpy(pixels.copy())[None])[0]
    found = found.flip(0) if reverse else found
    deviation = torch.tensor(record.std[::-1] if reverse else record.std).view(-1, 1, 1)
    return float(((found - wanted) * deviation).abs().max()) * 255
