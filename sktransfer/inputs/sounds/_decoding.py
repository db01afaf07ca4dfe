"""Read sound files of any rate and number of channels, block by block, into one channel.

libsndfile decodes. What it would not decode whole is refused by name, and so is what claims to be endless; memory grows
with what a file holds, not with what it claims.
"""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from sktransfer._messages import named_extra
from sktransfer.inputs._base import UnreadableSampleError
from sktransfer.inputs.sounds._integrity import FORMATS, NAMES, check_length, check_whole

# Seconds of the shortest and the longest sound that is read. A network hears nothing in less than ten milliseconds:
# whoever has such sounds has a wrong sampling rate.
SHORTEST_SOUND = 0.01
LONGEST_SOUND = 3600.0

# Samples a second, least and most, and channels, most.
RATES = (100, 1_000_000)
MOST_CHANNELS = 64

# Magnitude beyond which floats are taken for cast integers; 1 is full scale, which some sounds exceed.
LOUDEST = 16.0

_BLOCK = 2**16


class Length(NamedTuple):
    """How long a sound is: samples of each channel, and samples per second."""

    n_samples: int
    rate: int

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.n_samples / self.rate

    def at(self, rate: int) -> int:
        """Return the number of samples at another rate.

        Parameters
        ----------
        rate : int
            Samples a second.

        Returns
        -------
        int
            As many as resampling will leave, rounded.
        """
        return (2 * self.n_samples * rate + self.rate) // (2 * self.rate)


def check_sound(length: Length, channels: int, name: str) -> Length:
    """Refuse what is too short, too long, or has an unlikely rate or number of channels.

    Parameters
    ----------
    length : Length
        Of the sound.
    channels : int
        That it has.
    name : str
        What to call it in messages.

    Returns
    -------
    Length
        The same.

    Raises
    ------
    UnreadableSampleError
        If it is refused.
    """
    low, high = RATES
    if not low <= length.rate <= high:
        raise UnreadableSampleError(
            f"Got {name} with {length.rate} samples per second; expected {low} to {high}. Correct the rate, or leave "
            "its row out."
        )
    if channels > MOST_CHANNELS:
        raise UnreadableSampleError(
            f"Got {name} with {channels} channels; expected at most {MOST_CHANNELS}. Keep those that matter."
        )
    if length.n_samples <= 0:
        raise UnreadableSampleError(
            f"Got {name}, which holds no sound; expected at least {SHORTEST_SOUND} seconds. Leave its row out."
        )
    if length.seconds < SHORTEST_SOUND:
        raise UnreadableSampleError(
            f"Got {name}, which is {length.seconds:.2g} seconds long ({length.n_samples} samples at {length.rate} "
            f"per second); expected at least {SHORTEST_SOUND}. Correct its sampling rate, or leave its row out."
        )
    if length.seconds > LONGEST_SOUND:
        raise UnreadableSampleError(
            f"Refused {name}: it claims {length.seconds:.6g} seconds, and the limit is {LONGEST_SOUND:.0f}. Cut it "
            "into several, or write the file again if it is not that long."
        )
    return length


def look(sound: str | bytes, name: str) -> Length:
    """Return the length of a file, as its head has it.

    Parameters
    ----------
    sound : str or bytes
        Path or content of the file.
    name : str
        What to call it in messages.

    Returns
    -------
    Length
        Not yet known to be true.

    Raises
    ------
    UnreadableSampleError
        If there is no sound in it, or one that is refused.
    """
    with _naming(name):
        try:
            with _open(sound) as file:
                length, channels = Length(int(file.frames), int(file.samplerate)), int(file.channels)
        except Exception:
            if isinstance(sound, bytes) or os.path.isfile(sound):
                check_whole(sound)  # which may know better why
            raise
        if length.seconds < SHORTEST_SOUND:
            check_whole(sound)
    return check_sound(length, channels, name)


def read_file(sound: str | bytes, name: str, expected: Length, rate: int) -> np.ndarray:
    """Read a whole file.

    Parameters
    ----------
    sound : str or bytes
        Path or content of the file.
    name : str
        What to call it in messages.
    expected : Length
        What `look` found.
    rate : int
        Samples a second that are wanted.

    Returns
    -------
    float32 ndarray of shape (n_samples,)
        The mean of its channels, at that rate.

    Raises
    ------
    UnreadableSampleError
        If it is damaged, is cut short, holds NaN or infinity, or has changed since it was looked at.
    """
    with _naming(name):
        check_whole(sound)
        with _open(sound) as file:
            if Length(file.frames, file.samplerate) != expected:
                raise OSError("it has been written to since it was looked at")
            if file.format == "MP3":
                check_length(sound, expected.n_samples)
            return to_waveform(_blocks(file, expected), expected.rate, rate)


def read_array(values: np.ndarray, name: str, given: int, rate: int) -> np.ndarray:
    """Turn an array into what a file would have become.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_channels)
        Integers, whose type says what full scale is, or floats.
    name : str
        What to call it in messages.
    given, rate : int
        Samples a second that it has, and that are wanted.

    Returns
    -------
    float32 ndarray of shape (n_samples,)
        The mean of its channels, at that rate.

    Raises
    ------
    UnreadableSampleError
        If it holds NaN, infinity or values far beyond full scale.
    """
    parts = (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
    try:
        return to_waveform(map(_as_floats, parts), given, rate)
    except ValueError as error:
        raise UnreadableSampleError(
            f"Got {name}, in which {error}; expected integers, or floats within [-1, 1]. Divide floats by full scale, "
            "such as 32768, or leave its row out."
        ) from error


def to_waveform(blocks: Iterable[np.ndarray], given: int, rate: int) -> np.ndarray:
    """Mix blocks of a sound down to one channel and resample them, with soxr at its high quality ("HQ").

    Parameters
    ----------
    blocks : iterable of float32 ndarray of shape (n, n_channels)
        One after another.
    given, rate : int
        Samples a second that they have, and that are wanted.

    Returns
    -------
    float32 ndarray of shape (n_samples,)
        The mean of the channels, at that rate.

    Raises
    ------
    ValueError
        If there is a value that is not a number, or far beyond full scale.
    """
    mono = (_checked(block).mean(axis=1, dtype=np.float32) for block in blocks)
    if given == rate:
        return np.concatenate([np.zeros(0, np.float32), *mono])
    stream = import_reader("soxr").ResampleStream(given, rate, 1, dtype="float32", quality="HQ")
    parts = [stream.resample_chunk(np.ascontiguousarray(block)) for block in mono]
    return np.concatenate([*parts, stream.resample_chunk(np.zeros(0, np.float32), last=True)])


def import_reader(name: str) -> Any:
    """Import soundfile or soxr.

    Parameters
    ----------
    name : {"soundfile", "soxr"}
        Which.

    Returns
    -------
    module
        That one.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    with named_extra(f"Reading sounds needs the package {name}", "audio"):
        if name == "soundfile":
            import soundfile

            return soundfile
        import soxr

        return soxr


@contextlib.contextmanager
def _open(sound: str | bytes) -> Iterator[Any]:
    soundfile = import_reader("soundfile")
    with soundfile.SoundFile(os.fsencode(sound) if isinstance(sound, str) else io.BytesIO(sound)) as file:
        if file.format not in FORMATS:
            raise OSError(f"it is of type {file.format}")
        yield file


def _blocks(file: Any, expected: Length) -> Iterator[np.ndarray]:
    left = expected.n_samples
    while left:
        block = file.read(min(left, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            raise OSError(f"it ends after {expected.n_samples - left} of {expected.n_samples} samples")
        left -= len(block)
        yield block


def _checked(block: np.ndarray) -> np.ndarray:
    loudest = max(float(block.max()), -float(block.min()))
    if not np.isfinite(loudest):
        raise ValueError("values are NaN or infinite")
    if loudest > LOUDEST:
        raise ValueError(f"floats reach {loudest:.6g}")
    return block


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Scale integers to [-1, 1], with 128 as the middle of uint8; floats stay as they are."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is refused as infinite
            return values.astype(np.float32, copy=False)
    info = np.iinfo(values.dtype)
    middle = (info.max + info.min + 1) // 2
    return ((values.astype(np.float64) - middle) / (info.max - middle + 1)).astype(np.float32)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the sound in whatever the decoder raises."""
    try:
        yield
    except ImportError:
        raise
    except MemoryError as error:
        raise UnreadableSampleError(
            f"Refused {name}: decoding it takes more memory than there is. Cut it into several, or leave its row out."
        ) from error
    except Exception as error:  # libsndfile's errors are RuntimeErrors
        raise UnreadableSampleError(
            f"Got {name}, which is not a whole sound ({error}); expected a file of type {NAMES}, with values within "
            "[-1, 1] where they are floats. Replace it, or leave its row out."
        ) from error
