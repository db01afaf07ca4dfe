"""Turn sounds, in files or arrays, into windows for a network: one channel, at the network's own rate.

A sound that is longer than a window is read in several windows, of equal length and evenly spread. The last one ends
where the sound ends. A shorter sound is followed by silence. The network hears each window by itself, and what it makes
of them is pooled.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from sktransfer._messages import shown
from sktransfer._process._files import file_stamp
from sktransfer._process._versions import versions
from sktransfer.inputs._base import Augmentation, Reader, Samples, UnreadableSampleError, each
from sktransfer.inputs._encoded_files import EncodedFile, is_cell
from sktransfer.inputs._files_of_rows import FilesOfRows, without_missing_files
from sktransfer.inputs._refusals import as_array
from sktransfer.inputs.sounds._augmentation import make_sound_augmentation
from sktransfer.inputs.sounds._decoding import RATES, Length, check_sound, look, read_array, read_file
from sktransfer.inputs.sounds._preprocessing import SoundPreprocessing

# Seconds of the window of a network that has none of its own.
LONGEST_WINDOW = 10.0

# Seconds by which a sound may exceed its windows: so little is cut off, rather than that all else is heard twice.
SPARE = 0.01

# Types of arrays. Integers of 64 bits are not among them: nobody knows their full scale.
_TYPES = ("uint8", "int8", "int16", "int32", "float16", "float32", "float64")
_SOUND = (
    "a path, or an array of shape (n_samples,), (n_samples, n_channels) or (n_channels, n_samples), or a file as bytes"
)


class SoundReader(Reader):
    """Learns from the X of `fit` how long a window is, where the network leaves that open.

    X is a list, array, Series or one-column table of paths, of arrays, or of both; an array of shape
    (n, n_samples), (n, n_samples, n_channels) or (n, n_channels, n_samples) will do. Of the two sides of a sound, the
    shorter one is its channels, and their mean is taken. Arrays are of the types uint8 (with 128 as silence), int8,
    int16 or int32, each with its own full scale, or floats within [-1, 1]: somewhat beyond is left as it is, and beyond
    16 refused. Sounds last from 10 milliseconds to an hour.

    Parameters
    ----------
    preprocessing : SoundPreprocessing
        What the network wants.
    sampling_rate : int or None
        Samples a second of arrays. Files say their own, and are read with that.

    Raises
    ------
    ValueError
        If the rate is that of no sound.
    """

    kind = "sounds"
    varying = "windows"

    def __init__(self, preprocessing: SoundPreprocessing, sampling_rate: int | None = None):
        low, high = RATES
        if sampling_rate is not None and not low <= sampling_rate <= high:
            raise ValueError(
                f"Got sampling_rate={shown(sampling_rate)}; expected the samples per second of the arrays in X, "
                f"{low} to {high}, such as 16000, or None if X holds only paths."
            )
        self.preprocessing = preprocessing
        self.sampling_rate = sampling_rate

    @property
    def record(self) -> dict[str, Any]:
        return {"preprocessing": self.preprocessing.record, "sampling_rate": self.sampling_rate}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return cls(SoundPreprocessing.from_record(record["preprocessing"]), record["sampling_rate"])

    def example(self, n_samples: int, n_features: int | None) -> torch.Tensor:
        """Return noise; where there are several sounds, each has three windows.

        An exporter tries one window less. torch.export takes a length of one for a constant.
        """
        one = self.preprocessing.example(None, 1)
        return one if n_samples == 1 else self.preprocessing.example((3, *one.shape[2:]), n_samples)

    def learn(self, X: Any, tolerant: bool = False) -> "SoundSamples":
        sounds, lengths = self._sounds(X, tolerant)
        if self.preprocessing.window is None:
            rate = self.preprocessing.sampling_rate
            longest = min(max(length.seconds for length in lengths), LONGEST_WINDOW)
            # To the next tenth of a second, so that one that is a little longer tomorrow is no other shape.
            self.preprocessing = replace(self.preprocessing, window=max(1, math.ceil(longest * 10 - 1e-6)) * rate // 10)
        return SoundSamples(sounds, lengths, self.preprocessing)

    def read(self, X: Any, tolerant: bool = False) -> "SoundSamples":
        sounds, lengths = self._sounds(X, tolerant)
        return SoundSamples(sounds, lengths, self.preprocessing)

    def _sounds(self, X: Any, tolerant: bool = False) -> tuple[list[Any], list[Length]]:
        """Return paths, files, arrays and errors, and the length of each sound."""
        if isinstance(X, np.ndarray) and (X.ndim == 1 or (X.ndim == 2 and X.shape[1] <= 2)):
            raise ValueError(
                f"Got X of shape {X.shape}, which looks like one sound; expected several. Put a single one into a "
                "list: [X]."
            )
        files = FilesOfRows()
        checked = [_check(sound, row, self.sampling_rate, files) for row, sound in enumerate(X)]
        sounds = without_missing_files([sound for sound, _ in checked], "a sound", tolerant)
        rates = [rate for _, rate in checked]
        far = any(isinstance(sound, EncodedFile) and sound.is_far for sound in sounds)
        lengths = each(lambda row: _length_or_error(sounds[row], row, rates[row]), range(len(sounds)), far)
        wrong = {row: error for row, error in enumerate(lengths) if isinstance(error, UnreadableSampleError)}
        if wrong and not tolerant:
            raise next(iter(wrong.values()))
        whole = [wrong.get(row, sound) for row, sound in enumerate(sounds)]
        return whole, [length if isinstance(length, Length) else Length(0, 1) for length in lengths]


class SoundSamples(Samples):
    """Sounds that one reader has checked.

    Parameters
    ----------
    sounds : list
        Paths, files, arrays of shape (n_samples, n_channels), and errors that stand for sounds.
    lengths : list of Length
        Of each.
    preprocessing : SoundPreprocessing
        What the network wants.
    """

    kind = "sounds"
    decoding_takes_time = True

    def __init__(self, sounds: list[Any], lengths: list[Length], preprocessing: SoundPreprocessing):
        self._sounds, self._lengths = sounds, lengths
        self._preprocessing = preprocessing
        self.are_far = any(isinstance(sound, EncodedFile) and sound.is_far for sound in sounds)
        assert preprocessing.window is not None
        self._window = preprocessing.window

    def __len__(self) -> int:
        return len(self._sounds)

    def size(self, index: int) -> int:
        rate = self._preprocessing.sampling_rate
        beyond = self._lengths[index].at(rate) - int(SPARE * rate)
        return max(1, math.ceil(beyond / self._window))

    def load(self, index: int) -> torch.Tensor:
        return self.windows(index, self.waveform(index))

    def windows(self, index: int, waveform: np.ndarray) -> torch.Tensor:
        """Divide a waveform, that of a sample or one as long, into windows: float32 of shape (n_windows, length)."""
        count, window = self.size(index), self._window
        length = min(max(len(waveform), window), count * window)
        waveform = np.pad(waveform[:length], (0, max(0, length - len(waveform))))
        starts = np.linspace(0, length - window, count).round().astype(int)
        return torch.from_numpy(np.stack([waveform[start : start + window] for start in starts]))

    def blank(self) -> torch.Tensor:
        return torch.zeros(1, self._window)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        extract = self._preprocessing.extract
        windows = [extract(window) for window in batch.flatten(0, 1).cpu().numpy()]
        return torch.stack(windows).view(*batch.shape[:2], *windows[0].shape).to(batch.device)

    def augmentation(self, augment: Any) -> Augmentation | None:
        return make_sound_augmentation(augment)

    @property
    def n_values(self) -> int:
        return self._window

    @property
    def recipe(self) -> str:
        return f"{self._preprocessing} {versions('soundfile', 'soxr', 'transformers')}"

    def digest(self, index: int) -> bytes:
        sound = self._sounds[index]
        try:
            if isinstance(sound, EncodedFile):
                return sound.digest(index)
            if isinstance(sound, str):
                with Path(sound).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").digest()
            if isinstance(sound, np.ndarray):
                digest = hashlib.sha256(f"array {sound.dtype} {sound.shape} {self._lengths[index].rate}".encode())
                digest.update(np.ascontiguousarray(sound).tobytes())
                return digest.digest()
        except (OSError, UnreadableSampleError):
            pass  # whatever is wrong with it will be said when it is loaded
        return os.urandom(32)  # like no other

    def stamp(self, index: int) -> object:
        sound = self._sounds[index]
        if isinstance(sound, EncodedFile):
            return sound.stamp()
        return file_stamp(sound) if isinstance(sound, str) else None

    @property
    def rate(self) -> int:
        """Samples per second of a waveform, as the network takes it."""
        return self._preprocessing.sampling_rate

    def given_rate(self, index: int) -> int:
        """Return the samples per second of one sound, as it was given."""
        return self._lengths[index].rate

    def waveform(self, index: int, rate: int | None = None) -> np.ndarray:
        """Return one sound, the mean of its channels.

        Parameters
        ----------
        index : int
            Its row.
        rate : int or None, default=None
            Samples per second that are wanted; `None` for those that the network takes.

        Returns
        -------
        float32 ndarray of shape (n_samples,)
            Within [-1, 1], or somewhat beyond.

        Raises
        ------
        UnreadableSampleError
            If it cannot be read.
        """
        sound, length = self._sounds[index], self._lengths[index]
        rate = self.rate if rate is None else rate
        if isinstance(sound, UnreadableSampleError):
            raise sound
        if isinstance(sound, str):
            return read_file(sound, f"{sound!r} (row {index})", length, rate)
        if isinstance(sound, EncodedFile):
            return read_file(sound.read(index), sound.name(index), length, rate)
        return read_array(sound, f"X[{index}]", length.rate, rate)


def _check(sound: Any, row: int, sampling_rate: int | None, files: FilesOfRows) -> tuple[Any, int | None]:
    """Return a sound, and the rate of an array: a path, another file, an array as (n_samples, n_channels) or an error.

    An array of a cell has its own rate.
    """
    try:
        if (file := files.of(sound, f"X[{row}]")) is not None:
            return file, None
        if is_cell(sound) and sound.get("array") is not None:
            return _check_array(np.asarray(sound["array"]), row), _rate_of(sound, row)
        if isinstance(sound, torch.Tensor | np.ma.MaskedArray):
            sound = as_array(sound, f"X[{row}]")
        checked = _check_array(sound, row)
    except UnreadableSampleError as error:
        return error, None
    except ValueError as error:
        return UnreadableSampleError(str(error)), None
    if sampling_rate is None:
        raise ValueError(
            "Got sounds as arrays, and sampling_rate=None; expected their samples per second, such as "
            "sampling_rate=16000. Set it before fit."
        )
    return checked, sampling_rate


def _rate_of(cell: Mapping[str, Any], row: int) -> int:
    rate = cell.get("sampling_rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not float(rate).is_integer():
        raise UnreadableSampleError(
            f"Got X[{row}] with an array and sampling_rate={shown(rate)}; expected its samples per second. Put them "
            "into each dict, or give only arrays, and set sampling_rate on the estimator."
        )
    return int(rate)


def _check_array(sound: Any, row: int) -> np.ndarray:
    """Return an array as (n_samples, n_channels)."""
    if not isinstance(sound, np.ndarray) or sound.ndim not in (1, 2):
        raise UnreadableSampleError(f"Got X[{row}] = {shown(sound)}; expected {_SOUND}. Leave its row out.")
    if sound.dtype.name not in _TYPES:
        raise UnreadableSampleError(
            f"Got X[{row}] of type {sound.dtype}; expected {', '.join(_TYPES)}, whose full scale is known. Convert "
            "it, for example with X.astype(numpy.int16) if 32767 is full scale."
        )
    if sound.ndim == 1 or not sound.size:
        return sound.reshape(-1, 1)
    return sound.T if sound.shape[0] < sound.shape[1] else sound


def _length_or_error(sound: Any, row: int, sampling_rate: int | None) -> "Length | UnreadableSampleError":
    try:
        return _length(sound, row, sampling_rate)
    except UnreadableSampleError as error:
        return error


def _length(sound: Any, row: int, sampling_rate: int | None) -> Length:
    """Return the length of a sound, from the head of its file, or raise what is wrong with it."""
    if isinstance(sound, UnreadableSampleError):
        raise sound
    if isinstance(sound, str):
        return look(sound, f"{sound!r} (row {row})")
    if isinstance(sound, EncodedFile):
        return look(sound.read(row), sound.name(row))
    assert sampling_rate is not None
    return check_sound(Length(len(sound), sampling_rate), sound.shape[1], f"X[{row}] of shape {sound.shape}")
