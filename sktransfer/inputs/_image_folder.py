"""A folder of class folders, read as scikit-learn's `load_files` reads one, but for images and without opening them."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.utils import Bunch

# Formats that Pillow names, for it writes or recognises them, but never decodes.
_NEVER_DECODED = {"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF"}


def load_image_folder(path: str | os.PathLike[str]) -> Bunch:
    """List the images of a folder that holds one folder for each class.

    Parameters
    ----------
    path : path-like
        Holds a folder for each class, whose images may lie at any depth. Files whose names do not end as those of
        images that Pillow reads, and files and folders that begin with a dot, are passed over.

    Returns
    -------
    Bunch
        `data`: object ndarray of shape (n_samples,), the paths as str, sorted within each class;
        `target`: int ndarray of shape (n_samples,), indices into `target_names`;
        `target_names`: list of str, the class folders, sorted;
        `filenames`: str ndarray of shape (n_samples,), the same paths.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no class folders, or one of them no image.

    Examples
    --------
    >>> from sktransfer import load_image_folder
    >>> load_image_folder("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: Got 'nowhere', which is no folder; expected a folder that holds one folder for each class.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"Got {str(path)!r}, which is no folder; expected a folder that holds one folder for each class."
        )
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"Got {str(root)!r}, which holds no folders; expected one folder for each class.")
    files: list[str] = []
    target: list[int] = []
    for label, name in enumerate(names):
        found = _images_below(root / name)
        if not found:
            raise ValueError(
                f"Got {str(root / name)!r}, which holds no images; expected at least one in each class folder. "
                "Remove the folder, or fill it."
            )
        files += found
        target += [label] * len(found)
    return Bunch(
        data=np.array(files, dtype=object),
        target=np.array(target),
        target_names=names,
        filenames=np.array(files),
    )


def _images_below(folder: Path) -> list[str]:
    Image.init()
    endings = {ending for ending, kind in Image.EXTENSION.items() if kind not in _NEVER_DECODED}
    return sorted(
        str(file)
        for file in folder.rglob("*")
        if file.suffix.lower() in endings
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )
