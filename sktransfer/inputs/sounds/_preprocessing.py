"""How a network of transformers expects its sounds: what its feature extractor says, as a record of plain values.

The extractor itself is built where it is needed, and prepares one window at a time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from sktransfer._messages import check_choice, named_extra, shown
from sktransfer.inputs._base import Preprocessing

# Feature extractors of transformers that turn a waveform into what a network takes, by name.
EXTRACTORS = (
    "ASTFeatureExtractor",
    "SeamlessM4TFeatureExtractor",
    "Wav2Vec2FeatureExtractor",
    "WhisperFeatureExtractor",
)

# The most that is believed of settings that sizes of tables follow from.
_MOST = {
    "feature_size": 1024, "num_mel_bins": 1024, "n_fft": 2**16, "hop_length": 2**16, "chunk_length": 3600,
    "sampling_rate": 10**6, "max_length": 10**6, "stride": 1024,
}  # fmt: skip

# Those that are given a short sound without the silence that follows it, and add what their networks take for nothing.
_PADS_ITSELF = ("ASTFeatureExtractor", "Wav2Vec2FeatureExtractor", "WhisperFeatureExtractor")


@dataclass(frozen=True)
class SoundPreprocessing(Preprocessing):
    """How a network expects its sounds: its feature extractor, its sampling rate and the length of its window.

    Parameters
    ----------
    extractor : str
        Name of the feature extractor in transformers.
    settings : str
        Settings of the feature extractor, as JSON.
    argument : str
        Name under which the feature extractor returns the input of the network.
    sampling_rate : int
        Samples per second that the network takes.
    window : int or None
        Length of a window, in samples at this rate. `None` is learned in `fit`: the length of the longest sound, up to
        10 seconds.
    """

    extractor: str
    settings: str
    argument: str
    sampling_rate: int
    window: int | None = None
    kind: ClassVar[str] = "sounds"

    @classmethod
    def from_settings(cls, extractor: Any, settings: Mapping[str, Any], argument: str) -> "SoundPreprocessing":
        """Create it from the settings of a feature extractor in transformers.

        Parameters
        ----------
        extractor : str
            Name of the feature extractor.
        settings : mapping
            Content of preprocessor_config.json, from any source.
        argument : str
            Name under which the network takes samples.

        Returns
        -------
        SoundPreprocessing
            The same settings.

        Raises
        ------
        ValueError
            If the feature extractor is not a known one for sounds, or if a number in it is impossible for sounds.
        """
        if extractor not in EXTRACTORS:
            raise ValueError(
                f"Got a feature extractor {shown(extractor)}; expected one for sounds: {', '.join(EXTRACTORS)}."
            )
        # Arrays that follow from the rest are left out.
        known = {key: value for key, value in settings.items() if key not in ("mel_filters", "window")}
        built = _build_extractor(extractor, json.dumps(known, sort_keys=True, default=str))
        if argument not in built.model_input_names:
            raise ValueError(
                f"Got a {extractor}, which gives {built.model_input_names[0]}, for a network that takes {argument}; "
                "expected the feature extractor that belongs to the network."
            )
        held = {key: value for key, value in built.to_dict().items() if key not in ("mel_filters", "window")}
        rate = int(built.sampling_rate)
        window = getattr(built, "n_samples", None)
        if extractor == "ASTFeatureExtractor":
            window = int(built.max_length * 0.010 * rate)  # a frame every 10 ms
        if window is not None and not 1 <= window <= 3600 * rate:
            raise ValueError(f"Got windows of {window} samples at {rate} per second; expected at most an hour.")
        text = json.dumps(held, sort_keys=True, default=str)
        return cls(extractor, text, argument, rate, None if window is None else int(window))

    def example(self, shape: tuple[int, ...] | None, n_samples: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        if shape is None:
            noise = torch.rand(self.window or self.sampling_rate, generator=generator).numpy() - 0.5
            shape = (1, *self.extract(noise).shape)
        return torch.rand(n_samples, *shape, generator=generator) - 0.5

    def extract(self, waveform: np.ndarray) -> torch.Tensor:
        """Turn one window into the input of the network.

        Digital silence at the end of a window is padding after a short sound. It is cut off, except for a tenth of a
        second, before the feature extractor runs, and the extractor adds the padding that the network expects. So
        padding does not affect the normalisation of a waveform.

        Parameters
        ----------
        waveform : float32 ndarray of shape (n_samples,)
            Waveform at the sampling rate of the network.

        Returns
        -------
        float32 Tensor
            Input of the network for one sample, without the sample axis.
        """
        extractor = _build_extractor(self.extractor, self.settings)
        heard = waveform
        if self.extractor in _PADS_ITSELF:
            sounding = np.flatnonzero(waveform)
            end = sounding[-1] + 1 if len(sounding) else 0
            heard = waveform[: max(int(end), self.sampling_rate // 10)]
        with torch.autocast("cpu", enabled=False):
            result = extractor(heard, sampling_rate=self.sampling_rate, return_tensors="np")
        values = np.asarray(result[self.argument][0], dtype=np.float32)
        if values.ndim == 1:
            values = np.pad(values, (0, len(waveform) - len(values)), constant_values=extractor.padding_value)
        return torch.from_numpy(np.ascontiguousarray(values))


@cache
def _build_extractor(name: str, settings: str) -> Any:
    check_choice("feature extractor", name, EXTRACTORS)
    values = json.loads(settings)
    _check_sizes(values)
    with named_extra("Preparing sounds needs the package transformers", "audio"):
        import transformers
    return getattr(transformers, name)(**values)


def _check_sizes(settings: Mapping[str, Any]) -> None:
    """Refuse sizes that no sound has: tables as large are made of some."""
    for name, value in settings.items():
        most = _MOST.get(name, 10**7)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > most:
            number = value if abs(value) < 10**20 else "a number of more than 20 digits"
            raise ValueError(f"Got {name}={number} of a feature extractor; expected at most {most}. Correct it.")
        if name in _MOST and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"Got {name}={shown(value)} of a feature extractor; expected a number from 1.")
