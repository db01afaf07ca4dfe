"""Refuse X and y of impossible types, before a row is read, and say what to give instead.

Looking at what loads its samples when it is asked for them (a data set of torch, a generator) would read all of them.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from torch.utils.data import DataLoader, Dataset

from sktransfer._messages import shown
from sktransfer.inputs._encoded_files import is_cell, is_open

# By which of these an object says that an array can be made of it.
_ARRAY_LIKE = ("__array__", "__array_interface__", "__dlpack__", "__array_namespace__", "__dataframe__")
_PARTS = "X=[row[0] for row in {0}], y=[row[1] for row in {0}]"


def check_form(
    X: Any, name: str = "X", wanted: str = "several samples: an array, a list, a Series or a DataFrame"
) -> None:
    """Raise unless X is an array, a list or a table, or like one.

    Parameters
    ----------
    X : object
        Anything.
    name : str, default="X"
        What it is called.
    wanted : str
        What is expected.

    Raises
    ------
    ValueError
        If it is something else, with what to give instead.
    """
    if isinstance(X, str | os.PathLike | Image.Image):
        raise ValueError(
            f"Got {name}={shown(X)}; expected several samples. Put a single path, image or text into a list."
        )
    if isinstance(X, list | tuple | np.ndarray | torch.Tensor) or issparse(X):
        return
    loads = isinstance(X, Dataset | DataLoader) or _is_sliced(X) or (_has_columns(X) and not hasattr(X, "__array__"))
    if not loads and any(hasattr(X, method) for method in _ARRAY_LIKE):
        return
    raise ValueError(f"Got {name} of type {type(X).__name__}; expected {wanted}.{_instead(X, name)}")


def _is_sliced(X: Any) -> bool:
    """Tell skorch's view of a data set, which looks like an array, and loads a sample at each access."""
    return {"dataset", "indices"} <= set(getattr(X, "__dict__", {}))


def _has_columns(X: Any) -> bool:
    """Tell a data set of the package datasets, without asking a DataFrame for a column of that name."""
    return hasattr(type(X), "column_names") or "column_names" in getattr(X, "__dict__", {})


def _instead(X: Any, name: str) -> str:
    """Say what to give instead; only what an object holds already is looked at."""
    if isinstance(X, DataLoader):
        return _instead(X.dataset, "loader.dataset")
    held = getattr(X, "__dict__", {})
    if isinstance(X, Dataset):
        called = name if "." in name else "dataset"
        whole = held.get("dataset")
        if "indices" in held and "samples" in getattr(whole, "__dict__", {}):
            return (
                f" Give paths and labels: X=[{called}.dataset.samples[i][0] for i in {called}.indices], "
                f"y=[{called}.dataset.targets[i] for i in {called}.indices]."
            )
        if "samples" in held and "targets" in held:
            return (
                f" Give paths and labels: X=[path for path, _ in {called}.samples], y={called}.targets; or read the "
                "folder with sktransfer.load_image_folder."
            )
        if "tensors" in held:
            return f" Give its tensors: X, y = {called}.tensors."
        if "data" in held and "targets" in held:
            return f" Give what it holds: X={called}.data, y={called}.targets."
        return f" Take the samples out: {_PARTS.format(called)}; or give paths, which are read when they are needed."
    if is_cell(X) or is_open(X) or isinstance(X, bytes | bytearray | memoryview):
        return f" Put a single text or file into a list: {name}=[{name}]."
    if isinstance(X, Mapping):
        if "data" in X and "target" in X:
            return " Give its parts: X=bunch.data, y=bunch.target."
        return f" Give one of its values: {name}[{shown(next(iter(X), 'image'), 30)}]."
    if _has_columns(X):
        columns = X.column_names or ["image"]
        return (
            f" Give one column as a list: {name}=list(dataset[{shown(columns[0], 30)}]). Its columns: {shown(columns)}."
        )
    if isinstance(X, Iterable) or hasattr(X, "__getitem__"):
        return f" Put them into a list: {name}=list({name})."
    return ""


def check_rows(rows: "list[Any] | tuple[Any, ...]") -> None:
    """Raise if the rows of a list are samples together with something else.

    Parameters
    ----------
    rows : list or tuple
        X.

    Raises
    ------
    ValueError
        If the first row is a pair, such as a picture and its label or a waveform and its rate, or all rows are dicts
        that are not cells of a column.
    """
    if not rows:
        return
    first = rows[0]
    if isinstance(first, list | tuple) and 2 <= len(first) <= 16:
        place = next((place for place, value in enumerate(first) if _is_sample(value)), None)
        if isinstance(first, tuple) and [type(value) for value in first] == [str, int]:
            place = 0  # as in the `samples` of torchvision's ImageFolder
        if place is not None and any(_is_word_or_number(value) for value in first):
            kinds = ", ".join(type(value).__name__ for value in first[:4])
            raise ValueError(
                f"Got X[0] as a {type(first).__name__} of ({kinds}); expected the sample alone. Take the samples out: "
                f"X=[row[{place}] for row in X], and give labels as y, the rate of sounds as sampling_rate."
            )
    if isinstance(first, Mapping) and not is_cell(first) and all(isinstance(row, Mapping) for row in rows):
        raise ValueError(
            f"Got rows of X that are dicts, with the keys {shown(list(first))}; expected the samples alone. Take them "
            f"out: X=[row[{shown(next(iter(first), 'image'), 30)}] for row in X]; the rate of sounds is sampling_rate."
        )


def _is_sample(value: Any) -> bool:
    encoded = isinstance(value, os.PathLike | bytes | bytearray) or is_cell(value) or is_open(value)
    return encoded or isinstance(value, Image.Image) or (getattr(value, "ndim", 0) or 0) >= 1


def _is_word_or_number(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float) or getattr(value, "ndim", None) == 0


def check_order(X: Any, y: Any) -> None:
    """Raise if X holds labels and y samples.

    Parameters
    ----------
    X, y : object
        As they were given to `fit`.

    Raises
    ------
    ValueError
        If y holds pictures, sounds or files, or texts that are all different, and X one word or number per row.
    """
    labels, samples = _first_rows(X), _first_rows(y)
    if not labels or not samples or not all(map(_is_word_or_number, labels)):
        return
    if _looks_like_file(labels[0]) or not (_looks_like_samples(samples) or _are_texts(samples, labels)):
        return
    shape = tuple(getattr(samples[0], "shape", ()))
    sample = f"an array of shape {shape}" if shape else shown(samples[0])
    raise ValueError(
        f"Got X[0] = {shown(labels[0])} and y[0] = {sample}: X looks like labels, and y like samples; expected the "
        "samples first. Call fit(X, y), with the samples as X, and as y a label or number for each."
    )


def _first_rows(values: Any) -> list[Any]:
    """Return at most a hundred rows of what has them at hand; none of anything else, which others refuse."""
    if isinstance(values, list | tuple):
        return list(values[:100])
    if isinstance(values, np.ndarray) or (isinstance(values, torch.Tensor) and values.layout is torch.strided):
        return list(values[:100]) if values.ndim else []
    return list(values.iloc[:100]) if hasattr(values, "iloc") and getattr(values, "ndim", 0) == 1 else []


def _looks_like_samples(rows: list[Any]) -> bool:
    first = rows[0]
    sides = getattr(first, "ndim", 0) or 0
    return sides >= 2 or isinstance(first, Image.Image | os.PathLike) or _looks_like_file(first)


def _looks_like_file(row: Any) -> bool:
    return isinstance(row, str) and Path(row).suffix != "" and os.path.isfile(row)


def _are_texts(rows: list[Any], labels: list[Any]) -> bool:
    """Tell whether rows are texts beside labels: all different, most of several words, while labels come again."""
    if not all(isinstance(row, str) for row in rows) or len(rows) < 4 or len(set(rows)) < len(rows):
        return False
    several = sum(len(row.split()) > 2 for row in rows)
    return several > len(rows) / 2 and len(set(labels)) <= len(labels) / 2


def as_array(value: Any, name: str) -> np.ndarray:
    """Turn a tensor, or anything else that is like an array, into one of NumPy's.

    Parameters
    ----------
    value : array-like
        An array, a tensor, a table.
    name : str
        What it is called.

    Returns
    -------
    ndarray
        Without a copy where that is possible.

    Raises
    ------
    ValueError
        If values are masked, complex or of a type that NumPy does not have, or a tensor is sparse or holds none.
    """
    if isinstance(value, torch.Tensor):
        value = _from_tensor(value, name)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"Got {name} as a masked array in which {int(np.ma.getmaskarray(value).sum())} values are masked; "
            f"expected all. Fill them, with {name}.filled(value), or leave these samples out."
        )
    found = np.asarray(value)
    if found.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: got {name} of type {found.dtype}; expected real numbers. Give {name}.real, "
            f"or numpy.abs({name})."
        )
    if found.dtype.kind == "V":
        fields = f" with the fields {shown(list(found.dtype.names))}" if found.dtype.names else ""
        advice = f"{name}[{found.dtype.names[0]!r}]" if found.dtype.names else f"{name}.astype('float32')"
        raise ValueError(
            f"Got {name} of type {shown(found.dtype.name)}{fields}; expected a plain array of one type. Give {advice}."
        )
    return found


def _from_tensor(tensor: torch.Tensor, name: str) -> np.ndarray:
    got, advice = "", ""
    if tensor.is_meta:
        got, advice = "on the device 'meta', which holds no values", "Give the values."
    elif tensor.is_quantized:
        got, advice = f"of the quantized type {tensor.dtype}", f"Give {name}.dequantize()."
    elif tensor.is_nested:
        got, advice = "that is nested", f"Give a list of tensors: {name}.unbind()."
    elif tensor.layout != torch.strided:
        got, advice = f"of layout {tensor.layout}", f"Give {name}.to_dense()."
    else:
        try:
            return np.asarray(tensor.detach().cpu().resolve_conj().resolve_neg().numpy())
        except (TypeError, RuntimeError):
            got, advice = f"of type {tensor.dtype}, which NumPy does not have", f"Give {name}.float()."
    raise ValueError(f"Got {name} as a tensor {got}; expected dense values of a type that NumPy has. {advice}")
