"""What is written comes to its place whole, or nothing of it is left."""

from pathlib import Path

import pytest

from sktransfer._files._whole_files import written_whole


def test_files_come_to_their_places_the_named_one_last(tmp_path, monkeypatch):
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: moved.append(to.name) or replace(self, to))
    (tmp_path / "model").write_text("old")
    with written_whole(tmp_path / "model", "model") as file:
        file.write_text("new")
        file.with_name("model.data").write_text("weights")
        file.with_name("a.json").write_text("{}")
        assert (tmp_path / "model").read_text() == "old"
        assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == ["model"]
    assert moved[-1] == "model"
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        "model": "new",
        "model.data": "weights",
        "a.json": "{}",
    }


@pytest.mark.parametrize("error", [ValueError("no such layer"), KeyboardInterrupt(), OSError("full")])
def test_after_an_error_what_was_there_is_there_and_nothing_else(tmp_path, error):
    (tmp_path / "model").write_text("old")

    def write():
        with written_whole(tmp_path / "model", "model") as file:
            file.write_text("half")
            raise error

    with pytest.raises(type(error)) as raised:
        write()
    assert raised.value is error
    assert [one.name for one in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "old"


def test_an_error_of_the_system_tells_the_name_that_was_given(tmp_path):
    def write():
        with written_whole(tmp_path / "model", "~/model") as file:
            (file.parent / "no folder" / "x").write_text("")

    with pytest.raises(FileNotFoundError, match=r"^Could not write '~/model': No such file or directory\. Give a fold"):
        write()
    assert list(tmp_path.iterdir()) == []
