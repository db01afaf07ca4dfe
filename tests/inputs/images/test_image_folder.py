"""What a user may rely on when a folder of class folders is listed."""

import copy
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_files
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.utils import Bunch

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, load_image_folder


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
    assert bunch.target.tolist() == ["ant", "cat", "cat", "cat", "dog", "dog"]
    assert bunch.target_index.tolist() == [0, 1, 1, 1, 2, 2]


def test_the_fields_are_those_of_load_files(folder):
    bunch, theirs = load_image_folder(folder), load_files(folder, load_content=False, shuffle=False)
    assert isinstance(bunch, Bunch)
    assert set(bunch) == {"data", "target", "target_index", "target_names", "filenames", "skipped"}
    assert bunch.target_names == theirs.target_names
    assert bunch.data.dtype == object
    assert all(type(file) is str for file in bunch.data)
    assert bunch.target_index.dtype.kind == "i"
    assert bunch.target_index.tolist() == theirs.target.tolist()
    assert bunch.target.dtype.kind == "U"
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


def test_files_that_are_left_out_are_told_once_with_counts_by_ending(folder):
    left_out = ["cat/a.HEIC", "cat/notes.txt", "cat/paper.pdf", "cat/png", "dog/b.heic", "dog/layers.psd", "x.png"]
    touch(folder, *left_out)
    (folder / "cat" / "folder.png").mkdir()
    with pytest.warns(UserWarning, match="Left out 7 of 13 files") as caught:
        bunch = load_image_folder(folder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert {".heic: 2", ".pdf: 1", ".psd: 1", ".png: 1", "no ending: 1"} <= set(
        str(caught[0].message).split("(")[1].split(")")[0].split(", ")
    )
    assert len(bunch.data) == 6
    assert [Path(file).relative_to(folder).as_posix() for file in bunch.skipped] == left_out


def test_nothing_is_told_where_nothing_is_left_out(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image_folder(folder).skipped == []


@pytest.mark.parametrize("ending", ["tga", "pcx", "eps", "psd", "heic"])
def test_no_file_is_listed_that_would_be_refused_when_it_is_read(ending, folder):
    touch(folder, f"cat/other.{ending}")
    with pytest.warns(UserWarning, match=rf"\.{ending}: 1"):
        assert len(load_image_folder(folder).data) == 6


def test_what_other_programs_leave_behind_is_neither_a_class_nor_told(folder):
    touch(folder, "__MACOSX/cat/._a.png", "__MACOSX/cat/a.png", "@eaDir/cat/a.png", ".DS_Store", "cat/.DS_Store")
    touch(folder, "cat/Thumbs.db", "desktop.ini", "cat/__MACOSX/a.png", "cat/@eaDir/a.jpg", "Thumbs.db")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bunch = load_image_folder(folder)
    assert bunch.target_names == ["ant", "cat", "dog"]
    assert len(bunch.data) == 6


# Links


def test_linked_folders_and_files_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere, "day2/x.png", "day2/deep/y.png", "wolf/w.png")
    (folder / "dog" / "day2").symlink_to(elsewhere / "day2")
    (folder / "dog" / "one.png").symlink_to(elsewhere / "wolf" / "w.png")
    (folder / "wolf").symlink_to(elsewhere / "wolf")
    bunch = load_image_folder(folder)
    counts = dict(zip(bunch.target_names, np.bincount(bunch.target_index).tolist(), strict=True))
    assert counts == {"ant": 1, "cat": 3, "dog": 5, "wolf": 1}
    assert all(os.path.isfile(file) for file in bunch.data)


def test_circles_of_links_end(folder):
    (folder / "dog" / "self").symlink_to(folder / "dog")
    (folder / "dog" / "up").symlink_to(folder)
    (folder / "dog" / "further_up").symlink_to(folder.parent)
    (folder / "around").symlink_to(folder)
    (folder / "cat" / "nowhere").symlink_to(folder / "cat" / "nowhere")
    with pytest.warns(UserWarning, match="Left out 1 of 7 files"):
        bunch = load_image_folder(folder)
    assert bunch.target_names == ["ant", "cat", "dog"]
    assert len(bunch.data) == 6


def test_many_links_between_classes_take_no_long(tmp_path):
    """Each way from folder to folder would be one of a million."""
    names = [f"class{number}" for number in range(12)]
    touch(tmp_path, *(f"{name}/a.png" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    assert len(load_image_folder(tmp_path).data) == 12 * 12


def test_a_folder_that_two_links_of_a_class_lead_to_is_listed_once(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere, "x.png")
    for name in ("first", "second"):
        (folder / "dog" / name).symlink_to(elsewhere)
    assert [name for name in names_of(load_image_folder(folder), folder) if "x.png" in name] == ["dog/first/x.png"]


def test_a_link_that_leads_nowhere_is_told(folder):
    (folder / "dog" / "gone.png").symlink_to(folder / "gone.png")
    with pytest.warns(UserWarning, match=r"Left out 1 of 7 files \(\.png: 1\)"):
        assert len(load_image_folder(folder).data) == 6


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    really = Path.iterdir

    def iterdir(path):
        if path.name == "er":
            raise PermissionError(13, "Permission denied")
        return really(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(PermissionError, match=r"deep/er', which may not be read"):
        load_image_folder(folder)


# Splits


@pytest.fixture
def splits(tmp_path):
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/dog/c.png", "val/eel/d.png", "README.md")
    return tmp_path


@pytest.mark.parametrize(
    "names",
    [["train", "val"], ["Train", "TEST"], ["train", "dev", "test"], ["training", "testing"], ["valid"]],
    ids=str,
)
def test_a_folder_of_splits_is_refused_with_what_to_do(names, tmp_path):
    touch(tmp_path, *(f"{name}/cat/a.png" for name in names))
    with pytest.raises(ValueError, match=rf"whose folders are .*{names[0]}.*split='({'|'.join(names)})'"):
        load_image_folder(tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path):
    touch(tmp_path, "test/a.png", "control/b.png")
    assert load_image_folder(tmp_path).target_names == ["control", "test"]


def test_one_split_is_read_as_a_folder_of_its_own(splits):
    one, same = load_image_folder(splits, split="train"), load_image_folder(splits / "train")
    assert one.target_names == same.target_names == ["cat", "dog"]
    assert names_of(one, splits) == names_of(same, splits) == ["train/cat/a.png", "train/dog/b.png"]


def test_splits_are_joined_by_the_names_of_their_classes(splits):
    bunch = load_image_folder(splits, split=["val", "train"])
    assert bunch.target_names == ["cat", "dog", "eel"]
    assert names_of(bunch, splits) == ["train/cat/a.png", "val/dog/c.png", "train/dog/b.png", "val/eel/d.png"]
    assert bunch.target.tolist() == ["cat", "dog", "dog", "eel"]
    assert bunch.target_index.tolist() == [0, 1, 1, 2]
    assert bunch.skipped == []


@pytest.mark.parametrize(
    "split", ["test", "Train", [], ["train", "test"], ["train", "train"], "", [1], "README.md"], ids=str
)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(split, splits):
    with pytest.raises(ValueError, match=r"Got split=.*which holds 'train', 'val'"):
        load_image_folder(splits, split=split)


def test_messages_stay_short_however_many_folders_and_endings(tmp_path):
    touch(tmp_path, *(f"{'c' * 200}{number}/{number}.png" for number in range(50)))
    touch(tmp_path, *(f"{'c' * 200}0/x.{'e' * 100}{number}" for number in range(50)))
    with pytest.warns(UserWarning, match="Left out 50 of 100") as caught:
        load_image_folder(tmp_path)
    assert len(str(caught[0].message)) < 600
    with pytest.raises(ValueError, match="Got split=") as refused:
        load_image_folder(tmp_path, split=["s" * 1000])
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "ending", ["JPG", "jpeg", "Png", "webp", "gif", "bmp", "tif", "tiff", "pgm", "ppm", "jp2", "mpo", "jfif", "jpe"]
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
    with pytest.raises(
        ValueError, match=r"empty', which holds no images but 1 other files \(\.txt: 1\); expected at least one in each"
    ):
        load_image_folder(folder)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(ValueError, match="which holds no folders; expected one folder per class"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "a.png"])
def test_what_is_no_folder_is_refused(name, tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(FileNotFoundError, match=f"{name}', which is not a folder; expected a folder"):
        load_image_folder(tmp_path / name)


def test_data_and_target_go_through_splits_and_estimators(tmp_path):
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / label).mkdir()
        for number in range(6):
            Image.new("RGB", (9, 9), (level, level, number)).save(tmp_path / label / f"{number}.png")
    bunch = load_image_folder(tmp_path)
    X_train, X_test, y_train, y_test = train_test_split(bunch.data, bunch.target, stratify=bunch.target, random_state=0)
    assert y_test.tolist() == [Path(file).parent.name for file in X_test]
    for train, test in StratifiedKFold(3).split(bunch.data, bunch.target):
        assert set(bunch.data[train]).isdisjoint(bunch.data[test])
    extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0).fit(X_train, y_train)
    assert extractor.transform(X_test).shape == (len(y_test), 512)
    assert np.isfinite(extractor.transform(X_test)).all()
    classifier = FineTunedClassifier("squeezenet1_1", weights=None, random_state=0).fit(X_train, y_train)
    assert set(classifier.predict(X_test)) <= {"dark", "light"}
    assert classifier.classes_.tolist() == bunch.target_names


# Other forms


def test_data_and_target_alone_are_a_pair(folder):
    bunch = load_image_folder(folder)
    X, y = load_image_folder(folder, return_X_y=True)
    np.testing.assert_array_equal(X, bunch.data)
    np.testing.assert_array_equal(y, bunch.target)


def test_a_frame_holds_paths_names_and_indices(folder):
    bunch, framed = load_image_folder(folder), load_image_folder(folder, as_frame=True)
    assert framed.frame.columns.tolist() == ["path", "target", "target_index"]
    assert framed.data.columns.tolist() == ["path"]
    assert framed.data["path"].tolist() == framed.filenames.tolist() == bunch.data.tolist()
    assert framed.target.tolist() == bunch.target.tolist()
    assert framed.target_index.tolist() == bunch.target_index.tolist()
    X, y = load_image_folder(folder, return_X_y=True, as_frame=True)
    pd.testing.assert_frame_equal(X, framed.data)
    pd.testing.assert_series_equal(y, framed.target)


def test_estimators_take_the_frame_of_a_folder(tmp_path):
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / label).mkdir()
        for number in range(3):
            Image.new("RGB", (9, 9), (level, level, number)).save(tmp_path / label / f"{number}.png")
    X, y = load_image_folder(tmp_path, return_X_y=True, as_frame=True)
    classifier = FineTunedClassifier("squeezenet1_1", weights=None, random_state=0).fit(X, y)
    assert classifier.feature_names_in_.tolist() == ["path"]
    assert set(classifier.predict(X)) <= {"dark", "light"}


def test_without_pandas_a_frame_names_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"as_frame=True needs pandas.*pip install pandas"):
        load_image_folder(folder, as_frame=True)


def test_printed_it_counts_the_images_of_each_class(folder):
    lines = repr(load_image_folder(folder)).splitlines()
    assert lines[:4] == ["6 images of 3 classes", "  ant  1", "  cat  3", "  dog  2"]
    assert lines[4] == f"first: {str(folder / 'ant' / '1.TIFF')!r}"
    assert lines[5] == "keys: data, target, target_index, target_names, filenames, skipped"
    assert len(lines) == 6


def test_printed_it_fits_a_screen_with_a_thousand_classes_and_long_names(tmp_path):
    touch(tmp_path, *(f"{number:04}/a.png" for number in range(999)), f"{'z' * 200}/a.png", "0000/b.txt")
    with pytest.warns(UserWarning, match="Left out 1"):
        bunch = load_image_folder(tmp_path)
    lines = repr(bunch).splitlines()
    assert len(lines) <= 12
    assert lines[0] == "1000 images of 1000 classes"
    assert "  and 995 more classes" in lines
    assert "skipped files: 1" in lines
    assert all(len(line) <= 300 for line in lines)


@pytest.mark.parametrize("as_frame", [False, True])
def test_pickled_and_copied_it_is_the_same(folder, as_frame):
    bunch = load_image_folder(folder, as_frame=as_frame)
    for again in (pickle.loads(pickle.dumps(bunch)), copy.deepcopy(bunch)):
        assert repr(again) == repr(bunch)
        assert again.target.tolist() == bunch.target.tolist()


def test_keys_may_be_added_and_removed(folder):
    bunch = load_image_folder(folder)
    bunch.source = "here"
    del bunch["target"], bunch["filenames"]
    assert repr(bunch) == "keys: data, target_index, target_names, skipped, source"
