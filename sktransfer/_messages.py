"""Show values, names, paths and errors in messages that stay short."""

import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import numpy as np

# How many names a message holds, where all of them are to be named.
_NAMED = 8


class _Plain(reprlib.Repr):
    """Writes NumPy's scalars as those of Python that they equal, wherever they stand: `'a'`, not `np.str_('a')`."""

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, np.generic):
            plain = x.item()
            return str(x) if isinstance(plain, np.generic) else super().repr1(plain, level)
        if isinstance(x, np.ndarray) and x.dtype.kind == "O":
            return f"array({super().repr1(x.tolist(), level)}, dtype=object)"
        return super().repr1(x, level)


def shown(value: Any, most: int = 120) -> str:
    """Show a value as Python writes it, in one line, shortened in the middle; NumPy's scalars as those of Python.

    Parameters
    ----------
    value : object
        Anything; a path is shown as its text.
    most : int, default=120
        Characters.

    Returns
    -------
    str
        In quotes where it is a text or a path.
    """
    short = _Plain()
    short.maxstring = short.maxother = most
    short.maxlevel, short.maxlist, short.maxdict = 3, 5, 3
    return shortened(short.repr(os.fspath(value) if isinstance(value, os.PathLike) else value), most + 2)


def without_numpy(text: str) -> str:
    """Write NumPy's scalars in a message of another library as those of Python.

    Parameters
    ----------
    text : str
        Such as scikit-learn's `"... Got np.int64(0) instead."`.

    Returns
    -------
    str
        Such as `"... Got 0 instead."`.
    """
    quoted = r"\bnp\.(?:str|bytes)_\((b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\")\)"
    text = re.sub(quoted, r"\1", text)
    return re.sub(r"\bnp\.(?:(True|False)_\b|[a-z]\w*\(([^()]*)\))", r"\1\2", text)


def shortened(text: str, most: int = 330) -> str:
    """Leave out the middle of a text, and bring it into one line.

    Parameters
    ----------
    text : str
        Anything.
    most : int, default=330
        Characters.

    Returns
    -------
    str
        With at most so many.
    """
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[5 - most // 2 :]}"


def name_some(values: Sequence[str], room: int = 380) -> str:
    """Name the first five of many.

    Parameters
    ----------
    values : sequence of str
        At least one.
    room : int, default=380
        Characters that they may take; longer ones are shortened.

    Returns
    -------
    str
        Separated by commas.
    """
    first = [repr(str(value)) for value in values[:5]]
    return ", ".join(first if sum(map(len, first)) <= room else [shortened(value, room // 5 - 2) for value in first])


@contextmanager
def named_extra(what: str, extra: str, more: str = "") -> Iterator[None]:
    """Say how to install an optional package, where the import inside fails.

    Parameters
    ----------
    what : str
        What the package is for, with its name at the end, as the start of a sentence.
    extra : str
        The extra of this package that brings it.
    more : str, default=""
        What else there is to say.

    Yields
    ------
    None
        For the import.

    Raises
    ------
    ImportError
        If the package is not there, or a library that it needs.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        raise ImportError(f'{what}. It is not installed: pip install "sktransfer[{extra}]"{more}.') from error


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the start of what an error says, without the advice that may follow.

    Parameters
    ----------
    error : BaseException
        Any.
    most : int, default=160
        Characters.

    Returns
    -------
    str
        In one line, to stand in a sentence.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = (lines or [type(error).__name__])[0].rstrip(".")
    line = f"{line} {lines[1]}" if line.endswith(":") and len(lines) > 1 else line
    line = f"{type(error).__name__}: {line}" if isinstance(error, KeyError | AttributeError | TypeError) else line
    return line if len(line) <= most else line[: most - 3] + "..."


# Choosing by name: an unknown name is answered with the closest ones that exist


def closest(name: object, known: Iterable[str]) -> str:
    """Say which names are known, and which of them come nearest to one that is not; case and punctuation do not count.

    Parameters
    ----------
    name : object
        What was asked for.
    known : iterable of str
        What there is.

    Returns
    -------
    str
        The end of a sentence that begins with "expected": all names where they are few, and what may have been meant.
    """
    known = list(dict.fromkeys(known))
    all_of_them = listed(known) if len(known) <= _NAMED else f"one of {len(known)} names"
    near = nearest(name, known)
    if near:
        return f"{all_of_them}. Did you mean {listed(near)}?"
    return f"{all_of_them}." if len(known) <= _NAMED else f"{all_of_them}, such as {listed(known[:3])}."


def nearest(name: object, known: Iterable[str]) -> list[str]:
    """Return the known names that come nearest to one that is not among them.

    Parameters
    ----------
    name : object
        What was asked for.
    known : iterable of str
        What there is.

    Returns
    -------
    list of str
        At most three names. Only one if it differs only in case, blanks, hyphens and the like. Empty if no name is
        near.
    """
    if not isinstance(name, str):
        return []
    plain = {_plain(one): one for one in reversed(list(known))}  # of several that are alike, the first
    if _plain(name) in plain:
        return [plain[_plain(name)]]
    return [plain[one] for one in get_close_matches(_plain(name), plain, n=3, cutoff=0.6)]


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]|_", "", name.casefold()) or name


def listed(names: Sequence[object]) -> str:
    """Name all of a few, as a choice among them.

    Parameters
    ----------
    names : sequence of object
        At least one.

    Returns
    -------
    str
        Such as `"'a', 'b' or 'c'"`.
    """
    *before, last = map(shown, names)
    return f"{', '.join(before)} or {last}" if before else last


def check_choice(parameter: str, value: object, known: Iterable[str], more: str = "") -> None:
    """Raise if a parameter's value is not one of the known names.

    Parameters
    ----------
    parameter : str
        The parameter's name, for the message.
    value : object
        What was given.
    known : iterable of str
        What may be given.
    more : str, default=""
        What else there is to say, as a sentence.

    Raises
    ------
    ValueError
        With all known names where they are few, and with those that come nearest.
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        more = f" {more}" if more else ""
        raise ValueError(f"Got {parameter}={shown(value)}; expected {closest(value, known)}{more}")
