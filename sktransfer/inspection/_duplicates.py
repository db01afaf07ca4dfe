"""Group copies of samples, so that no copy is trained on while another one is tested.

Copies are chained: where the first is like the second and the second like the third, all three are one group.
"""

import hashlib
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils.validation import check_is_fitted

from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._messages import shown
from sktransfer.inputs._containers import is_missing
from sktransfer.inputs._encoded_files import EncodedFile
from sktransfer.inputs._files_of_rows import FilesOfRows, without_missing_files
from sktransfer.inputs._remote_files import is_address
from sktransfer.inputs._rows import Rows

# Rows whose similarities to all others are computed at once: memory grows with the number of samples, not its square.
BLOCK = 512


def duplicate_groups(X: Any, *, backbone: Any = None, threshold: float = 0.95) -> np.ndarray:
    """Find samples that are copies of each other, as groups for :class:`sklearn.model_selection.GroupKFold`.

    If a copy of a training sample is in the test set, the score is too high, because the model has seen it. Groups keep
    copies together.

    Parameters
    ----------
    X : array-like
        Images, texts or sounds, as :class:`sktransfer.PretrainedFeatureExtractor` takes them, or vectors. Strings are
        paths if one of them is the path of a file, and texts otherwise.
    backbone : None, str, nn.Module, callable or estimator, default=None
        `None` finds only identical content: files with the same bytes, arrays and images with the same pixels,
        identical texts. A backbone also finds samples with similar features. It is a name, a network, a function, an
        extractor, or a fitted estimator with `transform`. Cached features are used if there are any.
    threshold : float, default=0.95
        Two samples are copies if the cosine similarity of their features is at least this. We measured it on 60 images
        per data set, with three networks. 0.95 mistook no photo, small image or drawing for a copy of another one. It
        found nearly all copies of photos that were made brighter, and 20 to 100 % of those that were mirrored, cropped
        or turned. 0.9 found 80 to 100 % of all of these, but with one network it mistook half of the small images for
        copies. Images that all look alike, such as spectrograms, need more than 0.95. See `benchmarks/duplicates.py`.

    Returns
    -------
    int ndarray of shape (n_samples,)
        Group of each sample, numbered from 0 in the order of their first samples. A sample without a copy is a group of
        its own.

    Raises
    ------
    ValueError
        If `threshold` is not above 0 and at most 1, if a file cannot be read, or if X is not as described.
    FileNotFoundError
        If a file in X does not exist.

    See Also
    --------
    sktransfer.rank_backbones : Keeps groups together, with `groups`.

    Examples
    --------
    >>> from sktransfer.inspection import duplicate_groups
    >>> duplicate_groups(["a good film", "a dull film", "a good film"])
    array([0, 1, 0])
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number) or not 0 < threshold <= 1:
        raise ValueError(f"Got threshold={shown(threshold)}; expected a cosine similarity above 0 and at most 1.")
    rows = Rows(X)
    groups = _numbered(_contents(rows.values))
    if backbone is None:
        return groups
    features = _features(backbone, X)
    if len(features) != len(groups):
        raise ValueError(
            f"Got {len(features)} rows of features for {len(groups)} samples; expected one row per sample."
        )
    _, first = np.unique(groups, return_index=True)
    return _numbered(list(_joined(features[first], float(threshold))[groups]))


def _numbered(values: list[Any]) -> np.ndarray:
    """Return the number of each value, counted in the order in which they come."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.intp)


# The same content


def _contents(rows: Any) -> list[Hashable]:
    """Return what is equal where the content of rows is."""
    if not isinstance(rows, list):
        rows = rows.toarray() if hasattr(rows, "toarray") else rows
        return [_of_array(row) for row in rows]
    strings = [row for row in rows if isinstance(row, str)]
    are_texts = not any(is_address(text) or os.path.isfile(text) for text in strings)
    files = FilesOfRows()
    found: list[Any] = [
        None if are_texts and isinstance(row, str) else files.of(row, f"row {number}")
        for number, row in enumerate(rows)
    ]
    without_missing_files([file for file in found if file is not None], "a sample", tolerant=False)
    return [
        _of_row(row, number) if file is None else _of_file(file, number)
        for number, (row, file) in enumerate(zip(rows, found, strict=True))
    ]


def _of_file(file: str | EncodedFile, number: int) -> Hashable:
    if isinstance(file, EncodedFile):
        return "file", file.digest(number)
    with Path(file).open("rb") as opened:
        return "file", hashlib.file_digest(opened, "sha256").digest()


def _of_row(row: Any, number: int) -> Hashable:
    if isinstance(row, str):
        return "text", row
    if isinstance(row, Image.Image):
        return _of_array(np.asarray(row.convert("RGBA") if row.mode == "P" else row))
    if isinstance(row, Mapping):
        return "sound", row.get("sampling_rate"), _of_array(np.asarray(row["array"]))
    if is_missing(row):
        return "nothing", number  # which is not a copy of another missing one
    return _of_array(np.asarray(row))


def _of_array(values: np.ndarray) -> Hashable:
    if values.dtype == object:
        return "values", tuple(values.ravel().tolist())
    return "array", str(values.dtype), values.shape, hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


# Near by features


def _features(backbone: Any, X: Any) -> np.ndarray:
    if isinstance(backbone, PretrainedFeatureExtractor) and "backbone_" not in vars(backbone):
        made = type(backbone)(**backbone.get_params(deep=False))
        return made.fit(X).transform(X)
    if hasattr(backbone, "transform"):
        check_is_fitted(backbone)
        return np.asarray(backbone.transform(X))
    return PretrainedFeatureExtractor(backbone).fit(X).transform(X)


def _joined(features: np.ndarray, threshold: float) -> np.ndarray:
    """Return the number of the group of each row: rows as similar as that, and those that a chain of such ones joins.

    Rows that are NaN, of samples that could not be read, are like no other.
    """
    n = len(features)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    known = np.isfinite(norms).ravel() & (norms > 0).ravel()
    unit = np.where(known[:, None], features / np.where(known[:, None], norms, 1), 0).astype(np.float32)
    groups = np.arange(n)
    for start in range(0, n, BLOCK):
        near, other = np.nonzero(unit[start : start + BLOCK] @ unit[start:].T >= threshold)
        # What is joined already is held by one link for each row, not by all pairs.
        left, right = np.concatenate([near + start, np.arange(n)]), np.concatenate([other + start, groups])
        links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(n, n))
        _, component = connected_components(links, directed=False)
        groups = np.unique(component, return_index=True)[1][component]
    return groups
