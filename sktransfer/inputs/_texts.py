"""Texts become the numbers of their tokens, by the tokenizer that the network was trained with.

A text is cut off at `max_length` tokens, special ones included. It is filled up only for networks that were trained on
texts of one length and read the padding as text; for others, samples of one length are computed together.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image

from sktransfer._messages import named_extra, shown
from sktransfer._process._versions import versions
from sktransfer.inputs._base import Preprocessing, Reader, Samples, UnreadableSampleError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Numbers that a layer computes with for a token, as against the values of an image: sets how many are computed at once.
_VALUES_OF_A_TOKEN = 64

# Stands for positions without a token in what a network of layers takes.
_PADDING = -1

# Texts that are tokenized in one call.
_TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class TextPreprocessing(Preprocessing):
    """How a network expects its texts: its tokenizer, and how many tokens it was made for.

    Parameters
    ----------
    tokenizer : str
        The tokenizer, as JSON of the package tokenizers.
    max_length : int
        The most tokens that the network takes, special ones included.
    vocabulary : int
        Number of tokens that it knows.
    lower_case : bool, default=False
        Whether texts are made lower case before the tokenizer sees them.
    prompt : str, default=""
        What is put in front of each text.
    pad_token : int or None, default=None
        The token that fills each text up to `max_length`, for networks that read it as they read the others. `None`
        leaves texts as long as they are.
    pads_left : bool, default=False
        Whether it is put in front of a text, not behind it.
    """

    tokenizer: str
    max_length: int
    vocabulary: int
    lower_case: bool = False
    prompt: str = ""
    pad_token: int | None = None
    pads_left: bool = False
    kind: ClassVar[str] = "texts"

    def example(self, shape: tuple[int, ...] | None, n_samples: int) -> torch.Tensor:
        length = shape[0] if shape else min(8, self.max_length)
        if self.pad_token is not None:
            length = self.max_length
        return torch.arange(n_samples * length).view(n_samples, length) % self.vocabulary

    def encode(self, texts: Sequence[str], max_length: int | None) -> list[list[int]]:
        """Return the tokens of texts.

        Parameters
        ----------
        texts : sequence of str
            As they were given.
        max_length : int or None
            The most tokens of each, without padding; `None` cuts nothing off.

        Returns
        -------
        list of list of int
            With those of the prompt, special ones, and padding where the network needs it.
        """
        given = [self.prompt + text for text in texts]
        given = [text.lower() for text in given] if self.lower_case else given
        encoded = [encoding.ids for encoding in _tokenizer(self.tokenizer, max_length).encode_batch_fast(given)]
        return encoded if self.pad_token is None else [self._filled(tokens, self.pad_token) for tokens in encoded]

    def _filled(self, tokens: list[int], pad_token: int) -> list[int]:
        padding = [pad_token] * (self.max_length - len(tokens))
        return padding + tokens if self.pads_left else tokens + padding

    @property
    def prompt_tokens(self) -> int:
        """How many tokens in front of each text are not the text's own: those of the prompt, and special ones."""
        if not self.prompt:
            return 0
        prompt = self.prompt.lower() if self.lower_case else self.prompt
        encoding = _tokenizer(self.tokenizer, None).encode(prompt)
        return len(encoding.ids) - sum(encoding.special_tokens_mask[-1:])

    @property
    def plain_tokens(self) -> list[int]:
        """The numbers of all tokens but special ones."""
        tokenizer = _tokenizer(self.tokenizer, None)
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        return [number for number in range(tokenizer.get_vocab_size()) if number not in special]

    @property
    def least_length(self) -> int:
        """The fewest tokens that leave one of a text, beside special ones and those of the prompt."""
        return len(replace(self, pad_token=None).encode([""], None)[0]) + 1

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.tokenizer.encode()).hexdigest()[:12]
        padding = "" if self.pad_token is None else f", pad_token={self.pad_token}, pads_left={self.pads_left}"
        return (
            f"TextPreprocessing(tokenizer={digest}, max_length={self.max_length}, lower_case={self.lower_case}, "
            f"prompt={self.prompt!r}{padding})"
        )


@lru_cache(maxsize=16)
def _tokenizer(description: str, max_length: int | None) -> "Tokenizer":
    with named_extra("Texts are read by the package tokenizers", "text"):
        from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_str(description)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    return tokenizer


class TextSamples(Samples):
    """Texts that one reader has checked, as numbers of tokens.

    Parameters
    ----------
    tokens : sequence
        A sequence of int per text, or the error that stands for it.
    blank_length : int, default=1
        Tokens of what stands in for a text that cannot be read.
    """

    kind = "texts"

    def __init__(self, tokens: Sequence[Any], blank_length: int = 1):
        self._tokens, self._blank_length = tokens, blank_length

    def __len__(self) -> int:
        return len(self._tokens)

    def load(self, index: int) -> torch.Tensor:
        tokens = self._tokens[index]
        if isinstance(tokens, UnreadableSampleError):
            raise tokens
        return torch.tensor(tokens, dtype=torch.int64)

    def size(self, index: int) -> int:
        tokens = self._tokens[index]
        return self._blank_length if isinstance(tokens, UnreadableSampleError) else len(tokens)

    def blank(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int64)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    @property
    def n_values(self) -> int:
        return _VALUES_OF_A_TOKEN

    @property
    def recipe(self) -> str:
        return f"numbers of tokens {versions('tokenizers')}"

    def digest(self, index: int) -> bytes:
        tokens = self._tokens[index]
        if isinstance(tokens, UnreadableSampleError):
            return os.urandom(32)  # like no other
        return hashlib.sha256(b"".join(token.to_bytes(4, "little") for token in tokens)).digest()


class TextReader(Reader):
    """Reads strings; there is nothing to learn from those of `fit`.

    Parameters
    ----------
    preprocessing : TextPreprocessing
        What the network wants.
    max_length : int or None
        Tokens that are read of a text; `None` is as many as the network was made for.
    """

    kind = "texts"

    def __init__(self, preprocessing: TextPreprocessing, max_length: int | None = None):
        known = max_length is None or (isinstance(max_length, Integral) and not isinstance(max_length, bool))
        if not known or (max_length is not None and not 1 <= max_length <= preprocessing.max_length):
            raise ValueError(
                f"Got max_length={shown(max_length)}; expected a number of tokens of at most "
                f"{preprocessing.max_length}, which this network was made for, or None for as many."
            )
        self.preprocessing = preprocessing
        self.max_length = None if max_length is None else int(max_length)
        self.varying = None if self._is_filled else "tokens"

    @property
    def _is_filled(self) -> bool:
        """Whether all texts are of one length."""
        return self.preprocessing.pad_token is not None

    @property
    def record(self) -> dict[str, Any]:
        return {"preprocessing": self.preprocessing.record, "max_length": self.max_length}

    @property
    def description(self) -> dict[str, Any]:
        return {**super().description, "max_length": self.max_length, "padding": None if self._is_filled else _PADDING}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return cls(TextPreprocessing.from_record(record["preprocessing"]), record["max_length"])

    def example(self, n_samples: int, n_features: int | None) -> torch.Tensor:
        """Return numbers of tokens; of several texts, the last is the shortest if their length varies."""
        example = self.preprocessing.example(None, n_samples)
        if n_samples > 1 and not self._is_filled:
            example[-1, -2:] = _PADDING
        return example

    def learn(self, X: Any, tolerant: bool = False) -> TextSamples:
        return self.read(X, tolerant)

    def read(self, X: Any, tolerant: bool = False) -> TextSamples:
        if not isinstance(X, list):
            pictures = " For pictures, take a backbone for pictures." if X.ndim > 2 else ""
            raise ValueError(
                f"Got X of shape {X.shape} and type {X.dtype}; expected texts: a list, array, Series or "
                f"one-column DataFrame of strings.{pictures}"
            )
        _refuse_files(X[0])
        checked = [check_text(text, row) for row, text in enumerate(X)]
        wrong = [error for error in checked if isinstance(error, UnreadableSampleError)]
        if wrong and not tolerant:
            count = f" ({len(wrong)} rows are not texts.)" if len(wrong) > 1 else ""
            raise ValueError(f"{wrong[0]}{count}")
        tokens = self._tokenize(checked)
        empty = [error for error in tokens if isinstance(error, UnreadableSampleError)]
        if empty and not tolerant:
            raise ValueError(str(empty[0]))
        return TextSamples(tokens, self.preprocessing.max_length if self._is_filled else 1)

    def _tokenize(self, texts: list[Any]) -> list[Any]:
        """Return the tokens of each text; errors stand where they stood, and where no token comes of a text."""
        most = self.preprocessing.max_length if self.max_length is None else self.max_length
        if most < self.preprocessing.least_length:  # the tokenizer would not cut off at all
            raise ValueError(
                f"Got max_length={self.max_length}, texts of {most} tokens, {self.preprocessing.least_length - 1} of "
                f"them special ones or of the prompt; expected at least {self.preprocessing.least_length}, which leave "
                "one of the text. Set max_length higher, or to None."
            )
        rows = [row for row, text in enumerate(texts) if isinstance(text, str)]
        result = list(texts)
        for start in range(0, len(rows), _TEXTS_AT_ONCE):
            some = rows[start : start + _TEXTS_AT_ONCE]
            for row, tokens in zip(some, self.preprocessing.encode([texts[row] for row in some], most), strict=True):
                result[row] = tokens or UnreadableSampleError(
                    f"Got X[{row}] = {shown(texts[row])}, but this network's tokenizer finds no tokens in it; "
                    "expected text. Leave this row out."
                )
        return result


def _refuse_files(row: Any) -> None:
    """Refuse names of pictures and sounds, which are strings too and would be read as texts."""
    import mimetypes

    ending = Path(row).suffix.lower() if isinstance(row, str) else ""
    kind = (mimetypes.guess_type(f"x{ending}")[0] or "").partition("/")[0]
    if kind in ("image", "audio") and os.path.isfile(row):
        what = {"image": "pictures", "audio": "sounds"}[kind]
        raise ValueError(
            f"Got X[0] = {shown(row)}, the path of a file, and this network takes texts, not {what}; expected the "
            f"texts themselves. For {what}, take a backbone for {what}."
        )


def check_text(text: Any, row: int) -> "str | UnreadableSampleError":
    """Return a text as str, or the error that stands for it.

    Parameters
    ----------
    text : object
        One row of X.
    row : int
        Its row, used in error messages.

    Returns
    -------
    str or UnreadableSampleError
        Bytes are read as UTF-8.
    """
    advice = "Leave out rows without a text, or put one there."
    if isinstance(text, bytes):
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            return UnreadableSampleError(
                f"Got X[{row}] = {shown(text)}, bytes that are not valid UTF-8 ({error.reason} at {error.start}); "
                'expected text. Decode them with the encoding that they have, such as text.decode("latin-1").'
            )
    if not isinstance(text, str):
        if (getattr(text, "ndim", 0) or 0) >= 2 or isinstance(text, Image.Image):
            got = f"{type(text).__name__} of shape {tuple(np.shape(text))}"
            advice = "This network takes texts; for pictures, take a backbone for pictures."
        else:
            got = shown(text)
        return UnreadableSampleError(f"Got X[{row}] = {got}; expected a string. {advice}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return UnreadableSampleError(
            f"Got X[{row}] = {shown(text)}, which holds half a character ({error.reason} at {error.start}); "
            'expected text. Read the file with its encoding, or with errors="replace".'
        )
    return str(text)
