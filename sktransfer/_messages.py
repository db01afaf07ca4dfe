"""How values, names, paths and errors stand in a message, which has to stay short whatever they are."""

import os
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


def shown(value: Any, most: int = 120) -> str:
    """Show a value as Python writes it, in one line, shortened in the middle.

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
    short = reprlib.Repr()
    short.maxstring = short.maxother = most
    short.maxlevel, short.maxlist, short.maxdict = 3, 5, 3
    return shortened(short.repr(os.fspath(value) if isinstance(value, os.PathLike) else value), most + 2)


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
    """Say which known names come nearest to one that is not among them.

    Parameters
    ----------
    name : object
        What was asked for.
    known : iterable of str
        What there is.

    Returns
    -------
    str
        A clause for an error message.
    """
    known = list(dict.fromkeys(known))
    near = get_close_matches(str(name), known, n=3, cutoff=0.5)
    if near:
        return "the closest are " + ", ".join(map(repr, near))
    first = ", ".join(map(repr, known[:8]))
    return f"there are {first}" + (f" and {len(known) - 8} more" if len(known) > 8 else "")


def check_choice(parameter: str, value: object, known: Iterable[str]) -> None:
    """Raise if a parameter's value is not one of the known names.

    Parameters
    ----------
    parameter : str
        The parameter's name, for the message.
    value : object
        What was given.
    known : iterable of str
        What may be given.

    Raises
    ------
    ValueError
        With the closest known names.
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"Got {parameter}={value!r}; expected one of {len(known)} names: {closest(value, known)}.")
