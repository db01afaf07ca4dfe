"""Read samples for people: by the readers of the estimators, but whole, and before anything is fitted.

Pictures are upright, in colours, at their own shape; sounds are waveforms at their own rate. A sample that cannot be
read is shown with the reason, because that is worth seeing too.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sktransfer._messages import check_choice, first_line, shown
from sktransfer.inputs import channels_wanted
from sktransfer.inputs._base import Samples, UnreadableSampleError
from sktransfer.inputs._containers import is_missing
from sktransfer.inputs._encoded_files import is_cell
from sktransfer.inputs._remote_files import is_address
from sktransfer.inputs._rows import Rows
from sktransfer.inputs.images._folder import image_endings
from sktransfer.inputs.images._preprocessing import ImagePreprocessing
from sktransfer.inputs.images._shapes import check_image_shape
from sktransfer.inputs.sounds._preprocessing import SoundPreprocessing

KINDS = ("auto", "images", "texts", "sounds")

# Pixels of the longer side of a picture, beyond which no cell of a figure shows more.
_MOST_PIXELS = 400

# Rows that are looked at to tell what X holds.
_LOOKED_AT = 50

_SOUND_ENDINGS = {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
_SOUND_BEGINNINGS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


@dataclass(frozen=True)
class ReadSample:
    """One sample, ready to be drawn.

    Parameters
    ----------
    row : int
        Row in X.
    kind : {"image", "text", "sound", "unreadable"}
        Kind of the sample.
    content : ndarray or str
        Image: uint8, or float32 within [0, 1], of shape (height, width, 3), RGB. Sound: float32 of shape (n_samples,),
        within [-1, 1] or slightly beyond. Text: the text itself. Unreadable sample: the reason.
    rate : int or None, default=None
        Samples per second of a sound.
    """

    row: int
    kind: str
    content: Any
    rate: int | None = None


@dataclass(frozen=True)
class WholePicture(ImagePreprocessing):
    """Lets a picture keep its shape; a large one is made smaller."""

    crop: tuple[int, int] | None = (_MOST_PIXELS, _MOST_PIXELS)

    @property
    def shorter_side(self) -> int:
        """Length of the shorter side that is needed of a JPEG, in pixels."""
        return _MOST_PIXELS // 2

    def fit_size(self, image: Any) -> Any:
        """Make a picture, or a float Tensor of shape (channels, height, width), smaller if it is large."""
        height, width = image.shape[-2:] if isinstance(image, torch.Tensor) else (image.height, image.width)
        scale = _MOST_PIXELS / max(height, width)
        if scale >= 1:
            return image
        size = max(1, round(scale * height)), max(1, round(scale * width))
        if not isinstance(image, torch.Tensor):
            return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class HowToRead:
    """Parameters for reading X, with the names that estimators use.

    Parameters
    ----------
    kind : {"auto", "images", "texts", "sounds"}, default="auto"
        What X holds.
    image_shape : tuple of int or None, default=None
        (height, width) or (height, width, channels) of flat rows.
    pixel_range : "auto" or tuple of float, default="auto"
        Values that stand for black and white.
    sampling_rate : int or None, default=None
        Samples per second of sounds that are given as arrays.
    n_channels : "auto" or int, default="auto"
        Channels of images; of more than three, the first three are drawn as colours.

    Raises
    ------
    ValueError
        If one of them is none of these.
    """

    kind: str = "auto"
    image_shape: Any = None
    pixel_range: Any = "auto"
    sampling_rate: int | None = None
    n_channels: Any = "auto"

    def __post_init__(self) -> None:
        check_choice("kind of X", self.kind, KINDS)
        if self.image_shape is not None:
            check_image_shape(self.image_shape)
        if isinstance(self.pixel_range, str) and self.pixel_range == "auto":
            return
        low, high = self.pixel_range if len(self.pixel_range) == 2 else (1, 0)
        if isinstance(low, str) or not low < high:
            raise ValueError(
                f'Got pixel_range={shown(self.pixel_range)}; expected "auto" or two numbers (low, high), low < high.'
            )

    def find_kind(self, values: Any) -> str:
        """Tell what X holds, by what is known and by its look.

        Parameters
        ----------
        values : list or ndarray
            Rows of X.

        Returns
        -------
        {"images", "texts", "sounds"}
            The kind of most rows.

        Raises
        ------
        ValueError
            If they cannot be drawn, or their look does not tell.
        """
        if self.kind != "auto":
            return self.kind
        if self.sampling_rate is not None:
            return "sounds"
        if not isinstance(values, list):
            if getattr(values, "ndim", 0) == 2 and self.image_shape is None:
                raise ValueError(
                    f"Got X of shape {values.shape}, rows of numbers; expected images, texts or sounds. For flat "
                    "images, give image_shape=(height, width); for sounds, sampling_rate. Other numbers cannot be "
                    "drawn."
                )
            return "images"
        kinds = Counter(kind for row in values[:_LOOKED_AT] if (kind := _look(row)))
        if not kinds:
            raise ValueError(
                f"Got X whose rows are like {shown(values[0])}; expected images, texts or sounds. Say which: "
                'kind="images", "texts" or "sounds".'
            )
        return kinds.most_common(1)[0][0]


def read_samples(rows: Rows, chosen: Sequence[int], how: HowToRead) -> list[ReadSample]:
    """Read some samples of X.

    Parameters
    ----------
    rows : Rows
        Those of X.
    chosen : sequence of int
        Which of them, in order.
    how : HowToRead
        What is known of X.

    Returns
    -------
    list of ReadSample
        One for each of `chosen`; those that cannot be read say why.

    Raises
    ------
    ValueError
        If X holds nothing that can be drawn, or none of those that were chosen can be read.
    """
    values = rows.values
    kind = how.find_kind(values)
    if isinstance(values, np.ndarray) and kind == "images":
        # All of it is looked at, as in fit: which values are black and white depends on all.
        samples, places = _image_reader(how, values).learn(values, tolerant=True), list(chosen)
    else:  # files and texts are read one by one: the others are left alone
        some = [values[row] for row in chosen]
        samples, places = _samples_of(kind, some, how), list(range(len(some)))
    found = [_read(kind, samples, place, row) for place, row in zip(places, chosen, strict=True)]
    if found and all(sample.kind == "unreadable" for sample in found):
        raise ValueError(
            f"Got X, but none of {len(found)} samples can be read as {kind}. The first one: {found[0].content} If X "
            'holds something else, say so with kind="images", "texts" or "sounds".'
        )
    return found


def _samples_of(kind: str, values: list[Any], how: HowToRead) -> Any:
    if kind == "images":
        return _image_reader(how, values).learn(values, tolerant=True)
    if kind == "sounds":
        from sktransfer.inputs.sounds._reader import SoundReader

        settings = SoundPreprocessing(extractor="", settings="", argument="", sampling_rate=how.sampling_rate or 16000)
        return SoundReader(settings, how.sampling_rate).learn(values, tolerant=True)
    return values


def _image_reader(how: HowToRead, values: Any) -> Any:
    from sktransfer.inputs.images._reader import ImageReader

    channels = channels_wanted(values, WholePicture(), how.n_channels, how.image_shape)
    return ImageReader(WholePicture(channels=3 if channels == 1 else channels), how.image_shape, how.pixel_range)


def _read(kind: str, samples: Any, place: int, row: int) -> ReadSample:
    try:
        if kind == "images":
            return ReadSample(row, "image", _picture(samples, place))
        if kind == "sounds":
            rate = samples.given_rate(place)
            return ReadSample(row, "sound", samples.waveform(place, rate), rate)
        return ReadSample(row, "text", _text(samples[place], row))
    except UnreadableSampleError as error:
        # Readers count the rows that they were given, which are the chosen ones.
        said = str(error)
        for before, after in (("X[{}]", "X[{}]"), ("(row {})", "(row {})"), ("in row {}", "in row {}")):
            said = said.replace(before.format(place), after.format(row)) if place != row else said
        return ReadSample(row, "unreadable", said)


def _picture(samples: Samples, place: int) -> np.ndarray:
    loaded = samples.load(place)
    drawn = loaded[:3] if len(loaded) >= 3 else loaded[:1].expand(3, -1, -1)  # two channels are not colours
    return drawn.movedim(0, -1).contiguous().numpy()


def _text(value: Any, row: int) -> str:
    from sktransfer.inputs._texts import check_text

    text = check_text(value, row)
    if isinstance(text, UnreadableSampleError):
        raise text
    return text


def reason(sample: ReadSample) -> str:
    """Return in short why a sample cannot be read, without the advice.

    Parameters
    ----------
    sample : ReadSample
        Of the kind "unreadable".

    Returns
    -------
    str
        One sentence.
    """
    said = first_line(ValueError(sample.content), 400)
    return said.split("; expected")[0].removeprefix("Got ").removeprefix("Refused ")


def _look(row: Any) -> str | None:
    """Tell by its look what one row of a list holds."""
    if is_missing(row):
        return None
    if isinstance(row, str | os.PathLike):
        return _look_at_name(os.fsdecode(row))
    if is_cell(row):
        if row.get("array") is not None:
            return "sounds"
        content, path = row.get("bytes"), row.get("path")
        return _look_at_content(content) if content else _look_at_name(os.fsdecode(path)) if path else None
    if isinstance(row, bytes | bytearray | memoryview):
        return _look_at_content(bytes(row))
    if callable(getattr(row, "read", None)):
        name = getattr(row, "name", None)
        return "sounds" if isinstance(name, str) and _ending(name) in _SOUND_ENDINGS else "images"
    if isinstance(row, Image.Image) or getattr(row, "ndim", 0) >= 2:
        return "images"
    return "sounds" if getattr(row, "ndim", 0) == 1 else None


def _look_at_name(name: str) -> str:
    """Tell a path from a text: it leads to a file, is an address, or ends as files do."""
    ending = _ending(name)
    if ending in _SOUND_ENDINGS:
        return "sounds"
    return "images" if ending in image_endings() or is_address(name) or os.path.isfile(name) else "texts"


def _ending(name: str) -> str:
    return Path(name).suffix.lower() if len(name) < 4096 else ""


def _look_at_content(content: bytes) -> str:
    if content.startswith(_SOUND_BEGINNINGS):
        return "sounds"
    try:
        return "images" if "\0" in content.decode("utf-8") else "texts"
    except UnicodeDecodeError:
        return "images"
