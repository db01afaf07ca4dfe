"""How prepared samples are handed to a stack of layers, how hidden states stand for them, and which samples try it.

Behind a cut there are hidden states alone. Whoever asks there what layers are called with needs samples again: any that
the network turns into as many positions.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch

from sktransfer.backbones.graphs._layer_calls import is_traced
from sktransfer.inputs import SoundPreprocessing, TextPreprocessing

# Tokens of the longest text that a network is tried with: longer ones take memory that grows with their square.
_LONGEST = 4100

# Seconds of the longest waveform that is tried to stand for hidden states: no window is that long.
_LONGEST_SOUND = 600


class Entry(Protocol):
    """How prepared samples are handed to a network, and how hidden states stand for them.

    Attributes
    ----------
    tells_padding : bool
        Whether the network receives a mask of the positions that are padding.
    """

    tells_padding: bool

    def examples(self) -> list[torch.Tensor]:
        """Return prepared samples of several lengths that are run whole and in parts; the first shows the layers."""

    def long_examples(self) -> list[torch.Tensor]:
        """Return one prepared sample each of more lengths, for which it is only seen what layers are called with."""

    def describe(self, x: torch.Tensor) -> str:
        """Say how many and how long prepared samples are."""

    def padding(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return which positions of samples, or of hidden states, stand only for the length of others, if any do."""

    def arguments(self, x: torch.Tensor, padding: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return what the network's forward takes."""

    def stand_in(
        self,
        hidden: torch.Tensor,
        padding: torch.Tensor | None,
        count: Callable[[dict[str, torch.Tensor]], int],
    ) -> dict[str, torch.Tensor]:
        """Return what makes it call its layers as with these hidden states; `count` tells the positions of a try."""

    def as_value(self, x: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """Return samples as floats that can be kept and joined like hidden states."""

    def flat(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return hidden states as layers take them, of shape (n, positions, features)."""

    def unflat(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return them with one row per sample of `x` again."""


class Tokens:
    """Numbers of tokens enter, right behind each other; where samples differ in length, -1 or NaN fills up.

    Parameters
    ----------
    preprocessing : TextPreprocessing
        How many tokens there are, and how many of them a text may have.
    pad : int or None
        The token that fills up, as the network's description has it.
    """

    tells_padding = True

    def __init__(self, preprocessing: TextPreprocessing, pad: int | None):
        self._preprocessing = preprocessing
        vocabulary = preprocessing.vocabulary
        self.pad = pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0
        self.other = (self.pad + 1) % vocabulary

    def examples(self) -> list[torch.Tensor]:
        if self._preprocessing.pad_token is not None:  # all texts are of one length, and what fills them is text
            return [self._example(8, 1), self._example(8, 3)]
        padded = self._example(9, 2)
        padded[1, 4:] = -1
        return [self._example(8, 1), self._example(1, 1), self._example(6, 3), padded]

    def long_examples(self) -> list[torch.Tensor]:
        most = self._preprocessing.max_length
        if self._preprocessing.pad_token is not None:
            return []
        lengths = sorted({min(length, most) for length in (2, 3, 5, 16, 17, 33, 65, 129, _LONGEST)})
        return [self._example(length, 1) for length in lengths]

    def describe(self, x: torch.Tensor) -> str:
        lengths = sorted({int(length) for length in (x >= 0).sum(1)})
        return f"{len(x)} text{'s' * (len(x) > 1)} of {' and '.join(map(str, lengths))} token{'s' * (lengths != [1])}"

    def _example(self, length: int, n_samples: int) -> torch.Tensor:
        # Of one length whatever is asked for, where the network takes no other.
        return self._preprocessing.example((min(length, self._preprocessing.max_length),), n_samples)

    def padding(self, x: torch.Tensor) -> torch.Tensor | None:
        if is_traced() and self._preprocessing.pad_token is not None:
            return None
        padding = x[..., 0].isnan() if x.ndim == 3 else x < 0
        return padding if is_traced() or bool(padding.any()) else None

    def arguments(self, x: torch.Tensor, padding: torch.Tensor | None) -> dict[str, torch.Tensor]:
        numbers = (x[..., 0].nan_to_num() if x.ndim == 3 else x).long()
        return self._with_mask(numbers, padding)

    def stand_in(
        self,
        hidden: torch.Tensor,
        padding: torch.Tensor | None,
        count: Callable[[dict[str, torch.Tensor]], int],
    ) -> dict[str, torch.Tensor]:
        # Which tokens these are matters as little to layers as it does to masks, if only they are not padding.
        numbers = torch.full_like(hidden[..., 0], self.other, dtype=torch.int64)
        return self._with_mask(numbers, padding)

    def _with_mask(self, numbers: torch.Tensor, padding: torch.Tensor | None) -> dict[str, torch.Tensor]:
        if padding is None:
            return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}
        return {"input_ids": numbers.masked_fill(padding, self.pad), "attention_mask": (~padding).long()}

    def as_value(self, x: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        if x.ndim == 3:
            return x
        value = x.float() if padding is None else x.float().masked_fill(padding, torch.nan)
        return value.unsqueeze(-1)

    def flat(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def unflat(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return hidden


class Windows:
    """Windows of a sound enter, all of one shape, each by itself; windows of NaN fill up.

    Parameters
    ----------
    preprocessing : SoundPreprocessing
        Which windows the network takes.
    argument : str
        Name under which it takes them.
    """

    tells_padding = False

    def __init__(self, preprocessing: SoundPreprocessing, argument: str):
        self._preprocessing, self.argument = preprocessing, argument

    def examples(self) -> list[torch.Tensor]:
        return [self._example(*some) for some in ((1.0, 1), (0.3, 3), (0.77, 1))[: 1 if self._window else None]]

    def long_examples(self) -> list[torch.Tensor]:
        return [self._example(seconds, 1) for seconds in (() if self._window else (0.55, 2.3))]

    def describe(self, x: torch.Tensor) -> str:
        return f"{len(x)} window{'s' * (len(x) > 1)} of shape {tuple(x.shape[2:])}"

    @property
    def _window(self) -> int | None:
        """Samples of a window, where the network takes no other."""
        return self._preprocessing.window

    def _example(self, seconds: float, n_samples: int) -> torch.Tensor:
        return self._noise(int(seconds * self._preprocessing.sampling_rate), n_samples)

    def _noise(self, length: int, n_samples: int = 1) -> torch.Tensor:
        """Return noise as the network takes it, as it comes of so many samples of a waveform."""
        shown = self._preprocessing if self._window else replace(self._preprocessing, window=length)
        first = shown.example(None, 1)
        return first if n_samples == 1 else torch.cat([first, shown.example(tuple(first.shape[1:]), n_samples - 1)])

    def padding(self, x: torch.Tensor) -> torch.Tensor | None:
        first: tuple[Any, ...] = (slice(None), slice(None), *[0] * (x.ndim - 2))
        padding = x[first].isnan()
        return padding if is_traced() or bool(padding.any()) else None

    def arguments(self, x: torch.Tensor, padding: torch.Tensor | None) -> dict[str, torch.Tensor]:
        return {self.argument: (x if padding is None else x.nan_to_num()).flatten(0, 1)}

    def stand_in(
        self,
        hidden: torch.Tensor,
        padding: torch.Tensor | None,
        count: Callable[[dict[str, torch.Tensor]], int],
    ) -> dict[str, torch.Tensor]:
        # Positions grow with the waveform, by steps: each try says where the next is.
        wanted, rate = int(hidden.shape[1]), self._preprocessing.sampling_rate
        length, too_short, too_long = self._window or rate, 0, None
        for tries in itertools.count(1):
            shown = self.arguments(self._noise(length), None)
            found = count(shown)
            if found == wanted:
                return {name: value.expand(len(hidden), *value.shape[1:]) for name, value in shown.items()}
            too_short, too_long = (length, too_long) if found < wanted else (too_short, length)
            if self._window or length > _LONGEST_SOUND * rate or (too_long is not None and too_long - too_short < 2):
                break
            guess = length * wanted // max(found, 1)
            guess = max(guess, length + 1) if found < wanted else min(guess, length - 1)
            if too_long is not None and (tries % 4 == 0 or not too_short < guess < too_long):
                guess = (too_short + too_long) // 2
            length = guess
        raise ValueError(
            f"Got hidden states of {wanted} positions; expected as many as a window of sound gives. Give what the part "
            "of the network before the cut returned."
        )

    def as_value(self, x: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        return x

    def flat(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.flatten(0, 1) if hidden.ndim == 4 else hidden

    def unflat(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return hidden.view(*x.shape[:2], *hidden.shape[1:])
