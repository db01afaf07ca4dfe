"""Parameters and labels as JSON, and back with the type they had. What is read is data: no name in it is looked up.

JSON knows fewer types than Python, so whatever is not one of its own is written as `{"type": ..., ...}`.
"""

import math
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import numpy as np

# Kinds of arrays that may be written: booleans, integers, floats, text, bytes, and objects that are one of these.
_KINDS = "biufUSO"


def to_plain(value: Any) -> Any:
    """Return what stands for a value in JSON.

    Parameters
    ----------
    value : object
        `None`, bool, int, float, str, bytes, path, RandomState, a numpy scalar or array of these, or a list, tuple or
        dict of them.

    Returns
    -------
    object
        For `json.dumps`.

    Raises
    ------
    TypeError
        If it is anything else, code for example.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return [to_plain(item) for item in value]
    if kind is float:
        return {"type": "float", "value": repr(value)}
    if kind is tuple:
        return {"type": "tuple", "items": [to_plain(item) for item in value]}
    if kind is dict:
        return {"type": "dict", "items": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    if kind is bytes:
        return {"type": "bytes", "value": value.hex()}
    if isinstance(value, PurePath):
        return {"type": "path", "value": str(value)}
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS and not isinstance(value.item(), np.generic):
        return {"type": "scalar", "dtype": value.dtype.str, "value": to_plain(value.item())}
    if kind is np.ndarray and value.dtype.kind in _KINDS and value.dtype.names is None:
        items = [to_plain(item) for item in value.ravel().tolist()]
        return {"type": "array", "dtype": value.dtype.str, "shape": list(value.shape), "items": items}
    if kind is np.random.RandomState:
        return {"type": "RandomState", "state": to_plain(value.get_state(legacy=True))}
    raise TypeError(f"{value!r} of type {kind.__module__}.{kind.__qualname__}")


def from_plain(plain: Any) -> Any:
    """Return the value that `to_plain` was given.

    Parameters
    ----------
    plain : object
        From `json.loads`.

    Returns
    -------
    object
        Of the same type and value.

    Raises
    ------
    ValueError
        If it is nothing that `to_plain` returns.
    """
    if isinstance(plain, list):
        return [from_plain(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    kind = plain.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"a value of unknown type {kind!r}")
    try:
        return _READERS[kind](plain)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value of type {kind!r} that is not whole") from error


def _read_array(plain: dict[str, Any]) -> np.ndarray:
    values = np.empty(len(plain["items"]), dtype=_dtype(plain["dtype"]))
    values[:] = [from_plain(item) for item in plain["items"]]
    return values.reshape(plain["shape"])


def _read_random_state(plain: dict[str, Any]) -> np.random.RandomState:
    random_state = np.random.RandomState()
    random_state.set_state(from_plain(plain["state"]))
    return random_state


def _dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(str(name))
    if dtype.kind not in _KINDS or dtype.names is not None:
        raise ValueError(f"an array of dtype {name!r}")
    return dtype


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda plain: float(plain["value"]),
    "tuple": lambda plain: tuple(from_plain(plain["items"])),
    "dict": lambda plain: {from_plain(key): from_plain(item) for key, item in plain["items"]},
    "bytes": lambda plain: bytes.fromhex(plain["value"]),
    "path": lambda plain: Path(plain["value"]),
    "scalar": lambda plain: np.array(from_plain(plain["value"]), dtype=_dtype(plain["dtype"]))[()],
    "array": _read_array,
    "RandomState": _read_random_state,
}
