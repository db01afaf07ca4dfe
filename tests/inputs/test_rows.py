"""How the kind of X is told by its look."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array

from sktransfer.inputs import ImagePreprocessing, make_reader
from sktransfer.inputs._rows import Rows

ROWS = np.zeros((3, 4))
PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((3, 8, 8)),
        np.zeros((3, 8, 8, 3)),
        torch.zeros(3, 3, 8, 8),
        np.zeros((3, 8, 8)).tolist(),
        [np.zeros((8, 8)), np.zeros((9, 9))],
        [torch.zeros(3, 8, 8)],
        [PICTURE],
        (PICTURE, PICTURE),
        ["a.png", "b.png"],
        [Path("a.png")],
        np.array(["a.png", "b.png"]),
        np.array([["a.png"], ["b.png"]]),
        np.array([Path("a.png")]),
        pd.Series(["a.png", "b.png"]),
        pd.DataFrame({"file": ["a.png", "b.png"]}),
        pl.Series(["a.png"]),
        pl.DataFrame({"file": ["a.png"]}),
        [None, "a.png"],
        np.array([None, "a.png"], dtype=object),
        pd.Series([None, "a.png"]),
        pd.DataFrame({"file": [None, "a.png"]}),
        pd.DataFrame({"file": [1.5, "a.png"]}, dtype=object),
    ],
    ids=lambda X: f"{type(X).__name__}{getattr(X, 'shape', '')}",
)
def test_pictures_arrays_of_them_and_paths_are_images(X):
    assert Rows(X).kind() == "images"


@pytest.mark.parametrize(
    "X",
    [
        ROWS,
        ROWS.tolist(),
        list(ROWS),
        ROWS.astype(object),
        torch.zeros(3, 4),
        pd.DataFrame(ROWS),
        pl.DataFrame(ROWS),
    ],
    ids=lambda X: type(X).__name__,
)
def test_rows_of_numbers_are_images_only_with_an_image_shape(X):
    assert Rows(X).kind() == "vectors"
    assert Rows(X, image_shape=(2, 2)).kind() == "images"
    assert Rows(X).have_columns


def test_a_column_of_numbers_is_not_a_column_of_paths():
    assert Rows(pd.DataFrame({"age": [1.5, None]}, dtype=object)).kind() == "vectors"
    assert Rows(np.ones((3, 1))).kind() == "vectors"


def test_sparse_matrices_are_vectors():
    assert Rows(csr_array(ROWS)).kind() == "vectors"


@pytest.mark.parametrize("X", ["a.png", Path("a.png"), PICTURE], ids=["str", "Path", "picture"])
def test_one_sample_instead_of_several_is_refused(X):
    with pytest.raises(ValueError, match=r"Got X=.*; expected several samples. Put a single path, image or text"):
        Rows(X).kind()


@pytest.mark.parametrize("X", [None, 3, {"a": 1}, iter(["a.png"]), {"a.png"}], ids=lambda X: type(X).__name__)
def test_what_has_no_rows_is_refused(X):
    with pytest.raises(ValueError, match=f"Got X of type {type(X).__name__}; expected several samples"):
        Rows(X).kind()


@pytest.mark.parametrize(
    "X",
    [
        [],
        (),
        np.array([]),
        np.zeros((0, 4)),
        np.zeros((0, 8, 8, 3)),
        np.array([], dtype=str),
        pd.Series([], dtype=object),
        pd.DataFrame({"file": []}),
        pl.DataFrame({"file": []}),
    ],
    ids=lambda X: f"{type(X).__name__}{getattr(X, 'shape', '')}",
)
def test_an_empty_x_is_refused(X):
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) while a minimum of 1 is required"):
        Rows(X).kind()


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((3, 8, 8)),
        np.zeros(3),
        ["a.png"],
        [PICTURE],
        [np.zeros((8, 8)), np.zeros((9, 9))],
        pd.Series(["a.png"]),
    ],
    ids=lambda X: type(X).__name__,
)
def test_what_has_no_columns_is_no_table(X):
    assert not Rows(X).have_columns


def test_a_column_of_paths_is_a_table():
    assert Rows(pd.DataFrame({"file": ["a.png"]})).have_columns
    assert Rows(np.array([["a.png"]])).have_columns


def test_each_kind_has_its_reader():
    for kind in ("images", "vectors"):
        assert make_reader(kind, ImagePreprocessing(), None, "auto").kind == kind


@pytest.mark.parametrize(
    ("X", "tower"),
    [
        (["a good film", "dull"], "text"),
        (["a good film", "look at https://example.org/a.jpg"], None),
        (["a good film", "see https://example.org for more"], "text"),
        (["what is it?", "a.b.c", "x://y z"], "text"),
        (["a.png", "B.JPG"], "image"),
        (["a.png", "a good film"], None),
        (["https://example.org/a.jpg?size=3", "s3://bucket/b.PNG#1", "zip://c.webp::all.zip"], "image"),
        (["https://example.org/a", "https://example.org/?q=a.jpg"], None),
        (["1", "2"], "text"),
        (["a\0b", "c" * 9000], "text"),
    ],
)
def test_strings_say_which_of_two_networks_is_meant(X: list, tower: str | None):
    assert Rows(X).tower() == tower


def test_paths_of_files_that_are_there_are_pictures_whatever_their_names(tmp_path: Path):
    for name in ("one", "two.jpg_large"):
        (tmp_path / name).touch()
    files = [str(tmp_path / name) for name in ("one", "two.jpg_large")]
    assert Rows(files).tower() == "image"
    assert Rows([*files, "three.png"]).tower() == "image"
    assert Rows([*files, "a good film"]).tower() == "text"
