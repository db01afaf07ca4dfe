"""Change training sounds at random, by level: louder or softer, earlier or later, and with a little noise."""

from typing import Any

import torch

from sktransfer._messages import check_choice
from sktransfer.inputs._base import Augmentation

# Noise (of the root mean square of the sound), gain in decibels and shift (of the window), at most, by level.
_LEVELS = {"light": (0.0, 3.0, 0.05), "standard": (0.02, 6.0, 0.1), "strong": (0.1, 12.0, 0.2)}


def make_sound_augmentation(augment: Any) -> Augmentation | None:
    """Return the transform of windows of a waveform that a level, or a callable, stands for.

    Parameters
    ----------
    augment : {"light", "standard", "strong"}, callable or None
        `"light"`: louder or softer by up to 3 dB, and shifted by up to 5 % of a window, with silence where nothing is
        left. `"standard"`: 6 dB, 10 %, and white noise of up to 2 % of the sound's root mean square (34 dB below it).
        `"strong"`: 12 dB, 20 %, 10 % (20 dB below it). Each is drawn evenly up to its bound. There is no noise in the
        silence that follows a short sound: it stands for nothing.

    Returns
    -------
    callable or None
        Takes and returns a float32 tensor of shape (windows, n_samples), of one sound; draws from torch's generator.

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
        places = round(float(drawn[0]) * shift * windows.shape[-1])
        moved = windows.roll(places, dims=-1)
        if places > 0:
            moved[..., :places] = 0
        elif places < 0:
            moved[..., places:] = 0
        if noise:
            heard = _until_the_end(moved)
            level = moved.square().sum().div(heard.sum().clamp(min=1)).sqrt() * noise * drawn[1].abs()
            moved += torch.randn_like(moved) * level * heard
        return moved * 10 ** (float(drawn[2]) * gain / 20)

    return change


def _until_the_end(windows: torch.Tensor) -> torch.Tensor:
    """Tell which samples come before the silence at the end of each window."""
    return windows.abs().flip(-1).cummax(-1).values.flip(-1) > 0
