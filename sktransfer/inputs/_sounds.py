"""Sounds, in files or as arrays, become windows of what a network listens to: one channel, at the network's own rate.

A sound that is longer than a window is read in several, of equal length and evenly spread, the last of which ends where
the sound ends; a shorter one is followed by silence. The network hears each window by itself, and what it makes of them
is pooled.
"""

import contextlib
import hashlib
import json
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from sktransfer._names import check_choice
from sktransfer.inputs._base import Augmentation, Reader, Samples, UnreadableSampleError
from sktransfer.inputs._rows import unwrap

# Feature extractors of transformers that turn a waveform into what a network takes, by name.
EXTRACTORS = (
    "ASTFeatureExtractor", "ClapFeatureExtractor", "SeamlessM4TFeatureExtractor", "Wav2Vec2FeatureExtractor",
    "WhisperFeatureExtractor",
)  # fmt: skip

# Seconds of the window of a network that has none of its own.
LONGEST_WINDOW = 10.0

# The most that is read of one sound, in seconds: an hour.
LONGEST_SOUND = 3600.0

_MOST_CHANNELS = 64
_FILES = "AIFF, FLAC, MP3, OGG, WAV"
_SOUND = "a path, or an array of shape (n_samples,) or (n_samples, n_channels)"

# Noise (of the root mean square of the sound), gain in decibels and shift (of the window), at most, by level.
_LEVELS = {"light": (0.0, 3.0, 0.05), "standard": (0.02, 6.0, 0.1), "strong": (0.1, 12.0, 0.2)}


@dataclass(frozen=True)
class SoundPreprocessing:
    """How a network wants its sounds: its feature extractor, and the rate and the length of its window.

    Parameters
    ----------
    extractor : str
        Name of the feature extractor of transformers.
    settings : str
        Its settings, as JSON.
    argument : str
        Name under which it returns what the network takes.
    sampling_rate : int
        Samples a second that the network takes.
    window : int or None
        Length of a window in samples at this rate; `None` is learned in `fit`: that of the longest sound, of at most
        10 seconds.
    """

    extractor: str
    settings: str
    argument: str
    sampling_rate: int
    window: int | None = None
    kind: ClassVar[str] = "sounds"

    @classmethod
    def from_extractor(cls, extractor: Any, argument: str) -> "SoundPreprocessing":
        """Read what a feature extractor of transformers says.

        Parameters
        ----------
        extractor : transformers.SequenceFeatureExtractor
            Of the network.
        argument : str
            Name under which the network takes samples.

        Returns
        -------
        SoundPreprocessing
            The same, as a record.

        Raises
        ------
        ValueError
            If it is none for sounds that is known.
        """
        name = type(extractor).__name__
        if name not in EXTRACTORS:
            raise ValueError(f"Got a feature extractor {name}; expected one for sounds: {', '.join(EXTRACTORS)}.")
        settings = extractor.to_dict()
        for key in ("mel_filters", "window"):  # arrays that follow from the rest
            settings.pop(key, None)
        rate = int(extractor.sampling_rate)
        window = getattr(extractor, "n_samples", None)
        if name == "ASTFeatureExtractor":
            window = int(extractor.max_length * 0.010 * rate)  # a frame every 10 ms
        text = json.dumps(settings, sort_keys=True, default=str)
        return cls(name, text, argument, rate, None if window is None else int(window))

    @property
    def record(self) -> dict[str, Any]:
        """Its values, for `restore_preprocessing`."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SoundPreprocessing":
        """Build it again from its `record`.

        Parameters
        ----------
        record : mapping
            Words and numbers.

        Returns
        -------
        SoundPreprocessing
            The same.
        """
        return cls(**{name: value for name, value in record.items() if name != "kind"})

    def example(self, shape: tuple[int, ...] | None, n_samples: int) -> torch.Tensor:
        """Return prepared samples with nothing real in them.

        Parameters
        ----------
        shape : tuple of int or None
            (windows, ...) of one sample that was seen, if any was.
        n_samples : int
            How many.

        Returns
        -------
        float32 Tensor of shape (n_samples, n_windows, ...)
            Noise.
        """
        generator = torch.Generator().manual_seed(0)
        if shape is None:
            noise = torch.rand(self.window or self.sampling_rate, generator=generator).numpy() - 0.5
            shape = (1, *self.extract(noise).shape)
        return torch.rand(n_samples, *shape, generator=generator) - 0.5

    def extract(self, waveform: np.ndarray) -> torch.Tensor:
        """Turn one window into what the network takes.

        Parameters
        ----------
        waveform : float32 ndarray of shape (n_samples,)
            At the network's rate.

        Returns
        -------
        float32 Tensor
            Of the shape that the network takes, without the axis of samples.
        """
        extractor = _build_extractor(self.extractor, self.settings)
        with torch.autocast("cpu", enabled=False):
            result = extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="np")
        return torch.from_numpy(np.ascontiguousarray(result[self.argument][0], dtype=np.float32))


@cache
def _build_extractor(name: str, settings: str) -> Any:
    check_choice("feature extractor", name, EXTRACTORS)
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            'Sounds are prepared by the package transformers, which is not installed: pip install "sktransfer[audio]".'
        ) from error
    return getattr(transformers, name)(**json.loads(settings))


class SoundReader(Reader):
    """Learns from the X of `fit` how long a window is, where the network leaves that open.

    Parameters
    ----------
    preprocessing : SoundPreprocessing
        What the network wants.
    sampling_rate : int or None
        Samples a second of arrays.
    """

    kind = "sounds"
    varying = "windows"

    def __init__(self, preprocessing: SoundPreprocessing, sampling_rate: int | None = None):
        self.preprocessing = preprocessing
        self.sampling_rate = sampling_rate

    @property
    def record(self) -> dict[str, Any]:
        return {"preprocessing": self.preprocessing.record, "sampling_rate": self.sampling_rate}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SoundReader":
        """Build a reader again from its `record`.

        Parameters
        ----------
        record : mapping
            Words and numbers.

        Returns
        -------
        SoundReader
            That reads the same.
        """
        return cls(SoundPreprocessing.from_record(record["preprocessing"]), record["sampling_rate"])

    def example(self, shape: tuple[int, ...], n_samples: int) -> torch.Tensor:
        """Return noise, of two windows."""
        return self.preprocessing.example((2, *shape[1:]), n_samples)

    def learn(self, X: Any) -> "SoundSamples":
        sounds, lengths = self._sounds(X)
        if self.preprocessing.window is None:
            rate = self.preprocessing.sampling_rate
            longest = min(max(lengths), LONGEST_WINDOW)
            # To the next tenth of a second, so that one that is a little longer tomorrow is no other shape.
            self.preprocessing = replace(self.preprocessing, window=max(1, math.ceil(longest * 10 - 1e-6)) * rate // 10)
        return SoundSamples(sounds, lengths, self.preprocessing, self.sampling_rate)

    def read(self, X: Any, tolerant: bool = False) -> "SoundSamples":
        sounds, lengths = self._sounds(X, tolerant)
        return SoundSamples(sounds, lengths, self.preprocessing, self.sampling_rate)

    def _sounds(self, X: Any, tolerant: bool = False) -> tuple[list[Any], list[float]]:
        """Return paths, arrays and errors, and the length of each sound in seconds."""
        sounds = [_check(sound, row, self.sampling_rate) for row, sound in enumerate(unwrap(X))]
        missing = [sound for sound in sounds if isinstance(sound, str) and not os.path.isfile(sound)]
        if missing and not tolerant:
            raise FileNotFoundError(
                f"Got {len(missing)} of {len(sounds)} paths that are no files; expected paths of sounds, relative to "
                f"{os.getcwd()!r} or absolute. The first: {', '.join(map(repr, missing[:5]))}."
            )
        lengths = []
        for row, sound in enumerate(sounds):
            try:
                if isinstance(sound, UnreadableSampleError):
                    raise sound
                lengths.append(_length(sound, row, self.sampling_rate))
            except UnreadableSampleError as error:
                if not tolerant:
                    raise ValueError(str(error)) from error
                sounds[row] = error
                lengths.append(0.0)
        return sounds, lengths


class SoundSamples(Samples):
    """Sounds that one reader has checked.

    Parameters
    ----------
    sounds : list
        Paths, arrays of shape (n_samples, n_channels), and errors that stand for sounds.
    lengths : list of float
        Of each, in seconds.
    preprocessing : SoundPreprocessing
        What the network wants.
    sampling_rate : int or None
        Samples a second of arrays.
    """

    kind = "sounds"
    decoding_takes_time = True

    def __init__(
        self,
        sounds: list[Any],
        lengths: list[float],
        preprocessing: SoundPreprocessing,
        sampling_rate: int | None,
    ):
        self._sounds, self._lengths = sounds, lengths
        self._preprocessing, self._rate = preprocessing, sampling_rate
        assert preprocessing.window is not None
        self._window = preprocessing.window

    def __len__(self) -> int:
        return len(self._sounds)

    def size(self, index: int) -> int:
        samples = self._lengths[index] * self._preprocessing.sampling_rate
        return max(1, math.ceil(samples / self._window - 1e-9))

    def load(self, index: int) -> torch.Tensor:
        waveform = self._waveform(index)
        count, window = self.size(index), self._window
        wanted = max(window, len(waveform)) if count > 1 else window
        waveform = np.pad(waveform[:wanted], (0, max(0, wanted - len(waveform))))
        starts = np.linspace(0, len(waveform) - window, count).round().astype(int)
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
        return repr(self._preprocessing)

    def digest(self, index: int) -> bytes:
        sound = self._sounds[index]
        try:
            if isinstance(sound, str):
                with Path(sound).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").digest()
            if isinstance(sound, np.ndarray):
                digest = hashlib.sha256(f"array {sound.dtype} {sound.shape} {self._rate}".encode())
                digest.update(np.ascontiguousarray(sound).data)
                return digest.digest()
        except OSError:
            pass  # whatever is wrong with it will be said when it is loaded
        return os.urandom(32)  # like no other

    def stamp(self, index: int) -> object:
        sound = self._sounds[index]
        if not isinstance(sound, str):
            return None
        with contextlib.suppress(OSError):
            found = Path(sound).stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None

    def _waveform(self, index: int) -> np.ndarray:
        """Return one sound as float32, of one channel and at the network's rate."""
        sound = self._sounds[index]
        if isinstance(sound, UnreadableSampleError):
            raise sound
        name = f"{sound!r} (row {index})" if isinstance(sound, str) else f"the sound in row {index}"
        values, rate = _decode(sound, name) if isinstance(sound, str) else (sound, self._rate)
        assert rate is not None
        if not np.isfinite(values).all():
            raise UnreadableSampleError(
                f"Got {name}, which holds NaN or infinity; expected numbers. Leave its row out."
            )
        waveform = _as_floats(values).mean(axis=1)
        if rate != self._preprocessing.sampling_rate:
            waveform = _import("soxr").resample(waveform, rate, self._preprocessing.sampling_rate)
        return np.ascontiguousarray(waveform, dtype=np.float32)


def make_sound_augmentation(augment: Any) -> Augmentation | None:
    """Return the transform of windows of a waveform that a level, or a callable, stands for.

    Parameters
    ----------
    augment : {"light", "standard", "strong"}, callable or None
        `"light"`: louder or softer by up to 3 dB, and shifted by up to 5 % of a window. `"standard"`: 6 dB, 10 %, and
        noise of up to 2 % of the sound's root mean square. `"strong"`: 12 dB, 20 %, 10 %.

    Returns
    -------
    callable or None
        Takes and returns a float32 tensor of shape (windows, n_samples); draws from torch's generator.

    Raises
    ------
    ValueError
        If the level is unknown.
    """
    if augment is None or callable(augment):
        return augment
    check_choice("augment", augment, _LEVELS)
    noise, gain, shift = _LEVELS[augment]

    def change(windows: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(3) * 2 - 1
        length = windows.shape[-1]
        moved = windows.roll(places := round(float(drawn[0]) * shift * length), dims=-1)
        if places > 0:
            moved[..., :places] = 0
        elif places < 0:
            moved[..., places:] = 0
        level = windows.square().mean().sqrt() * noise * drawn[1].abs()
        return (moved + torch.randn_like(moved) * level) * 10 ** (float(drawn[2]) * gain / 20)

    return change


def _check(sound: Any, row: int, sampling_rate: int | None) -> Any:
    """Return a path as str, an array as (n_samples, n_channels), or the error that stands for it."""
    if isinstance(sound, str | os.PathLike):
        return os.fsdecode(sound)
    if isinstance(sound, torch.Tensor):
        sound = sound.numpy()
    if not isinstance(sound, np.ndarray) or sound.dtype.kind not in "iuf" or sound.ndim not in (1, 2):
        return UnreadableSampleError(f"Got X[{row}] = {reprlib.repr(sound)}; expected {_SOUND}. Leave its row out.")
    if sampling_rate is None:
        raise ValueError(
            "Got sounds as arrays, and sampling_rate=None; expected the number of samples a second that they were "
            "recorded with, such as sampling_rate=16000."
        )
    sound = sound[:, None] if sound.ndim == 1 else sound
    if sound.shape[1] > _MOST_CHANNELS >= sound.shape[0]:
        sound = sound.T  # channels first, as some libraries have them
    if sound.shape[1] > _MOST_CHANNELS:
        return UnreadableSampleError(
            f"Got X[{row}] of shape {sound.shape}; expected {_SOUND}, with at most {_MOST_CHANNELS} channels."
        )
    return sound


def _length(sound: Any, row: int, sampling_rate: int | None) -> float:
    """Return the length of a sound in seconds, from the head of its file."""
    if isinstance(sound, str):
        with _reading(f"{sound!r} (row {row})"):
            found = _import("soundfile").info(sound)
        name, frames, rate = f"{sound!r} (row {row})", found.frames, found.samplerate
    else:
        assert sampling_rate is not None
        name, frames, rate = f"X[{row}]", len(sound), sampling_rate
    if frames <= 0:
        raise UnreadableSampleError(
            f"Got {name}, which holds no sound; expected at least one sample. Leave its row out."
        )
    if frames / rate > LONGEST_SOUND:
        raise UnreadableSampleError(
            f"Refused {name}: it claims {frames / rate:.0f} seconds, and the limit is {LONGEST_SOUND:.0f}. Cut it into "
            "several."
        )
    return float(frames / rate)


def _decode(path: str, name: str) -> tuple[np.ndarray, int]:
    """Read a whole file, as float32 of shape (n_samples, n_channels)."""
    soundfile = _import("soundfile")
    with _reading(name):
        _check_whole(path)
        with soundfile.SoundFile(path) as file:
            expected, rate = file.frames, file.samplerate
            values = file.read(dtype="float32", always_2d=True)
        if len(values) < expected:
            raise OSError(f"it ends after {len(values)} of {expected} samples")
    return values, int(rate)


def _check_whole(path: str) -> None:
    """Refuse a WAV file that is shorter than it says; libsndfile reads what is left of it without a word."""
    with Path(path).open("rb") as file:
        head = file.read(12)
        size = file.seek(0, os.SEEK_END)
    claimed = int.from_bytes(head[4:8], "little")
    written_in_one_go = claimed not in (0, 0xFFFFFFFF)  # else whoever wrote it did not know yet
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE" and written_in_one_go and claimed + 8 > size + 1:
        raise OSError(f"it has {size} bytes of {claimed + 8}")


@contextlib.contextmanager
def _reading(name: str) -> Any:
    """Name the sound in whatever the decoder raises."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # libsndfile's errors are RuntimeErrors
        raise UnreadableSampleError(
            f"Got {name}, which is no whole sound ({error}); expected a file that libsndfile can decode, such as "
            f"{_FILES}. Replace it, or leave its row out."
        ) from error


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Scale integers to [-1, 1]; floats stay as they are."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    info = np.iinfo(values.dtype)
    middle = (info.max + info.min + 1) / 2
    return ((values.astype(np.float64) - middle) / (info.max - middle + 1)).astype(np.float32)


def _import(name: str) -> Any:
    try:
        if name == "soundfile":
            import soundfile

            return soundfile
        import soxr

        return soxr
    except (ImportError, OSError) as error:  # soundfile without libsndfile
        raise ImportError(
            f'Sounds are read by the package {name}, which is not installed: pip install "sktransfer[audio]".'
        ) from error
