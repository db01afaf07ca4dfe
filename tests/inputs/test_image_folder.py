"""What a user may rely on when a folder of class folders is listed."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_files
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.utils import Bunch

from sktransfer import PretrainedFeatureExtractor, load_image_folder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(bunch, root):
    return [Path(file).relative_to(root).as_posix() for file in bunch.data]


@pytest.fixture
def folder(tmp_path):
    touch(tmp_path, "dog/2.png", "dog/10.jpg", "cat/b.jpeg", "cat/a.png", "cat/deep/er/z.bmp", "ant/1.TIFF")
    return tmp_path


def test_classes_and_files_are_sorted(folder):
    bunch = load_image_folder(folder)
    assert bunch.target_names == ["ant", "cat", "dog"]
    assert names_of(bunch, folder) == [
        "ant/1.TIFF",
        "cat/a.png",
        "cat/b.jpeg",
        "cat/deep/er/z.bmp",
        "dog/10.jpg",
        "dog/2.png",
    ]
    assert bunch.target.tolist() == [0, 1, 1, 1, 2, 2]


def test_the_fields_are_those_of_load_files(folder):
    bunch, theirs = load_image_folder(folder), load_files(folder, load_content=False, shuffle=False)
    assert isinstance(bunch, Bunch)
    assert set(bunch) == {"data", "target", "target_names", "filenames"}
    assert bunch.target_names == theirs.target_names
    assert bunch.data.dtype == object
    assert all(type(file) is str for file in bunch.data)
    assert bunch.target.dtype.kind == "i"
    assert bunch.filenames.dtype.kind == "U"
    assert bunch.filenames.tolist() == bunch.data.tolist()


@pytest.mark.parametrize("form", [str, Path])
def test_the_folder_may_be_a_string_or_a_path(form, folder):
    assert names_of(load_image_folder(form(folder)), folder) == names_of(load_image_folder(folder), folder)


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(load_image_folder(f"~/{folder.name}").data) == 6


def test_a_relative_folder_gives_paths_that_open_from_here(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert all(os.path.isfile(file) for file in load_image_folder(folder.name).data)


def test_files_that_are_no_images_are_passed_over(folder):
    touch(
        folder, "cat/notes.txt", "cat/labels.csv", "cat/paper.pdf", "cat/clip.mpg", "cat/table.h5", "cat/png", "x.png"
    )
    (folder / "cat" / "folder.png").mkdir()
    assert len(load_image_folder(folder).data) == 6


@pytest.mark.parametrize(
    "ending", ["JPG", "jpeg", "Png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "jp2", "mpo", "tga"]
)
def test_images_of_usual_formats_are_found_whatever_their_case(ending, folder):
    touch(folder, f"cat/other.{ending}")
    assert f"cat/other.{ending}" in names_of(load_image_folder(folder), folder)


def test_what_begins_with_a_dot_is_passed_over(folder):
    touch(folder, "cat/.hidden.png", "cat/._a.png", "cat/.ipynb_checkpoints/a-checkpoint.png", ".git/x.png")
    bunch = load_image_folder(folder)
    assert len(bunch.data) == 6
    assert ".git" not in bunch.target_names


def test_a_hidden_folder_further_up_hides_nothing(tmp_path):
    touch(tmp_path, ".cache/pets/cat/a.png", ".cache/pets/dog/a.png")
    assert len(load_image_folder(tmp_path / ".cache" / "pets").data) == 2


def test_a_class_without_images_is_refused_by_name(folder):
    touch(folder, "empty/notes.txt")
    with pytest.raises(ValueError, match="empty', which holds no images; expected at least one in each class folder"):
        load_image_folder(folder)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(ValueError, match="which holds no folders; expected one folder for each class"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "a.png"])
def test_what_is_no_folder_is_refused(name, tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(FileNotFoundError, match=f"{name}', which is no folder; expected a folder"):
        load_image_folder(tmp_path / name)


def test_data_and_target_go_through_splits_and_estimators(tmp_path):
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / label).mkdir()
        for number in range(6):
            Image.new("RGB", (9, 9), (level, level, number)).save(tmp_path / label / f"{number}.png")
    bunch = load_image_folder(tmp_path)
    X_train, X_test, y_train, y_test = train_test_split(bunch.data, bunch.target, stratify=bunch.target, random_state=0)
    assert [bunch.target_names[label] for label in y_test] == [Path(file).parent.name for file in X_test]
    for train, test in StratifiedKFold(3).split(bunch.data, bunch.target):
        assert set(bunch.data[train]).isdisjoint(bunch.data[test])
    extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0).fit(X_train, y_train)
    assert extractor.transform(X_test).shape == (len(y_test), 512)
    assert np.isfinite(extractor.transform(X_test)).all()
