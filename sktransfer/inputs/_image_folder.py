"""A folder of class folders, read as scikit-learn's `load_files` reads one, but for images and without opening them."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.utils import Bunch


def load_image_folder(path: str | os.PathLike[str]) -> Bunch:
    """List the images of a folder that holds one folder for each class.

    Parameters
    ----------
    path : path-like
        Holds a folder for each class, whose images may lie at any depth. What no Pillow format's file name ends in,
        and what begins with a dot, is passed over.

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
    Image.init()
    endings = set(Image.EXTENSION)
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"Got {str(root)!r}, which holds no folders; expected one folder for each class.")
    files: list[str] = []
    target: list[int] = []
    for label, name in enumerate(names):
        found = sorted(
            str(file)
            for file in (root / name).rglob("*")
            if file.suffix.lower() in endings and not file.name.startswith(".") and file.is_file()
        )
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
