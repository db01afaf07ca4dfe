"""What a user may rely on when they look at their data before anything is fitted."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from figures import captions_of, overlaps, pixels_of, texts_of
from PIL import Image
from pretrained_models import make_sounds, make_texts

from sktransfer.inspection import SamplesDisplay

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, size=(10, 12, 16, 3), dtype=np.uint8)


def kinds(display):
    return {sample.kind for sample in display.samples}


# Pictures, in each form, as the reader of the estimators sees them


def forms(tmp_path):
    paths = []
    for number, pixels in enumerate(PICTURES):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    contents = [Path(path).read_bytes() for path in paths]
    return {
        "array": PICTURES,
        "channels first": PICTURES.transpose(0, 3, 1, 2),
        "floats": PICTURES / 255,
        "list": list(PICTURES),
        "flat": PICTURES.reshape(10, -1),
        "pictures": [Image.fromarray(pixels) for pixels in PICTURES],
        "paths": paths,
        "series": pd.Series(paths),
        "frame": pd.DataFrame({"photo": paths}),
        "bytes": contents,
        "open files": [Path(path).open("rb") for path in paths],
        "cells": [{"bytes": content, "path": None} for content in contents],
        "16 bits": PICTURES.astype(np.uint16) * 257,
    }


FORMS = (
    "array", "channels first", "floats", "list", "flat", "pictures", "paths", "series", "frame", "bytes", "open files",
    "cells", "16 bits",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_pictures_are_shown_in_every_form_that_estimators_take(form, tmp_path):
    X = forms(tmp_path)[form]
    how = {"image_shape": (12, 16, 3)} if form == "flat" else {}
    display = SamplesDisplay.from_data(X, np.arange(10) % 2, n_samples=4, random_state=0, **how)
    assert captions_of(display) == ["0", "0", "1", "1"]
    for axis, row in zip(display.axes_.flat, display.sample_indices, strict=True):
        shown = pixels_of(axis)
        shown = shown if shown.dtype == np.uint8 else (shown * 255).round()
        np.testing.assert_allclose(shown, PICTURES[row], atol=1)
        assert len(axis.get_xticks()) == 0


def test_pictures_are_upright_whole_and_at_their_own_shape(tmp_path):
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, :10, 0] = 255  # red at the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(wide).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(RNG.integers(0, 256, size=(300, 900), dtype=np.uint8)).save(tmp_path / "large.png")
    display = SamplesDisplay.from_data([tmp_path / "turned.jpg", tmp_path / "large.png"])
    turned, large = (pixels_of(axis) for axis in display.axes_.flat)
    assert turned.shape == (30, 10, 3)
    assert turned[3, 5, 0] > 200 > 100 > turned[25, 5, 0]
    assert large.shape == (133, 400, 3)
    assert np.ptp(large, axis=2).max() == 0


def test_values_are_stretched_as_in_fit_over_all_of_x():
    X = np.zeros((50, 8, 8), dtype=np.float32)
    X[7] = 16.0
    with pytest.warns(UserWarning, match="Got image values from 0 to 16"):
        display = SamplesDisplay.from_data(X + 0.0, n_samples=50)
    shown = {sample.row: sample.content for sample in display.samples}
    assert shown[7].max() == shown[7].min() == 1
    assert shown[6].max() == 0
    few = SamplesDisplay.from_data(X[:5], pixel_range=(0, 16), n_samples=2)  # no warning where it is said
    assert kinds(few) == {"image"}


def test_large_pictures_of_floats_are_made_smaller_too():
    display = SamplesDisplay.from_data([np.full((900, 300, 3), 0.5, dtype=np.float32), np.ones((4, 4, 3), np.float32)])
    large, small = (pixels_of(axis) for axis in display.axes_.flat)
    assert large.shape == (400, 133, 3)
    np.testing.assert_allclose(large, 0.5, atol=1e-5)
    assert small.shape == (4, 4, 3)


# Texts and sounds


def test_texts_are_cut_and_dollars_are_no_mathematics():
    texts = ["It costs $5 or $6_000 \\frac", "word " * 500, b"as bytes", "tabs\tand\nlines"]
    display = SamplesDisplay.from_data(texts, ["$a$", "b", "c", "d"])
    said = texts_of(display)
    assert "It costs $5 or $6_000 \\frac" in said
    assert "$a$" in said
    assert "as bytes" in said
    assert "tabs and lines" in said
    assert sum(text.endswith("…") for text in said) == 1
    assert overlaps(display) == []
    assert kinds(display) == {"text"}


def test_sounds_are_waveforms_over_seconds(tmp_path):
    sounds, y = make_sounds(6, rate=1000)
    display = SamplesDisplay.from_data(sounds, y, sampling_rate=1000, random_state=0)
    for axis, sample in zip(display.axes_.flat, display.samples, strict=True):
        low, high = axis.get_xlim()
        assert low == 0
        assert high == pytest.approx(len(sounds[sample.row]) / 1000)
        np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), sounds[sample.row], atol=1e-6)
        assert any(text.get_text().startswith("peak 0.") for text in axis.texts)
    assert "seconds" in texts_of(display)
    assert overlaps(display) == []
    files = []
    for number, sound in enumerate(sounds):
        files.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(files[-1], np.stack([sound, sound], axis=1), 22050, subtype="PCM_16")
    read = SamplesDisplay.from_data(files, y, random_state=0)  # at their own rate, as their mean
    assert [sample.rate for sample in read.samples] == [22050] * 6
    np.testing.assert_allclose(read.samples[0].content, sounds[read.samples[0].row], atol=1e-3)
    cells = SamplesDisplay.from_data([{"array": sound, "sampling_rate": 500} for sound in sounds])
    assert kinds(cells) == {"sound"}


def test_a_long_sound_is_drawn_as_the_range_of_stretches():
    display = SamplesDisplay.from_data([np.sin(np.arange(160_000) / 5).astype(np.float32)], sampling_rate=16000)
    (axis,) = display.axes_.flat
    assert axis.get_xlim() == (0, 10)
    (filled,) = axis.collections
    assert len(filled.get_paths()[0].vertices) < 5000


def test_what_strings_are_is_seen_or_said(tmp_path):
    assert kinds(SamplesDisplay.from_data(make_texts(6)[0])) == {"text"}
    with pytest.raises(ValueError, match=r"none of 2 samples can be read as images.*a\.jpg.*which is not a file"):
        SamplesDisplay.from_data(["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match=r"none of 1 samples can be read as images.*b\.png"):
        SamplesDisplay.from_data([{"bytes": None, "path": "b.png"}])
    with pytest.raises(ValueError, match=r"none of 2 samples can be read as sounds"):
        SamplesDisplay.from_data(["a.wav", "b.wav"])
    assert kinds(SamplesDisplay.from_data(["a.jpg", "b.jpg"], kind="texts")) == {"text"}


# Which samples, and what stands above them


def test_each_label_is_seen_however_rare_it_is():
    y = np.array(["often"] * 97 + ["seldom"] * 3)
    X = np.full((100, 4, 4), 200, dtype=np.uint8)
    display = SamplesDisplay.from_data(X, y, n_samples=8, random_state=0)
    assert captions_of(display) == ["often"] * 5 + ["seldom"] * 3
    assert len(set(display.sample_indices)) == 8
    assert (y[display.sample_indices] == captions_of(display)).all()
    again = SamplesDisplay.from_data(X, y, n_samples=8, random_state=0)
    other = SamplesDisplay.from_data(X, y, n_samples=8, random_state=1)
    assert again.sample_indices.tolist() == display.sample_indices.tolist() != other.sample_indices.tolist()


def test_labels_may_be_indices_numbers_several_missing_or_none():
    X = np.full((6, 4, 4), 200, dtype=np.uint8)
    named = SamplesDisplay.from_data(X, [0, 1, 2] * 2, display_labels=["ant", "bee", "cat"])
    assert captions_of(named) == ["ant", "ant", "bee", "bee", "cat", "cat"]
    numbers = SamplesDisplay.from_data(X, [0.5, 3.25, 1.0, 2.0, 10.123456, -1.0])
    assert captions_of(numbers) == ["-1", "0.5", "1", "2", "3.25", "10.12"]
    several = pd.DataFrame({"dog": [1, 0, 1, 0, 0, 1], "grass": [1, 1, 0, 0, 1, 0]})
    assert captions_of(SamplesDisplay.from_data(X, several))[:4] == ["dog, grass", "grass", "dog", "none"]
    assert sorted(captions_of(SamplesDisplay.from_data(X, ["a", None, "a", np.nan, "b", "b"]))) == list("??aabb")
    assert captions_of(SamplesDisplay.from_data(X, n_samples=2, random_state=0)) == [
        f"row {row}" for row in SamplesDisplay.from_data(X, n_samples=2, random_state=0).sample_indices
    ]


def test_long_labels_are_cut_and_do_not_overlap():
    display = SamplesDisplay.from_data(PICTURES, [f"a rather long name of the class number {n}" for n in range(10)])
    assert all("…" in caption for caption in captions_of(display))
    assert overlaps(display) == []


def test_a_grid_has_as_many_cells_as_samples_and_hides_the_rest():
    display = SamplesDisplay.from_data(PICTURES, n_samples=7, n_columns=3)
    assert display.axes_.shape == (3, 3)
    assert sum(axis.axison for axis in display.axes_.flat) == 7
    assert SamplesDisplay.from_data(PICTURES, n_samples=100).axes_.size == 10


# What cannot be read


def test_samples_that_cannot_be_read_are_shown_with_their_reason(tmp_path, paths):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(paths[0]).read_bytes()[:200])
    X = [*paths[:3], str(tmp_path / "missing.png"), str(broken), None]
    display = SamplesDisplay.from_data(X, list("abcdef"))
    assert [sample.kind for sample in display.samples] == ["image"] * 3 + ["unreadable"] * 3
    said = [" ".join(text.split()) for text in texts_of(display)]
    assert sum(text.startswith("cannot be read:") for text in said) == 3
    assert "(row 3)" in display.samples[3].content
    assert "(row 4)" in display.samples[4].content
    assert "X[5]" in display.samples[5].content
    assert overlaps(display) == []


def test_reasons_name_the_rows_of_x_though_only_some_are_read(tmp_path, paths):
    X = [*paths[:20], str(tmp_path / "missing.png")]
    display = SamplesDisplay.from_data(X, ["a"] * 20 + ["b"], n_samples=2, random_state=0)
    assert [sample.row for sample in display.samples][1] == 20
    assert "(row 20)" in display.samples[1].content
    texts = ["fine"] * 20 + [7]
    assert "X[20]" in SamplesDisplay.from_data(texts, ["a"] * 20 + ["b"], n_samples=2).samples[1].content


def test_pictures_with_nan_are_shown_as_unreadable():
    X = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)
    X[2, 0, 0] = np.nan
    display = SamplesDisplay.from_data(X)
    assert [sample.kind for sample in display.samples] == ["image", "image", "unreadable", "image"]


@pytest.mark.parametrize(
    ("X", "how", "message"),
    [
        (np.zeros((5, 64)), {}, r"^Got X of shape \(5, 64\), rows of numbers; expected images.*image_shape="),
        (np.zeros((5, 64)), {"image_shape": (8, 9)}, "do not fit image_shape"),
        (np.zeros((5, 64)), {"image_shape": (8, 0)}, "^Got image_shape"),
        (np.zeros((20, 24, 3), dtype=np.uint8), {}, "looks like one picture"),
        (np.zeros((5, 80, 80, 70)), {}, "with 1 to 64 channels"),
        (PICTURES, {"y": [1, 2]}, r"^Got y of shape \(2,\) for X of 10 samples"),
        (PICTURES, {"y": [0, 1] * 5, "display_labels": ["a"]}, "^Got display_labels of 1 names for 2 labels"),
        (PICTURES, {"y": np.eye(10), "display_labels": ["a"]}, "^Got display_labels of 1 names for 10 columns"),
        (PICTURES, {"n_samples": 0}, "^Got n_samples=0; expected an integer"),
        (PICTURES, {"n_columns": 1.5}, "^Got n_columns=1.5; expected an integer"),
        (PICTURES, {"kind": "videos"}, "^Got kind of X='videos'"),
        (PICTURES, {"pixel_range": (5, 1)}, r"^Got pixel_range=\(5, 1\)"),
        (PICTURES, {"pixel_range": "full"}, "^Got pixel_range='full'"),
        ([None, None], {}, "^Got X whose rows are like None"),
        ([], {}, "X is empty"),
        ([np.zeros(100, np.float32), np.zeros(99, np.float32)], {}, "sampling_rate=None; expected"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_sentence(X, how, message):
    with pytest.raises(ValueError, match=message):
        SamplesDisplay.from_data(X, **how)
