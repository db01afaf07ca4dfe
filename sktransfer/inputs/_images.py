"""Images in any form (arrays, flat rows, pictures, paths) become tensors of the size a network was trained on.

Pictures of 8 bits stay 8 bits until they are on the network's device; only then are they scaled and normalised, with
the same operations, in the same order, as torchvision's own presets.
"""

import contextlib
import hashlib
import math
import os
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.utils import check_array

from sktransfer.inputs._base import Reader, Samples, UnreadableSampleError
from sktransfer.inputs._decoding import check_size, decode, upright

# Integers that stay below this share of their type are more likely of another scale than a set of dark pictures.
_DARK = 1 / 8


@dataclass(frozen=True)
class ImagePreprocessing:
    """How a network wants its images: travels with its weights.

    A network of one's own may carry one as its attribute `preprocessing`.

    Parameters
    ----------
    resize : int or None, default=None
        Length of the shorter side after resizing, in pixels. `None` resizes to `crop` directly.
    crop : tuple of int or None, default=None
        Height and width cut from the centre, in pixels. `None` takes arrays of one size at that size, and all
        else at 224 x 224 out of 256.
    interpolation : str, default="bilinear"
        `"nearest"`, `"bilinear"` or `"bicubic"`, with antialiasing.
    mean, std : tuple of float, default=(0.0,), (1.0,)
        Of each channel, for values in [0, 1]; one value stands for all channels.
    channels : int, default=3
        3 for RGB, 1 for grey.
    """

    resize: int | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: int = 3

    @classmethod
    def from_torchvision(cls, preset: Any) -> "ImagePreprocessing":
        """Read the preset that torchvision's `weights.transforms()` returns.

        Parameters
        ----------
        preset : torchvision.transforms._presets.ImageClassification
            The preset.

        Returns
        -------
        ImagePreprocessing
            The same, as a record.
        """
        height, width = (preset.crop_size * 2)[:2]
        return cls(
            resize=preset.resize_size[0],
            crop=(height, width),
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )

    def fit_size(self, image: Any) -> Any:
        """Resize and crop one picture or tensor.

        Of a picture, only what the crop leaves is resized: a few pixels in a hundred may differ by one of 255, and none
        by more than two, from the crop of the whole resized picture, which torchvision takes.

        Parameters
        ----------
        image : PIL.Image.Image or float Tensor of shape (channels, height, width)
            Of any size.

        Returns
        -------
        PIL.Image.Image or Tensor
            Of `crop` size.
        """
        if self.crop is None:
            return image
        if isinstance(image, torch.Tensor):
            return self._fit_tensor(image, self.crop)
        (height, width), (inner_height, inner_width) = self._sizes(image.height, image.width, self.crop)
        if (image.height, image.width) == (height, width) == (inner_height, inner_width):
            return image
        if height < inner_height or width < inner_width:  # a crop larger than the picture has a black border
            return self._fit_whole(image, (height, width), self.crop)
        top, left = round((height - inner_height) / 2), round((width - inner_width) / 2)
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + inner_width) * across, (top + inner_height) * down)
        how = Image.Resampling[self.interpolation.upper()]
        return image.resize((inner_width, inner_height), how, box=box)

    @property
    def shorter_side(self) -> int | None:
        """Length of the shorter side after resizing, in pixels; `None` where images stay as they are."""
        return self.resize if self.resize is not None or self.crop is None else max(self.crop)

    def _sizes(self, height: int, width: int, crop: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the resized picture, and of what is cut from it."""
        if self.resize is None:
            return crop, crop
        if width <= height:
            return (int(self.resize * height / width), self.resize), crop
        return (self.resize, int(self.resize * width / height)), crop

    def _fit_whole(self, image: Any, size: tuple[int, int], crop: tuple[int, int]) -> Any:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import center_crop, resize

        image = resize(image, list(size), interpolation=InterpolationMode(self.interpolation), antialias=True)
        return center_crop(image, list(crop))

    def _fit_tensor(self, image: torch.Tensor, crop: tuple[int, int]) -> torch.Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import center_crop, resize

        size = list(crop) if self.resize is None else [self.resize]
        if tuple(image.shape[-2:]) == tuple(size):
            return image
        # For tensors, torch's "nearest" takes other pixels than Pillow's; "nearest-exact" takes the same.
        mode = InterpolationMode("nearest-exact" if self.interpolation == "nearest" else self.interpolation)
        image = resize(image, size, interpolation=mode, antialias=True)
        return image if self.resize is None else center_crop(image, list(crop))

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Scale 8-bit values to [0, 1], then subtract the mean and divide by the deviation.

        Parameters
        ----------
        batch : uint8 or float32 Tensor of shape (n, channels, height, width)
            8 bits, or already within [0, 1].

        Returns
        -------
        float32 Tensor
            Of the same shape.
        """
        if batch.dtype == torch.uint8:
            batch = batch.to(torch.float32).div_(255)
        if set(self.mean) == {0.0} and set(self.std) == {1.0}:
            return batch
        mean, std = (torch.tensor(v, device=batch.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return batch.sub(mean).div_(std)


class ImageReader(Reader):
    """Learns from the X of `fit`: its form, its channels and the range of its values.

    Parameters
    ----------
    preprocessing : ImagePreprocessing
        What the network wants.
    image_shape : tuple of int or None
        (height, width) or (height, width, channels) of flat rows.
    pixel_range : "auto" or tuple of float
        Values that stand for black and white in arrays.
    """

    kind = "images"

    def __init__(
        self,
        preprocessing: ImagePreprocessing,
        image_shape: Sequence[int] | None = None,
        pixel_range: str | tuple[float, float] = "auto",
    ):
        self.preprocessing = preprocessing
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.n_channels: int | None = None
        self.value_range: tuple[float, float] | None = None

    @property
    def record(self) -> dict[str, Any]:
        return {**vars(self), "preprocessing": asdict(self.preprocessing)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "ImageReader":
        """Build a reader again from its `record`.

        Parameters
        ----------
        record : mapping
            Words and numbers.

        Returns
        -------
        ImageReader
            That has learned the same.
        """
        reader = cls(
            ImagePreprocessing(**record["preprocessing"]),
            image_shape=record["image_shape"],
            pixel_range=record["pixel_range"],
        )
        reader.n_channels, reader.value_range = record["n_channels"], record["value_range"]
        return reader

    def learn(self, X: Any) -> "ImageSamples":
        images = self._images(X)
        arrays = _arrays(images)
        self.n_channels = _channels(images) if isinstance(images, np.ndarray) else None
        if arrays:
            self.value_range = self._learn_range(arrays)
        if self.preprocessing.crop is None:
            self.preprocessing = replace(self.preprocessing, **_own_size(images, arrays))
        return ImageSamples(images, self.preprocessing, self.value_range)

    def read(self, X: Any, tolerant: bool = False) -> "ImageSamples":
        images = self._images(X, tolerant)
        arrays = _arrays(images)
        if isinstance(images, np.ndarray) and self.n_channels not in (None, _channels(images)):
            raise ValueError(
                f"Got images of {_channels(images)} channels; expected {self.n_channels}, as in fit. Convert them to "
                "what fit was given, or fit again."
            )
        value_range = self.value_range
        if arrays and value_range is not None:
            self._check_range(_span(arrays), value_range)
        elif arrays:
            value_range = self._learn_range(arrays)
        return ImageSamples(images, self.preprocessing, value_range)

    def _images(self, X: Any, tolerant: bool = False) -> "np.ndarray | list[Any]":
        """Return an array of shape (n, height, width, channels) or a list of paths, pictures and arrays."""
        X = unwrap(X)
        if isinstance(X, list):
            return _check_list(X, tolerant)
        X = check_array(X, dtype="numeric", allow_nd=True, ensure_2d=False, input_name="X")
        if X.ndim == 2:
            return _shape_rows(X, self.image_shape)
        if X.ndim == 3 and X.shape[-1] in (3, 4) and min(X.shape[:2]) >= 8:
            raise ValueError(
                f"Got X of shape {X.shape}, which looks like one picture; expected several. Put a single one into a "
                "list: [X]."
            )
        images = _channels_last(X)
        if images is None:
            raise ValueError(
                f"Got X of shape {X.shape}; expected images of shape (n, height, width), (n, height, width, channels) "
                "or (n, channels, height, width), with 1, 3 or 4 channels. Move the axes, or leave channels out."
            )
        return images

    def _learn_range(self, arrays: list[np.ndarray]) -> tuple[float, float]:
        low, high = _span(arrays)
        if not isinstance(self.pixel_range, str):
            black, white = map(float, self.pixel_range)
            self._check_range((low, high), (black, white))
            return black, white
        kind = np.result_type(*{array.dtype for array in arrays})
        if kind.kind == "b":
            return 0.0, 1.0
        if kind == np.uint8 or (kind == np.uint16 and high > 255):
            white = float(np.iinfo(kind).max)
            if high < white * _DARK:
                self._warn(low, high, f"{kind} is read as 0 to {white:g}, which makes these images almost black")
            return 0.0, white
        if low >= 0 and high <= 1:
            return 0.0, 1.0
        if low >= 0 and 128 <= high <= 255:
            return 0.0, 255.0
        self._warn(low, high, "they are read as black and white")
        return (low, high) if high > low else (low, low + 1)

    @staticmethod
    def _warn(low: float, high: float, reading: str) -> None:
        warnings.warn(
            f"Got image values from {low:g} to {high:g}; expected 0 to 1, 0 to 255, or 0 to 65535 of 16 bits. With "
            f"pixel_range='auto' {reading}. Say what black and white are: pixel_range=(low, high).",
            UserWarning,
            stacklevel=2,
        )

    def _check_range(self, span: tuple[float, float], value_range: tuple[float, float]) -> None:
        (least, most), (low, high) = span, value_range
        got = (
            f"Got image values from {least:g} to {most:g}; expected about {low:g} to {high:g}, as "
            f"{'in fit' if isinstance(self.pixel_range, str) else 'pixel_range says'}."
        )
        if least < low - (high - low) or most > high + (high - low):
            raise ValueError(f"{got} Scale them so, or say what black and white are: pixel_range=(low, high).")
        if high >= 128 and least >= 0 and 0 < most <= 1:
            warnings.warn(f"{got} They become almost black: scale them so.", UserWarning, stacklevel=2)


class ImageSamples(Samples):
    """Images that one reader has checked.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels) or list
        Pixels, or paths, pictures and arrays.
    preprocessing : ImagePreprocessing
        What the network wants.
    value_range : tuple of float or None
        Values that stand for black and white in arrays.
    """

    def __init__(
        self,
        images: "np.ndarray | list[Any]",
        preprocessing: ImagePreprocessing,
        value_range: tuple[float, float] | None,
    ):
        self._images = images
        self._preprocessing = preprocessing
        self._range = value_range
        # One sample of more than 8 bits makes floats of all: a batch has one type, and its type says its scale.
        self._eight_bits = all(self._has_8_bits(array) for array in _arrays(images))

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> torch.Tensor:
        image = self._images[index]
        if isinstance(image, UnreadableSampleError):
            raise image
        if isinstance(image, np.ndarray):
            pixels = self._from_array(image)
        elif isinstance(image, Image.Image):
            pixels = self._sized(decode(image, f"the picture in row {index}", self._preprocessing.channels))
        else:
            enough = self._preprocessing.shorter_side
            pixels = self._sized(decode(image, f"{image!r} (row {index})", self._preprocessing.channels, enough))
        if pixels.dtype == torch.uint8 and not self._eight_bits:
            return pixels.to(torch.float32).div_(255)
        return pixels

    def blank(self) -> torch.Tensor:
        assert self._preprocessing.crop is not None
        kind = torch.uint8 if self._eight_bits else torch.float32
        return torch.zeros(self._preprocessing.channels, *self._preprocessing.crop, dtype=kind)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return self._preprocessing.normalise(batch)

    @property
    def n_values(self) -> int:
        assert self._preprocessing.crop is not None
        return self._preprocessing.channels * math.prod(self._preprocessing.crop)

    @property
    def recipe(self) -> str:
        return f"{self._preprocessing} {self._range} {self._eight_bits}"

    def digest(self, index: int) -> bytes:
        image = self._images[index]
        digest = hashlib.sha256()
        if isinstance(image, np.ndarray):
            digest.update(f"array {image.dtype} {image.shape}".encode())
            digest.update(np.ascontiguousarray(image).data)
        elif isinstance(image, Image.Image):
            # What cannot be decoded or read is refused by name when it is loaded, and so is what is too large.
            with contextlib.suppress(Exception):
                check_size(image, "the picture")
                orientation = image.getexif().get(0x0112)
                digest.update(f"picture {image.mode} {image.size} {orientation} {image.info}".encode())
                digest.update(np.array(image.getpalette() or [0], dtype=np.uint8).data)
                digest.update(image.tobytes())
        elif isinstance(image, str):
            with contextlib.suppress(OSError):
                digest.update(Path(image).read_bytes())
        return digest.digest()

    def stamp(self, index: int) -> object:
        image = self._images[index]
        if not isinstance(image, str):
            return None
        with contextlib.suppress(OSError):
            found = Path(image).stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None

    def _has_8_bits(self, pixels: np.ndarray) -> bool:
        return self._range == (0.0, 255.0) and pixels.dtype.kind in "iu"

    def _from_array(self, pixels: np.ndarray) -> torch.Tensor:
        if self._has_8_bits(pixels):
            if pixels.dtype != np.uint8:
                pixels = pixels.astype(np.int64).clip(0, 255).astype(np.uint8)
            picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
            return self._sized(upright(picture, self._preprocessing.channels))
        assert self._range is not None
        low, high = self._range
        scaled = ((pixels.astype(np.float32) - low) / (high - low)).clip(0.0, 1.0)
        image = _to_channels(torch.from_numpy(scaled), self._preprocessing.channels)
        # Bicubic resizing overshoots; 8 bits cannot, so floats must not.
        return self._preprocessing.fit_size(image).clamp(0.0, 1.0)

    def _sized(self, picture: Image.Image) -> torch.Tensor:
        pixels = np.array(self._preprocessing.fit_size(picture), dtype=np.uint8)
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _to_channels(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    """From (height, width, 1, 3 or 4) to (channels, height, width); transparency is dropped."""
    from torchvision.transforms.functional import rgb_to_grayscale

    image = pixels.permute(2, 0, 1).contiguous()
    if channels == 1:
        return image if image.shape[0] == 1 else rgb_to_grayscale(image[:3])
    return image.expand(3, -1, -1).contiguous() if image.shape[0] == 1 else image[:3]


def is_picture(row: Any) -> bool:
    """Tell whether a row is an image by itself: a path, a picture or an array with two sides.

    Parameters
    ----------
    row : object
        One of X.

    Returns
    -------
    bool
        Whether it is.
    """
    return isinstance(row, str | os.PathLike | Image.Image) or getattr(row, "ndim", 0) >= 2


def unwrap(X: Any) -> "np.ndarray | list[Any]":
    """Turn rows that are images by themselves into a list, and everything else into an array.

    Parameters
    ----------
    X : array-like
        Array, list, Series or table.

    Returns
    -------
    ndarray or list
        A list of objects, some of them images, or an array of anything else.
    """
    if isinstance(X, list | tuple) and any(map(is_picture, X)):
        return list(X)
    X = np.asarray(X)
    if X.dtype.kind in "OUST" and (X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1 and any(map(is_picture, X[:, 0])))):
        return list(X.ravel())
    return X


def _arrays(images: "np.ndarray | list[Any]") -> list[np.ndarray]:
    return [image for image in images if isinstance(image, np.ndarray)] if isinstance(images, list) else [images]


def _span(arrays: list[np.ndarray]) -> tuple[float, float]:
    return min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)


def _own_size(images: "np.ndarray | list[Any]", arrays: list[np.ndarray]) -> dict[str, Any]:
    """Resize and crop for a network that takes any size."""
    sizes = {array.shape[-3:-1] for array in arrays}
    if len(sizes) == 1 and (isinstance(images, np.ndarray) or len(arrays) == len(images)):
        return {"crop": sizes.pop()}
    return {"resize": 256, "crop": (224, 224)}


def _check_list(images: list[Any], tolerant: bool) -> list[Any]:
    """Check the rows of a list; where that is tolerated, errors stand in for those that hold no image."""
    if tolerant:
        return [_row_or_error(image, row) for row, image in enumerate(images)]
    images = [_check_row(image, row) for row, image in enumerate(images)]
    paths = [image for image in images if isinstance(image, str)]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"Got {len(missing)} of {len(images)} paths that are no files; expected paths of images, relative to "
            f"{os.getcwd()!r} or absolute. The first: {', '.join(map(repr, missing[:5]))}."
        )
    return images


def _row_or_error(image: Any, row: int) -> Any:
    try:
        image = _check_row(image, row)
    except ValueError as error:
        return UnreadableSampleError(str(error))
    if isinstance(image, str) and not os.path.isfile(image):
        return UnreadableSampleError(f"Got {image!r} (row {row}), which is no file; expected the path of an image.")
    return image


def _check_row(image: Any, row: int) -> Any:
    """Return a path as str, a picture as it is, an array as (height, width, channels)."""
    if isinstance(image, str | os.PathLike):
        return str(os.fspath(image))
    if isinstance(image, Image.Image):
        return image
    if not is_picture(image):
        raise ValueError(
            f"Got X[{row}] = {reprlib.repr(image)}; expected a path, a PIL image or an array of shape (height, width) "
            "or (height, width, channels). Leave out rows without an image."
        )
    array = check_array(image, dtype="numeric", allow_nd=True, ensure_2d=False, input_name=f"X[{row}]")
    images = _channels_last(array[None])
    if images is None:
        raise ValueError(
            f"Got X[{row}] of shape {array.shape}; expected (height, width), (height, width, channels) or (channels, "
            "height, width), with 1, 3 or 4 channels. Move the axes, or leave channels out."
        )
    return images[0]


def _shape_rows(X: np.ndarray, image_shape: Sequence[int] | None) -> np.ndarray:
    if image_shape is None:
        raise ValueError(
            f"Got flat rows of {X.shape[1]} values; expected images. Say how to read the rows: "
            "image_shape=(height, width) or (height, width, channels)."
        )
    shape = tuple(image_shape)
    whole = all(isinstance(side, Integral) and side > 0 for side in shape)
    if not whole or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"Got image_shape={shape!r}; expected (height, width) or (height, width, channels) with 1, 3 or 4 channels."
        )
    if X.shape[1] != np.prod(shape):
        raise ValueError(
            f"Got rows of {X.shape[1]} values that do not fit image_shape={shape}, which needs {np.prod(shape)}. "
            "Correct image_shape, or the rows."
        )
    return X.reshape(len(X), *(shape if len(shape) == 3 else (*shape, 1)))


def _channels_last(X: np.ndarray) -> np.ndarray | None:
    """From (n, h, w), (n, h, w, c) or (n, c, h, w) to (n, h, w, c), without a copy; `None` where X is none of them."""
    if 0 in X.shape:
        return None
    if X.ndim == 3:
        return X[..., None]
    if X.ndim == 4 and X.shape[-1] in (1, 3, 4):
        return X
    if X.ndim == 4 and X.shape[1] in (1, 3, 4):
        return X.transpose(0, 2, 3, 1)
    return None


def _channels(images: np.ndarray) -> int:
    return int(images.shape[-1])
