"""Images in any form (arrays, flat rows, pictures, paths) become tensors of the size a network was trained on.

Pictures of 8 bits stay 8 bits until they are on the network's device; only then are they scaled and normalised, with
the same operations, in the same order, as torchvision's own presets.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.utils import check_array

from sktransfer.inputs._base import Reader, Samples

# A span of 8-bit values below this is more likely another scale than a set of dark pictures.
_DARK = 32


@dataclass(frozen=True)
class ImagePreprocessing:
    """How a network wants its images: travels with its weights.

    A network of one's own may carry one as its attribute `preprocessing`.

    Parameters
    ----------
    resize : int or None, default=None
        Length of the shorter side after resizing, in pixels. `None` resizes to `crop` directly.
    crop : tuple of int or None, default=None
        Height and width cut from the centre, in pixels. `None` takes arrays at their own size, and pictures and paths,
        whose sizes differ, at 224 x 224 out of 256.
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

        Parameters
        ----------
        image : PIL.Image.Image or float Tensor of shape (channels, height, width)
            Of any size.

        Returns
        -------
        PIL.Image.Image or Tensor
            Of `crop` size.
        """
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        if self.crop is None:
            return image
        size = list(self.crop) if self.resize is None else [self.resize]
        if isinstance(image, torch.Tensor) and tuple(image.shape[-2:]) == tuple(size):
            return image
        image = F.resize(image, size, interpolation=InterpolationMode(self.interpolation), antialias=True)
        return image if self.resize is None else F.center_crop(image, list(self.crop))

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

    def learn(self, X: Any) -> "ImageSamples":
        images = self._images(X)
        self.n_channels = _channels(images) if isinstance(images, np.ndarray) else None
        arrays = [image for image in images if isinstance(image, np.ndarray)] if isinstance(images, list) else images
        self.value_range = self._learn_range(arrays) if len(arrays) else None
        if self.preprocessing.crop is None:
            if isinstance(images, np.ndarray):
                size: tuple[int, int] = images.shape[1:3]
                self.preprocessing = replace(self.preprocessing, crop=size)
            else:
                self.preprocessing = replace(self.preprocessing, resize=256, crop=(224, 224))
        return ImageSamples(images, self.preprocessing, self.value_range)

    def read(self, X: Any) -> "ImageSamples":
        images = self._images(X)
        if isinstance(images, np.ndarray):
            if self.n_channels is not None and _channels(images) != self.n_channels:
                raise ValueError(
                    f"Got images of {_channels(images)} channels; expected {self.n_channels}, as in fit. "
                    "Convert them to what fit was given, or fit again."
                )
            value_range = self.value_range or self._learn_range(images)
            self._check_range(images, value_range)
        else:
            arrays = [image for image in images if isinstance(image, np.ndarray)]
            value_range = self.value_range or (self._learn_range(arrays) if arrays else None)
            for array in arrays if value_range else []:
                self._check_range(array, value_range)
        return ImageSamples(images, self.preprocessing, value_range)

    def _images(self, X: Any) -> "np.ndarray | list[Any]":
        """Return an array of shape (n, height, width, channels) or a list of paths, pictures and arrays."""
        X = _unwrap(X)
        if isinstance(X, list):
            return _check_list(X)
        if X.ndim == 2:
            return _shape_rows(X, self.image_shape)
        X = check_array(X, dtype="numeric", allow_nd=True, ensure_2d=False, input_name="X")
        return _channels_last(X, "X")

    def _learn_range(self, arrays: "np.ndarray | list[np.ndarray]") -> tuple[float, float]:
        if not isinstance(self.pixel_range, str):
            low, high = map(float, self.pixel_range)
            return low, high
        parts = arrays if isinstance(arrays, list) else [arrays]
        low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
        kind = np.result_type(*[part.dtype for part in parts])
        if kind == bool:
            return 0.0, 1.0
        if kind == np.uint8:
            if high < _DARK:
                self._warn(low, high, "uint8 is read as 0 to 255, which makes these images almost black")
            return 0.0, 255.0
        if kind == np.uint16 and high > 255:
            return 0.0, 65535.0
        if 0 <= low and high <= 1:
            return 0.0, 1.0
        if 0 <= low and 128 <= high <= 255:
            return 0.0, 255.0
        self._warn(low, high, "they are read as black and white")
        return (low, high) if high > low else (low, low + 1)

    @staticmethod
    def _warn(low: float, high: float, reading: str) -> None:
        warnings.warn(
            f"Got image values from {low:g} to {high:g}; expected 0 to 255 or 0 to 1. With pixel_range='auto' "
            f"{reading}. Say what black and white are: pixel_range=(low, high).",
            UserWarning,
            stacklevel=2,
        )

    def _check_range(self, array: np.ndarray, value_range: tuple[float, float]) -> None:
        low, high = value_range
        least, most = float(array.min()), float(array.max())
        if least < low - (high - low) or most > high + (high - low):
            raise ValueError(
                f"Got image values from {least:g} to {most:g}; expected about {low:g} to {high:g}, as in fit. Scale "
                "them as in fit, or say what black and white are: pixel_range=(low, high)."
            )


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

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> torch.Tensor:
        image = self._images[index]
        if isinstance(image, np.ndarray):
            picture = self._from_array(image)
        elif isinstance(image, Image.Image):
            picture = self._from_picture(image, f"the picture in row {index}")
        else:
            picture = self._from_picture(image, f"{os.fspath(image)!r} (row {index})")
        return picture

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return self._preprocessing.normalise(batch)

    def _from_picture(self, image: Any, name: str) -> torch.Tensor:
        with _decoding(name):
            picture = image.copy() if isinstance(image, Image.Image) else Image.open(image)
        with picture:
            _check_size(picture, name)
            with _decoding(name):
                picture.load()
                upright = _upright(picture, self._preprocessing.channels)
        return self._sized(upright)

    def _from_array(self, pixels: np.ndarray) -> torch.Tensor:
        low, high = self._range or (0.0, 255.0)
        if pixels.dtype == np.uint8 and (low, high) == (0.0, 255.0):
            picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
            return self._sized(_upright(picture, self._preprocessing.channels))
        scaled = ((pixels.astype(np.float32) - low) / (high - low)).clip(0.0, 1.0)
        return self._preprocessing.fit_size(_to_channels(torch.from_numpy(scaled), self._preprocessing.channels))

    def _sized(self, picture: Image.Image) -> torch.Tensor:
        pixels = np.array(self._preprocessing.fit_size(picture), dtype=np.uint8)
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Name the picture in whatever Pillow raises."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"Refused {name}: {error} Shrink the picture, or raise PIL.Image.MAX_IMAGE_PIXELS.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError, ValueError) as error:
        raise ValueError(
            f"Got {name}, which is no whole image ({error}); expected a file that Pillow can decode. Replace it, or "
            "leave its row out."
        ) from error


def _check_size(picture: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise ValueError(
            f"Refused {name}: it claims {picture.width} x {picture.height} pixels, and the limit is {limit} "
            "(PIL.Image.MAX_IMAGE_PIXELS). Shrink the picture, or raise the limit if you trust its source."
        )


def _upright(picture: Image.Image, channels: int) -> Image.Image:
    """Turn a decoded picture of any mode the right way up and into RGB, or into grey."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        picture = _to_8_bits(picture)
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture if picture.mode == mode else picture.convert(mode)


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 8 bits by the range of the type that holds them."""
    values = np.asarray(picture).astype(np.float64)
    most = values.max(initial=0)
    white = 65535.0 if picture.mode.startswith("I;16") else next(w for w in (1.0, 255.0, 65535.0, np.inf) if most <= w)
    if picture.mode == "I" and white == 1.0:
        white = 255.0
    white = most if np.isinf(white) else white
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def _to_channels(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    """From (height, width, 1, 3 or 4) to (channels, height, width); transparency is dropped."""
    from torchvision.transforms import functional as F

    image = pixels.permute(2, 0, 1).contiguous()
    if channels == 1:
        return image if image.shape[0] == 1 else F.rgb_to_grayscale(image[:3])
    return image.expand(3, -1, -1).contiguous() if image.shape[0] == 1 else image[:3]


def _unwrap(X: Any) -> "np.ndarray | list[Any]":
    """Series, one-column tables and arrays of objects become lists; everything else becomes an array."""
    if isinstance(X, list | tuple):
        return list(X)
    X = np.asarray(X)
    if X.dtype.kind in "OUST" and (X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1)):
        return list(X.ravel())
    return X


def _check_list(images: list[Any]) -> list[Any]:
    if not images:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: X is empty.")
    paths = []
    for row, image in enumerate(images):
        if isinstance(image, np.ndarray):
            array = check_array(image, dtype="numeric", allow_nd=True, ensure_2d=False, input_name=f"X[{row}]")
            if array.ndim not in (2, 3):
                raise ValueError(
                    f"Got X[{row}] of shape {array.shape}; expected (height, width) or (height, width, channels)."
                )
            images[row] = _channels_last(array[None], f"X[{row}]")[0]
        elif isinstance(image, str | os.PathLike):
            paths.append(os.fspath(image))
        elif not isinstance(image, Image.Image):
            raise ValueError(
                f"Got X[{row}] = {image!r}; expected a path, a PIL image or an array. Leave out rows without an image."
            )
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"Got {len(missing)} of {len(images)} paths that are no files; expected paths of images, relative to "
            f"{os.getcwd()!r} or absolute. The first: {', '.join(map(repr, missing[:5]))}."
        )
    return images


def _shape_rows(X: np.ndarray, image_shape: Sequence[int] | None) -> np.ndarray:
    if image_shape is None:
        raise ValueError(
            f"Got flat rows of {X.shape[1]} values; expected images. Say how to read the rows: "
            "image_shape=(height, width) or (height, width, channels)."
        )
    shape = tuple(int(side) for side in image_shape)
    if len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"Got image_shape={tuple(image_shape)!r}; expected (height, width) or (height, width, channels) with 1, 3 "
            "or 4 channels."
        )
    if X.shape[1] != np.prod(shape):
        raise ValueError(
            f"Got rows of {X.shape[1]} values that do not fit image_shape={shape}, which needs {np.prod(shape)}. "
            "Correct image_shape, or the rows."
        )
    return X.reshape(len(X), *(shape if len(shape) == 3 else (*shape, 1)))


def _channels_last(X: np.ndarray, name: str) -> np.ndarray:
    """From (n, h, w), (n, h, w, c) or (n, c, h, w) to (n, h, w, c), without a copy."""
    if X.ndim == 3:
        return X[..., None]
    if X.ndim == 4 and X.shape[-1] in (1, 3, 4):
        return X
    if X.ndim == 4 and X.shape[1] in (1, 3, 4):
        return X.transpose(0, 2, 3, 1)
    raise ValueError(
        f"Got {name} of shape {X.shape}; expected images of shape (n, height, width), (n, height, width, channels) or "
        "(n, channels, height, width), with 1, 3 or 4 channels."
    )


def _channels(images: np.ndarray) -> int:
    return int(images.shape[-1])
