"""Turn values into data and back, with their types: parameters and labels as JSON, tensors as arrays.

What is read is data: no name in it is looked up. JSON knows fewer types than Python, so whatever is not one of its own
is written as `{"type": ..., ...}`.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

# Kinds of arrays that may be written: booleans, integers, floats, text, bytes, and objects that are one of these.
_KINDS = "biufUSO"

# Bytes that an array may take whatever is in it, and those for each character or number in it: strings of numpy are as
# long as the longest, but what claims gigabytes for a few letters was not written here.
_LEAST_MEMORY = 2**24
_MEMORY_OF_AN_ITEM = 256


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
    items = [from_plain(item) for item in plain["items"]]
    values = np.empty(len(items), dtype=_dtype(plain["dtype"], items))
    values[:] = items
    return values.reshape(plain["shape"])


def _read_scalar(plain: dict[str, Any]) -> Any:
    value = from_plain(plain["value"])
    return np.array(value, dtype=_dtype(plain["dtype"], [value]))[()]


def _read_random_state(plain: dict[str, Any]) -> np.random.RandomState:
    random_state = np.random.RandomState()
    random_state.set_state(from_plain(plain["state"]))
    return random_state


def _dtype(name: Any, items: list[Any]) -> np.dtype[Any]:
    """Return the type of an array of some items, whose memory is in proportion to them."""
    dtype = np.dtype(str(name)[:50])
    if dtype.kind not in _KINDS or dtype.names is not None:
        raise ValueError(f"an array of dtype {str(name)[:50]!r}")
    held = sum(len(item) for item in items) if dtype.kind in "US" else len(items)
    if dtype.itemsize * len(items) > _LEAST_MEMORY + _MEMORY_OF_AN_ITEM * held:
        raise ValueError(
            f"an array of dtype {dtype.str!r} that claims {dtype.itemsize * len(items)} bytes for {held} characters"
        )
    return dtype


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda plain: float(plain["value"]),
    "tuple": lambda plain: tuple(from_plain(plain["items"])),
    "dict": lambda plain: {from_plain(key): from_plain(item) for key, item in plain["items"]},
    "bytes": lambda plain: bytes.fromhex(plain["value"]),
    "path": lambda plain: Path(plain["value"]),
    "scalar": _read_scalar,
    "array": _read_array,
    "RandomState": _read_random_state,
}


# Tensors

# Types of the same size that numpy has, for those that it lacks, such as bfloat16.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def to_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return tensors as arrays, which every way of writing an object down knows.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        On any device.

    Returns
    -------
    dict of str to ndarray, or to tuple of str and ndarray
        With the memory of the tensors, where that is the CPU's; one that is there under two names is one array. Where
        numpy lacks the type, its name and the bits.
    """
    arrays: dict[str, Any] = {}
    known: dict[Any, Any] = {}
    for name, tensor in tensors.items():
        here = tensor.detach().cpu()
        place = here.data_ptr(), here.dtype, here.shape, here.stride()
        if place not in known:
            known[place] = _to_array(here)
        arrays[name] = known[place]
    return arrays


def from_arrays(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors that `to_arrays` was given.

    Parameters
    ----------
    arrays : mapping
        What it returned.

    Returns
    -------
    dict of str to Tensor
        With the memory of the arrays, unless that is a file's or may not be written.

    Raises
    ------
    ValueError
        If it is nothing that `to_arrays` returns.
    """
    try:
        return {name: _to_tensor(array) for name, array in arrays.items()}
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"arrays that are not those of tensors ({error})") from error


def _to_array(tensor: torch.Tensor) -> Any:
    try:
        return tensor.numpy()
    except TypeError:
        bits = tensor.contiguous().view(_BITS[tensor.element_size()])
        return str(tensor.dtype).removeprefix("torch."), bits.numpy()


def _to_tensor(array: Any) -> torch.Tensor:
    kind, array = array if isinstance(array, tuple) else (None, array)
    mapped = isinstance(array, np.memmap)  # as joblib hands large arrays to its processes
    tensor = torch.from_numpy(np.array(array) if mapped or not array.flags.writeable else array)
    if kind is None:
        return tensor
    dtype = getattr(torch, kind)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{kind!r} is not a type of tensors")
    return tensor.view(dtype)
