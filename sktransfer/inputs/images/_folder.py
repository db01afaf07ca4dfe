"""List a folder of class folders, as scikit-learn's `load_files` does, with images that are not opened.

Linked folders are followed. What is left out is counted in a warning.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image
from sklearn.utils import Bunch

from sktransfer._messages import shortened
from sktransfer.inputs.images._dicom import ENDINGS as DICOM_ENDINGS
from sktransfer.inputs.images._integrity import FORMATS

# How folders are called that hold a part of the samples each, instead of a class.
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}
# What other programs leave behind, beside all that begins with a dot.
_LEFT_BEHIND = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin"}
_LEFT_BEHIND |= {"system volume information", "lost+found"}


# The most lines of classes that the repr of a folder shows.
_CLASSES_SHOWN = 6


class ImageFolder(Bunch):
    """Result of `load_image_folder`: a `Bunch` with a short repr.

    Parameters
    ----------
    **kwargs : dict
        The keys and their values.
    """

    def __repr__(self) -> str:
        counts = Counter(np.asarray(self.get("target", ())).tolist())
        lines = [f"{sum(counts.values())} images of {len(counts)} classes"] if counts else []
        few = list(counts)[: _CLASSES_SHOWN if len(counts) <= _CLASSES_SHOWN else _CLASSES_SHOWN - 1]
        width = max((len(shortened(str(name), 40)) for name in few), default=0)
        digits = len(str(max((counts[name] for name in few), default=0)))
        lines += [f"  {shortened(str(name), 40):{width}}  {counts[name]:{digits}}" for name in few]
        lines += [f"  and {len(counts) - len(few)} more classes"] if len(few) < len(counts) else []
        if len(self.get("filenames", ())):
            lines.append(f"first: {_short(str(self['filenames'][0]))}")
        if self.get("skipped"):
            lines.append(f"skipped files: {len(self['skipped'])}")
        return "\n".join([*lines, f"keys: {', '.join(self)}"])


@overload
def load_image_folder(
    path: str | os.PathLike[str],
    *,
    split: str | Sequence[str] | None = None,
    return_X_y: Literal[False] = False,
    as_frame: bool = False,
) -> ImageFolder: ...


@overload
def load_image_folder(
    path: str | os.PathLike[str],
    *,
    split: str | Sequence[str] | None = None,
    return_X_y: Literal[True],
    as_frame: bool = False,
) -> tuple[Any, Any]: ...


def load_image_folder(
    path: str | os.PathLike[str],
    *,
    split: str | Sequence[str] | None = None,
    return_X_y: bool = False,
    as_frame: bool = False,
) -> ImageFolder | tuple[Any, Any]:
    """List the images in a folder that contains one folder per class.

    Symbolic links to folders are followed: each folder once per class, and never back to `path` or above it. Files and
    folders whose names start with a dot are ignored, and so are `__MACOSX`, `Thumbs.db` and the like.

    Parameters
    ----------
    path : path-like
        Folder that contains one folder per class. Images may lie at any depth in these. Files next to the class folders
        are skipped, and so are files whose names do not end like those of images that this package reads.
    split : str or list of str, default=None
        Name of the folder below `path` that contains the class folders, such as `"train"`. With several names, the
        images are joined. A class may be missing in some of them.
    return_X_y : bool, default=False
        Whether to return only the pair `(data, target)`.
    as_frame : bool, default=False
        Whether to return pandas objects: `data` as a DataFrame with one column, `"path"`, `target` and `target_index`
        as Series, and all three as the DataFrame `frame`. This needs pandas.

    Returns
    -------
    Bunch or tuple
        `data`: object ndarray of shape (n_samples,), the paths as str, sorted within each class, one split after
        another;
        `target`: str ndarray of shape (n_samples,), the class of each image, so that `predict` answers with names;
        `target_index`: int ndarray of shape (n_samples,), the same as indices into `target_names`;
        `target_names`: list of str, the class folders, sorted;
        `filenames`: str ndarray of shape (n_samples,), the same paths as in `data`;
        `skipped`: list of str, the paths of the files that were left out, sorted.
        It prints as the number of images per class. With `return_X_y=True`, only the pair (`data`, `target`).

    Raises
    ------
    ImportError
        If `as_frame=True` and pandas is not installed.
    FileNotFoundError
        If the folder does not exist.
    PermissionError
        If a folder cannot be read.
    ValueError
        If there are no class folders, if one of them contains no image, or if the folders are splits such as train and
        val.

    Warns
    -----
    UserWarning
        If files were skipped. The message counts them by the endings of their names.

    Examples
    --------
    >>> from sktransfer import load_image_folder
    >>> load_image_folder("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: Got 'nowhere', which is not a folder; expected a folder that holds one folder per class.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"Got {_short(str(path))}, which is not a folder; expected a folder that holds one folder per class."
        )
    skipped: list[str] = []
    classes: dict[str, list[str]] = {}
    for top in [root] if split is None else _split_folders(root, split):
        folders = _class_folders(top, skipped)
        if split is None and {name.lower() for name in folders} <= _SPLITS:
            raise ValueError(
                f"Got {_short(str(top))}, whose folders are {_listed(folders)}; expected one folder per class. "
                f"Choose one or several of them: split={folders[0]!r} or split={folders[:2]!r}."
            )
        for name in folders:
            classes.setdefault(name, []).extend(_images_of(top, name, skipped))
    _tell(skipped, sum(map(len, classes.values())))
    names = sorted(classes)
    files = [file for name in names for file in classes[name]]
    index = np.repeat(np.arange(len(names)), [len(classes[name]) for name in names])
    columns = {"data": np.array(files, dtype=object), "target": np.array(names)[index], "target_index": index}
    if as_frame:
        columns = _as_frames(columns)
    if return_X_y:
        return columns["data"], columns["target"]
    return ImageFolder(**columns, target_names=names, filenames=np.array(files), skipped=sorted(skipped))


def _as_frames(columns: dict[str, Any]) -> dict[str, Any]:
    """Return a DataFrame of one column, two Series and the frame that holds all three."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("as_frame=True needs pandas. It is not installed: pip install pandas.") from error
    frame = pd.DataFrame({"path" if name == "data" else name: column for name, column in columns.items()})
    return {"data": frame[["path"]], "target": frame["target"], "target_index": frame["target_index"], "frame": frame}


def _split_folders(root: Path, split: str | Sequence[str]) -> list[Path]:
    names = [split] if isinstance(split, str) else list(split)
    there = _folders(root)
    wrong = [name for name in names if not isinstance(name, str) or name not in there]
    if not names or wrong or len(set(names)) < len(names):
        raise ValueError(
            f"Got split={_short(split)}; expected different folders of {_short(str(root))}, which holds "
            f"{_listed(there)}. Name one of these, or a list of them."
        )
    return [root / name for name in names]


def _class_folders(top: Path, skipped: list[str]) -> list[str]:
    """Return the class folders, and note the files beside them."""
    there, around = _folders(top), _around(top)
    names = [name for name in there if (top / name).resolve() not in around]
    if not names:
        raise ValueError(f"Got {_short(str(top))}, which holds no folders; expected one folder per class.")
    skipped += [str(top / name) for name in _entries(top) if name not in there]
    return names


def _folders(folder: Path) -> list[str]:
    return [name for name in _entries(folder) if (folder / name).is_dir()]


def _entries(folder: Path) -> list[str]:
    """Return the names in a folder that count, sorted."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except PermissionError as error:
        raise PermissionError(
            f"Got {_short(str(folder))}, which may not be read; expected readable folders. Change its permissions, or "
            "move it away."
        ) from error
    return sorted(name for name in names if not name.startswith(".") and name.lower() not in _LEFT_BEHIND)


def _around(top: Path) -> set[Path]:
    """Return the folders that no link is followed to: all classes lie in them."""
    return {top.resolve(), *top.resolve().parents}


def _images_of(top: Path, name: str, skipped: list[str]) -> list[str]:
    endings = image_endings()
    found: list[str] = []
    others: list[str] = []
    for file in _files_below(top / name, _around(top)):
        readable = file.suffix.lower() in endings and file.is_file()
        (found if readable else others).append(str(file))
    if not found:
        held = f" but {len(others)} other files ({_counted(others)})" if others else ""
        raise ValueError(
            f"Got {_short(str(top / name))}, which holds no images{held}; expected at least one in each class folder. "
            "Remove the folder, or fill it."
        )
    skipped += others
    return sorted(found)


def _files_below(folder: Path, around: set[Path]) -> Iterator[Path]:
    """Yield what is not a folder below a folder; of several ways to one folder, one is gone."""
    seen, waiting = set(around), [folder]
    while waiting:
        folder = waiting.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        paths = [folder / name for name in _entries(folder)]
        folders = {path for path in paths if path.is_dir()}
        yield from (path for path in paths if path not in folders)
        waiting += sorted(folders, reverse=True)


def image_endings() -> set[str]:
    """Return the endings of the files that can be read, and no others."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS} | {*DICOM_ENDINGS}


def _tell(skipped: list[str], n_found: int) -> None:
    if skipped:
        warnings.warn(
            f"Left out {len(skipped)} of {len(skipped) + n_found} files ({_counted(skipped)}): their names do not "
            "end like those of images that this package reads, they are not in a class folder, or they are broken "
            "links. Convert or move them. Their paths are in `skipped`.",
            UserWarning,
            stacklevel=3,
        )


def _counted(files: list[str]) -> str:
    counts = Counter(Path(file).suffix.lower()[:20] or "no ending" for file in files).most_common()
    shown = [f"{ending}: {count}" for ending, count in counts[:8]]
    return ", ".join([*shown, "..."] if len(counts) > len(shown) else shown)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:30]) for name in names[:6])
    return f"{shown}, ..." if len(names) > 6 else shown or "none"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 250 else f"{text[:100]}...{text[-100:]}"
