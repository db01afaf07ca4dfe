"""Turn images in any form (arrays, flat rows, images, paths) into tensors of the size that a network needs.

Pictures of 8 bits stay 8 bits until they are on the network's device; only then are they scaled and normalised, with
the same operations, in the same order, as torchvision's own presets.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from sklearn.utils import check_array

from sktransfer._process._files import file_stamp
from sktransfer._process._versions import versions
from sktransfer.inputs._base import Augmentation, Reader, Samples, UnreadableSampleError
from sktransfer.inputs._encoded_files import EncodedFile
from sktransfer.inputs.images._augmentation import make_augmentation
from sktransfer.inputs.images._channel_stats import MOST_DECODED, given_stats, learned_stats
from sktransfer.inputs.images._decoding import check_size, convert, decode, opened_by, row_name
from sktransfer.inputs.images._deep_pictures import is_deep, read_grey
from sktransfer.inputs.images._integrity import MAX_FILE_BYTES, load_whole
from sktransfer.inputs.images._orientation import orientation
from sktransfer.inputs.images._picture_locks import alone_with
from sktransfer.inputs.images._pixel_range import (
    PictureScale,
    Values,
    check_range,
    learn_pictures,
    learn_range,
    range_of_types,
)
from sktransfer.inputs.images._preprocessing import ImagePreprocessing
from sktransfer.inputs.images._rows_of_images import check_list, finite_or_errors
from sktransfer.inputs.images._shapes import (
    FIT,
    NETWORK,
    PARAMETER,
    USUAL,
    channels_last,
    shape_rows,
    to_channels,
    wanted_shapes,
    warn_of_transparency,
)

_COLOURS = {1: "grey", 3: "RGB"}


class ImageReader(Reader):
    """Learns from the X of `fit`: its form, its channels and the range of its values.

    Parameters
    ----------
    preprocessing : ImagePreprocessing
        What the network wants.
    image_shape : tuple of int or None
        (height, width) or (height, width, channels) of flat rows.
    pixel_range : "auto" or tuple of float
        Values that stand for black and white in arrays, and in pictures of more than 8 bits.
    channel_stats : "auto" or sequence of two sequences of float, default="auto"
        Means and deviations of channels, in the units of X.
    n_own_channels : int or None, default=None
        Channels that the network was pretrained with, where it was adapted to others: mean and deviation of the rest
        are learned.
    """

    kind = "images"

    # Of pictures of more than 8 bits, if fit saw any; pickles of earlier versions know nothing of them.
    picture_range: tuple[float, float] | None = None
    deep_pictures = False
    channel_stats: Any = "auto"
    n_own_channels: int | None = None

    def __init__(
        self,
        preprocessing: ImagePreprocessing,
        image_shape: Sequence[int] | None = None,
        pixel_range: str | tuple[float, float] = "auto",
        channel_stats: Any = "auto",
        n_own_channels: int | None = None,
    ):
        self.preprocessing = preprocessing
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.channel_stats, self.n_own_channels = channel_stats, n_own_channels
        self.n_channels: int | None = None
        self.value_range: tuple[float, float] | None = None
        self.picture_range, self.deep_pictures = None, False

    @property
    def record(self) -> dict[str, Any]:
        # What channels are normalised by is in the preprocessing, once it was learned.
        learned = {name: value for name, value in vars(self).items() if name != "channel_stats"}
        return {**learned, "preprocessing": self.preprocessing.record}

    @property
    def description(self) -> dict[str, Any]:
        return {
            **super().description,
            "channel_order": _COLOURS.get(self.preprocessing.channels),
            "value_range": self.value_range or self.picture_range,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        reader = cls(
            ImagePreprocessing.from_record(record["preprocessing"]),
            image_shape=record["image_shape"],
            pixel_range=record["pixel_range"],
        )
        reader.n_channels, reader.value_range = record["n_channels"], record["value_range"]
        # Records of earlier versions have none of these.
        reader.picture_range = record.get("picture_range")
        reader.deep_pictures = record.get("deep_pictures", False)
        reader.n_own_channels = record.get("n_own_channels")
        return reader

    def example(self, n_samples: int, n_features: int | None) -> torch.Tensor:
        shape = self.preprocessing.example(None, n_samples).shape
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))

    def learn(self, X: Any, tolerant: bool = False) -> "ImageSamples":
        images = self._images(X, tolerant, in_fit=True)
        arrays = _arrays(images)
        self.n_channels = _channels(images) if isinstance(images, np.ndarray) else None
        warn_of_transparency(arrays, self.preprocessing.channels)
        if arrays:
            bands = self.preprocessing.channels not in USUAL
            self.value_range = learn_range([Values.of(array) for array in arrays], self.pixel_range, bands)
        if isinstance(images, list):
            self.deep_pictures, self.picture_range = learn_pictures(
                images, self.pixel_range, self.preprocessing.channels, tolerant
            )
        if self.preprocessing.crop is None:
            self.preprocessing = replace(self.preprocessing, **_own_size(images, arrays))
        self._learn_stats(images)
        return self._samples(images, self.value_range)

    def _samples(self, images: "np.ndarray | list[Any]", value_range: tuple[float, float] | None) -> "ImageSamples":
        return ImageSamples(images, self.preprocessing, value_range, self._scale())

    def _learn_stats(self, images: "np.ndarray | list[Any]") -> None:
        """Take mean and deviation of channels that were given, or learn those that the network does not know."""
        wanted = self.preprocessing
        if not isinstance(self.channel_stats, str):
            known = self.picture_range if self.deep_pictures else self.value_range
            found = given_stats(self.channel_stats, wanted.channels, known or (0.0, 255.0))
        elif self.n_own_channels is not None and self.n_own_channels < wanted.channels:
            scaled = self._samples(images, self.value_range).scaled_images()
            found = learned_stats(scaled, wanted.mean, wanted.std, self.n_own_channels, wanted.channels)
        else:
            return
        self.preprocessing = replace(wanted, mean=found["mean"], std=found["std"])

    def read(self, X: Any, tolerant: bool = False) -> "ImageSamples":
        images = self._images(X, tolerant, in_fit=False)
        arrays = _arrays(images)
        if isinstance(images, np.ndarray) and self.n_channels not in (None, _channels(images)):
            raise ValueError(
                f"Got images of {_channels(images)} channels; expected {self.n_channels}, as in fit. Convert them to "
                "what fit was given, or fit again."
            )
        warn_of_transparency(arrays, self.preprocessing.channels)
        value_range = self._range_of([Values.of(array) for array in arrays]) if arrays else self.value_range
        return self._samples(images, value_range)

    def _range_of(self, values: list[Values]) -> tuple[float, float]:
        """Say what black and white are of arrays; after a fit on pictures those of 8 bits tell it by their type."""
        known = self.value_range
        if known is None and not any(image.kind in (np.uint8, np.bool_) for image in values):
            known = self.picture_range
        if known is None:
            return range_of_types(values, self.pixel_range)
        check_range(values, known, self.pixel_range)
        return known

    def _scale(self) -> PictureScale:
        known = self.picture_range or self.value_range
        if known is None and not isinstance(self.pixel_range, str):
            known = (float(self.pixel_range[0]), float(self.pixel_range[1]))
        return PictureScale(known, self.pixel_range, self.deep_pictures)

    def _images(self, X: Any, tolerant: bool, in_fit: bool) -> "np.ndarray | list[Any]":
        """Return an array of shape (n, height, width, channels) or a list of paths, files, pictures and arrays."""
        channels = self.preprocessing.channels
        why = NETWORK if self.n_own_channels is None else PARAMETER if in_fit else FIT
        if isinstance(X, list):
            return check_list(X, tolerant, channels, why)
        X = check_array(
            X, dtype="numeric", allow_nd=True, ensure_2d=False, ensure_all_finite=not tolerant, input_name="X"
        )
        if X.ndim == 3 and X.shape[-1] in {3, 4, channels} - {1} and min(X.shape[:2]) >= 8:
            raise ValueError(
                f"Got X of shape {X.shape}, which looks like one picture; expected several. Put a single one into a "
                "list: [X]."
            )
        images = shape_rows(X, self.image_shape, channels) if X.ndim == 2 else channels_last(X, channels)
        if images is None:
            raise ValueError(
                f"Got X of shape {X.shape}; expected images of shape {wanted_shapes(channels, why, 'n, ')}"
            )
        return finite_or_errors(images) if tolerant else images


class ImageSamples(Samples):
    """Images that one reader has checked.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels) or list
        Pixels, or paths, files, pictures and arrays.
    preprocessing : ImagePreprocessing
        What the network wants.
    value_range : tuple of float or None
        Values that stand for black and white in arrays.
    scale : PictureScale
        How pictures of more than 8 bits are read.
    """

    kind = "images"
    decoding_takes_time = True

    def __init__(
        self,
        images: "np.ndarray | list[Any]",
        preprocessing: ImagePreprocessing,
        value_range: tuple[float, float] | None,
        scale: PictureScale,
    ):
        self._images = images
        self._preprocessing = preprocessing
        self._range = value_range
        self._scale = scale
        listed = images if isinstance(images, list) else []
        self.are_far = any(isinstance(image, EncodedFile) and image.is_far for image in listed)
        # One sample of more than 8 bits makes floats of all: a batch has one type, and its type says its scale.
        self._eight_bits = not scale.in_fit and all(self._has_8_bits(array) for array in _arrays(images))

        as_they_are = preprocessing.resize is None and preprocessing.crop == getattr(images, "shape", ())[1:3]
        if as_they_are and self._eight_bits:  # X itself holds what would be kept
            self.decoding_takes_time = False
        read = f"{self._range} {self._eight_bits} {scale.recipe}"
        self._recipe = f"{preprocessing} {read} {versions('pillow', 'torchvision')}"

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> torch.Tensor:
        image = self._images[index]
        if isinstance(image, UnreadableSampleError):
            raise image
        pixels = self._from_array(image) if isinstance(image, np.ndarray) else self._from_picture(image, index)
        if pixels.dtype == torch.uint8 and not self._eight_bits:
            return pixels.to(torch.float32).div_(255)
        return pixels

    def blank(self) -> torch.Tensor:
        assert self._preprocessing.crop is not None
        kind = torch.uint8 if self._eight_bits else torch.float32
        return torch.zeros(self._preprocessing.channels, *self._preprocessing.crop, dtype=kind)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return self._preprocessing.normalise(batch)

    def augmentation(self, augment: Any) -> Augmentation | None:
        return make_augmentation(augment, self._preprocessing.channels)

    @property
    def n_values(self) -> int:
        assert self._preprocessing.crop is not None
        return self._preprocessing.channels * math.prod(self._preprocessing.crop)

    @property
    def recipe(self) -> str:
        return self._recipe

    def digest(self, index: int) -> bytes:
        image = self._images[index]
        try:
            return image.digest(index) if isinstance(image, EncodedFile) else _digest(image)
        except Exception:  # whatever is wrong with it will be said when it is loaded
            return os.urandom(32)  # like no other: two that cannot be read now are not the same picture

    def stamp(self, index: int) -> object:
        image = self._images[index]
        if isinstance(image, EncodedFile):
            return image.stamp()
        return file_stamp(image) if isinstance(image, str) else None

    def scaled_images(self) -> Iterator[np.ndarray]:
        """Yield arrays of float32, of shape (height, width, channels) and between 0 and 1, before they are resized.

        Of files and pictures, which are decoded for it, some: they are spread evenly.
        """
        rows = list(range(len(self)))
        if not isinstance(self._images, np.ndarray) and len(rows) > MOST_DECODED:
            rows = [len(rows) * part // MOST_DECODED for part in range(MOST_DECODED)]
        whole = self._of_whole_images()
        for row in rows:
            try:
                image = whole.load(row)
            except UnreadableSampleError:  # said when it is loaded, or passed over by who tolerates it
                continue
            light = image.to(torch.float32).div_(255) if image.dtype == torch.uint8 else image
            yield light.movedim(0, -1).numpy()

    def _of_whole_images(self) -> "ImageSamples":
        whole = replace(self._preprocessing, resize=None, crop=None)
        return ImageSamples(self._images, whole, self._range, self._scale)

    def _has_8_bits(self, pixels: np.ndarray) -> bool:
        return self._range == (0.0, 255.0) and pixels.dtype.kind in "iu"

    def _from_picture(self, image: "str | EncodedFile | Image.Image", row: int) -> torch.Tensor:
        enough = None if isinstance(image, Image.Image) else self._preprocessing.shorter_side
        name, channels = row_name(image, row), self._preprocessing.channels
        decoded = decode(opened_by(image, row), name, channels, enough, self._scale.stored)
        if isinstance(decoded, Image.Image):
            return self._sized(decoded)
        if decoded.dtype == np.uint8:
            return self._of_8_bits(decoded)
        pixels = self._scaled(decoded, self._scale.of(decoded, name))
        # Where fit saw none like it, it becomes what the others are: the same alone as beside others.
        return pixels if self._scale.in_fit else pixels.mul_(255).round_().to(torch.uint8)

    def _from_array(self, pixels: np.ndarray) -> torch.Tensor:
        if not self._has_8_bits(pixels):
            assert self._range is not None
            return self._scaled(pixels, self._range)
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.int64).clip(0, 255).astype(np.uint8)
        return self._of_8_bits(pixels)

    def _of_8_bits(self, pixels: np.ndarray) -> torch.Tensor:
        if self._preprocessing.channels not in (1, 3):
            return self._bands([Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, -1, 0)])
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
        return self._sized(convert(picture, self._preprocessing.channels))

    def _scaled(self, pixels: np.ndarray, span: tuple[float, float]) -> torch.Tensor:
        low, high = span
        # Where float32 would round or overflow before the difference is taken, float64 is taken first.
        large = pixels.dtype.itemsize > 4 or (pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 4)
        kind: Any = np.float64 if large or max(abs(low), abs(high)) > 2**16 else np.float32
        scaled = ((pixels.astype(kind) - low) / (high - low)).clip(0.0, 1.0).astype(np.float32, copy=False)
        image = torch.from_numpy(scaled).permute(2, 0, 1).contiguous()
        image = to_channels(image, self._preprocessing.channels)
        # Bicubic resizing overshoots; 8 bits cannot, so floats must not.
        return self._preprocessing.fit_size(image).clamp(0.0, 1.0)

    def _sized(self, picture: Image.Image) -> torch.Tensor:
        if picture.mode == "RGBA":  # resized as one, Pillow would weigh colours by their transparency
            return self._bands(list(picture.split()))
        pixels = np.array(self._preprocessing.fit_size(picture), dtype=np.uint8)
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def _bands(self, bands: list[Image.Image]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.asarray(self._preprocessing.fit_size(band)) for band in bands]))


def _digest(image: Any) -> bytes:
    if isinstance(image, str):
        if Path(image).stat().st_size > MAX_FILE_BYTES:
            raise OSError("it is too large to be read")
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256()
    if isinstance(image, np.ndarray):
        digest.update(f"array {image.dtype} {image.shape}".encode())
        digest.update(np.ascontiguousarray(image).data)
    elif isinstance(image, Image.Image):
        with alone_with(image):
            check_size(image, "the picture")
            load_whole(image)
            digest.update(f"picture {image.mode} {image.size} {orientation(image)} {image.info}".encode())
            digest.update(np.array(image.getpalette() or [0], dtype=np.uint8).data)
            digest.update(read_grey(image).tobytes() if is_deep(image) else image.tobytes())
    return digest.digest()


def _arrays(images: "np.ndarray | list[Any]") -> list[np.ndarray]:
    return [image for image in images if isinstance(image, np.ndarray)] if isinstance(images, list) else [images]


def _own_size(images: "np.ndarray | list[Any]", arrays: list[np.ndarray]) -> dict[str, Any]:
    """Resize and crop for a network that takes any size."""
    sizes = {array.shape[-3:-1] for array in arrays}
    readable = [image for image in images if not isinstance(image, UnreadableSampleError)]
    if len(sizes) == 1 and (isinstance(images, np.ndarray) or len(arrays) == len(readable)):
        return {"crop": sizes.pop()}
    return {"resize": 256, "crop": (224, 224)}


def _channels(images: np.ndarray) -> int:
    return int(images.shape[-1])
