"""Read samples. Each kind of sample has its own file; this file chooses among them by X and by the network."""

import copyreg
from collections.abc import Mapping
from typing import Any

import numpy as np

from sktransfer._messages import shown
from sktransfer.inputs._base import Preprocessing, Reader
from sktransfer.inputs._texts import TextPreprocessing
from sktransfer.inputs.images._preprocessing import ImagePreprocessing
from sktransfer.inputs.sounds._preprocessing import SoundPreprocessing

__all__ = [
    "ImagePreprocessing",
    "SoundPreprocessing",
    "TextPreprocessing",
    "restore_preprocessing",
    "restore_reader",
]


# The kind of X that a parameter is for, and what the parameter is.
_OF_KIND = {
    "image_shape": ("images", "how to read a flat row as an image"),
    "pixel_range": ("images", "the values that stand for black and white"),
    "n_channels": ("images", "the number of channels of each image"),
    "channel_stats": ("images", "the mean and deviation of each channel"),
    "max_length": ("texts", "the number of tokens that are read of a text"),
    "sampling_rate": ("sounds", "the samples per second of sounds that are given as arrays"),
}


def make_reader(
    kind: str,
    preprocessing: Preprocessing,
    image_shape: Any = None,
    pixel_range: Any = "auto",
    max_length: int | None = None,
    sampling_rate: int | None = None,
    n_channels: Any = "auto",
    channel_stats: Any = "auto",
    n_own_channels: int | None = None,
) -> Reader:
    """Create a reader that has not learned anything yet.

    Parameters
    ----------
    kind : {"images", "texts", "sounds", "vectors"}
        Kind of X, from `Rows.kind`.
    preprocessing : Preprocessing
        How the network expects its samples.
    image_shape, pixel_range, max_length, sampling_rate, n_channels, channel_stats : object
        As in the estimators. Each reader uses its own. The number of channels is that of `preprocessing`.
    n_own_channels : int or None, default=None
        Number of channels in pretraining, if the network was adapted to another number.

    Returns
    -------
    Reader
        Reader of this kind.

    Raises
    ------
    ValueError
        If a parameter is given that does not apply to this kind of X.
    """
    given = {"image_shape": image_shape, "pixel_range": pixel_range}
    given |= {"max_length": max_length, "sampling_rate": sampling_rate}
    given |= {"n_channels": n_channels, "channel_stats": channel_stats}
    for name, value in given.items():
        wanted, meaning = _OF_KIND[name]
        if kind != wanted and value is not None and not (isinstance(value, str) and value == "auto"):
            raise ValueError(
                f"Got {name}={shown(value)} for X that holds {kind}; expected the default, because {name} is "
                f"{meaning}. Leave "
                "it out."
            )
    if preprocessing.kind == "images" and kind == "images":
        return _reader_of("images")(preprocessing, image_shape, pixel_range, channel_stats, n_own_channels)
    if preprocessing.kind == "texts":
        return _reader_of("texts")(preprocessing, _plain(max_length))
    if preprocessing.kind == "sounds":
        return _reader_of("sounds")(preprocessing, _plain(sampling_rate))
    return _reader_of("vectors")()


def _reader_of(kind: str) -> Any:
    """Import the reader of a kind: most programs need one of them."""
    reader: Any
    if kind == "images":
        from sktransfer.inputs.images._reader import ImageReader

        reader = ImageReader
    elif kind == "texts":
        from sktransfer.inputs._texts import TextReader

        reader = TextReader
    elif kind == "sounds":
        from sktransfer.inputs.sounds._reader import SoundReader

        reader = SoundReader
    elif kind == "vectors":
        from sktransfer.inputs._vectors import VectorReader

        reader = VectorReader
    else:
        raise KeyError(kind)
    # Pickled and copied it is its record, and names no module but this one.
    copyreg.pickle(reader, lambda made: (restore_reader, (made.kind, made.record)))
    return reader


def _plain(number: Any) -> Any:
    """Make an int of one of NumPy's integers, which overflow where they are small."""
    return int(number) if isinstance(number, np.integer) else number


def channels_wanted(X: Any, preprocessing: Preprocessing, n_channels: Any, image_shape: Any) -> int:
    """Return the number of channels that a network must take for some images.

    Parameters
    ----------
    X : ndarray or list
        Images, as a reader takes them.
    preprocessing : Preprocessing
        How the network expects its samples.
    n_channels, image_shape : object
        As in the estimators.

    Returns
    -------
    int
        Those that were asked for; with `"auto"` those of X, if the network takes pictures and X holds none; else those
        that it takes.

    Raises
    ------
    ValueError
        If a shape does not show which axis holds the channels.
    """
    if n_channels != "auto":
        return int(n_channels)
    from sktransfer.inputs.images._channel_count import channels_of

    assert isinstance(preprocessing, ImagePreprocessing)
    return channels_of(X, preprocessing.channels, image_shape)


def restore_reader(kind: str, record: Mapping[str, Any]) -> Reader:
    """Rebuild a reader from its record.

    Parameters
    ----------
    kind : {"images", "texts", "sounds", "vectors"}
        Kind of the reader.
    record : mapping
        The reader's `record`.

    Returns
    -------
    Reader
        Reader that has learned the same.
    """
    return _reader_of(kind).from_record(record)


def restore_preprocessing(record: Mapping[str, Any]) -> Preprocessing:
    """Rebuild a preprocessing from its record.

    Parameters
    ----------
    record : mapping
        The `record` of the preprocessing.

    Returns
    -------
    Preprocessing
        The same preprocessing.

    Raises
    ------
    ValueError
        If a number in it is too large for any sample. Memory is allocated for examples of that size.
    """
    if any(isinstance(value, int) and abs(value) > _LARGEST for value in record.values()):
        raise ValueError(f"sample sizes above {_LARGEST}")
    return _PREPROCESSINGS[record.get("kind", "images")].from_record(record)


# The most that is believed of a number in a preprocessing: samples of a sound of an hour, at 16,000 a second.
_LARGEST = 60_000_000

_PREPROCESSINGS: dict[str, Any] = {
    preprocessing.kind: preprocessing for preprocessing in (ImagePreprocessing, TextPreprocessing, SoundPreprocessing)
}

# Pickled and copied they are their records, and name no module but this one.
for _kind in _PREPROCESSINGS.values():
    copyreg.pickle(_kind, lambda preprocessing: (restore_preprocessing, (preprocessing.record,)))
