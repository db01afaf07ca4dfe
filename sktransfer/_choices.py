"""Choosing by name: an unknown name is answered with the closest ones that exist."""

from collections.abc import Iterable
from difflib import get_close_matches


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
    shown = ", ".join(map(repr, known[:8]))
    return f"there are {shown}" + (f" and {len(known) - 8} more" if len(known) > 8 else "")


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
