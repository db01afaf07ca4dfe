"""What a user may rely on when X holds files themselves: bytes, open files, cells of tables."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow
import pytest
import soundfile
from networks import tiny_cnn
from PIL import Image
from pretrained_models import make_sound_model

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer.inputs import ImagePreprocessing, _encoded_files, make_reader


class Stream:
    """A file that can be read once, from where it is, and gives less than it is asked for."""

    def __init__(self, content):
        self._file = io.BytesIO(content)

    def read(self, size=-1):
        return self._file.read(min(size, 1000))


def cells(contents, paths=None):
    paths = [None] * len(contents) if paths is None else paths
    return [{"bytes": content, "path": path} for content, path in zip(contents, paths, strict=True)]


def in_a_zip(contents):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for number, content in enumerate(contents):
            file.writestr(f"{number}", content)
    opened = zipfile.ZipFile(archive)
    return [opened.open(name) for name in opened.namelist()]


def column(values, kind):
    return pd.DataFrame({"file": pd.Series(values, dtype=pd.ArrowDtype(kind))})


OF_DATASETS = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
FORMS = {
    "bytes": list,
    "bytearrays": lambda contents: [bytearray(content) for content in contents],
    "views": lambda contents: [memoryview(content) for content in contents],
    "object array": lambda contents: np.array(contents, dtype=object),
    "column of objects": lambda contents: np.array(contents, dtype=object)[:, None],
    "series": pd.Series,
    "table": lambda contents: pd.DataFrame({"file": contents}),
    "column of parquet": lambda contents: column(contents, pyarrow.binary()),
    "large column of parquet": lambda contents: column(contents, pyarrow.large_binary()),
    "structs of parquet": lambda contents: column(cells(contents), OF_DATASETS),
    "cells": cells,
    "cells with bytes alone": lambda contents: [{"bytes": content} for content in contents],
    "cells with a path that leads nowhere": lambda contents: cells(contents, ["nowhere.png"] * len(contents)),
    "table of cells": lambda contents: pd.DataFrame({"file": cells(contents)}),
    "in memory": lambda contents: [io.BytesIO(content) for content in contents],
    "in an archive": in_a_zip,
    "streams": lambda contents: [Stream(content) for content in contents],
}


@pytest.fixture(scope="module")
def contents(paths):
    files = [open(path, "rb") for path in paths[:6]]  # noqa: SIM115, PTH123
    yield [file.read() for file in files]
    for file in files:
        file.close()


@pytest.fixture(scope="module")
def on_paths(paths):
    return PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(list(paths[:6]))


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("form", FORMS)
def test_the_content_of_a_file_is_what_its_path_is(form, contents, paths, on_paths):
    clear_cache()
    expected = on_paths.transform(list(paths[:6]))
    before = cache_info()
    X = FORMS[form](contents)
    np.testing.assert_array_equal(on_paths.transform(X), expected)
    assert cache_info().hits - before.hits == 6  # the same keys as the files on the disk
    assert cache_info().misses == before.misses
    clear_cache()
    fitted = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None)
    np.testing.assert_array_equal(fitted.fit(FORMS[form](contents)).transform(FORMS[form](contents)), expected)


def test_fit_and_predict_take_them(contents, paths):
    y = [0, 1] * 3
    on_files = FineTunedClassifier(tiny_cnn, random_state=0).fit(contents, y)
    expected = FineTunedClassifier(tiny_cnn, random_state=0).fit(list(paths[:6]), y).predict_proba(list(paths[:6]))
    np.testing.assert_array_equal(on_files.predict_proba(cells(contents)), expected)
    tuned = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=1, random_state=0, feature_cache=None)
    assert tuned.fit([io.BytesIO(content) for content in contents], y).predict(contents).shape == (6,)


def test_a_cell_without_bytes_is_its_path(paths, on_paths):
    X = [{"bytes": None, "path": path} for path in paths[:6]]
    np.testing.assert_array_equal(on_paths.transform(X), on_paths.transform(list(paths[:6])))
    np.testing.assert_array_equal(on_paths.transform([{"path": paths[0]}]), on_paths.transform([paths[0]]))
    with pytest.raises(FileNotFoundError, match=r"'nowhere\.png'"):
        on_paths.transform([{"bytes": None, "path": "nowhere.png"}])


def test_an_open_file_is_read_from_its_start_and_its_position_put_back(paths, on_paths, tmp_path):
    with open(paths[0], "rb") as file, open(paths[1], "rb", buffering=0) as bare:  # noqa: PTH123
        file.seek(7)
        bare.seek(9)
        found = on_paths.transform([file, bare])
        assert (file.tell(), bare.tell()) == (7, 9)
        np.testing.assert_array_equal(on_paths.transform([file, bare]), found)
    np.testing.assert_array_equal(found, on_paths.transform(list(paths[:2])))


class Slow(io.BytesIO):
    """A file that other threads would find at another place if they did not wait."""

    def read(self, size=-1):
        before = self.tell()
        piece = super().read(min(size, 100))
        assert self.tell() == before + len(piece)
        return piece


def test_a_file_in_several_rows_is_read_by_one_thread_at_a_time(contents):
    files = [Slow(contents[0]), Stream(contents[1])]
    samples = make_reader("images", ImagePreprocessing(crop=(16, 16))).learn(files * 20)
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(samples.digest, range(40)))
        loaded = list(pool.map(lambda row: samples.load(row).numpy(), range(40)))
    assert set(digests[::2]) == {digests[0]}
    assert set(digests[1::2]) == {digests[1]}
    for row in range(2, 40):
        np.testing.assert_array_equal(loaded[row], loaded[row % 2])


def test_what_changes_between_its_digest_and_its_pixels_is_not_kept(contents):
    file = io.BytesIO(contents[0])
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(contents)
    clear_cache()
    expected = extractor.transform(contents[1:2])
    clear_cache()
    samples = extractor._read([file])
    stamp, _ = samples.stamp(0), samples.digest(0)
    assert samples.stamp(0) == stamp
    file.seek(0)
    file.write(contents[1])
    file.truncate()
    samples.load(0)
    assert samples.stamp(0) != stamp
    np.testing.assert_array_equal(extractor.transform([file]), expected)


def half(content):
    return content[: len(content) // 2]


DAMAGED = {
    "half": (lambda content: half(content), "Got the file in row 2, which is not a whole image"),
    "nothing": (lambda content: b"", "Got the file in row 2, which is not a whole image"),
    "a text": (
        lambda content: b"no picture",
        "Got the file in row 2, which is not a whole image.*cannot tell its format",
    ),
    "half a cell": (
        lambda content: {"bytes": half(content), "path": "x.png"},
        r"Got 'x.png' \(row 2\), which is not a whole image",
    ),
    "half a file": (lambda content: io.BytesIO(half(content)), "Got the file in row 2, which is not a whole image"),
    "opened as text": (lambda content: io.StringIO("a"), "Could not read the file in row 2: it was opened as text"),
    "closed": (lambda content: closed(content), "Could not read the file in row 2: .*closed file"),
    "an empty cell": (lambda content: {"bytes": None, "path": None}, r"Got X\[2\] = {'bytes': None, 'path': None}"),
    "a cell of a text": (lambda content: {"bytes": "text", "path": None}, r"Got X\[2\] = {'bytes': 'text', "),
    "a cell of a sound": (lambda content: {"array": [0.0], "sampling_rate": 9}, r"Got X\[2\] = {'array'"),
    "fixed width": (np.bytes_, "Got X.2. in an array of NumPy's type 'S', which drops zero bytes"),
}


def closed(content):
    file = io.BytesIO(content)
    file.close()
    return file


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_whole_file_is_named_or_becomes_nan(damage, contents):
    made, message = DAMAGED[damage]
    X = [*contents[:2], made(contents[2]), contents[3]]
    with pytest.raises(ValueError, match=message):
        PretrainedFeatureExtractor(tiny_cnn).fit(contents).transform(X)
    tolerant = PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan").fit(X)
    with pytest.warns(UserWarning, match=f"1 of 4 samples could not be read.*{message}"):
        features = tolerant.transform(X)
    assert np.isnan(features).all(axis=1).tolist() == [False, False, True, False]


def test_an_array_of_bytes_of_fixed_width_is_refused(contents):
    with pytest.raises(ValueError, match=r"Got X\[0\] in an array of NumPy's type 'S'.*dtype=object"):
        PretrainedFeatureExtractor(tiny_cnn).fit(np.array(contents))


def test_files_that_are_too_large_are_refused(contents, on_paths, monkeypatch):
    from sktransfer.inputs.images import _decoding

    clear_cache()
    monkeypatch.setattr(_encoded_files, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="Could not read the file in row 1: it is larger than the limit of 100 bytes"):
        on_paths.transform([contents[0], io.BytesIO(contents[1])])
    monkeypatch.setattr(_decoding, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match=r"Got the file in row 0, .*and the limit is 100"):
        on_paths.transform(contents)
    monkeypatch.undo()
    clear_cache()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"Refused the file in row 0: Image size \(480 pixels\) exceeds limit"):
        on_paths.transform(contents)


def test_colours_of_16_bits_are_those_of_the_file(tmp_path):
    values = np.random.default_rng(0).integers(0, 65535, (20, 24), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    content = (tmp_path / "deep.png").read_bytes()
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(
        [tmp_path / "deep.png"]
    )
    for X in ([content], [io.BytesIO(content)], cells([content])):
        extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None)
        np.testing.assert_array_equal(extractor.fit_transform(X), expected)


@pytest.mark.parametrize("single", [b"\x89PNG", io.BytesIO(b"\x89PNG"), {"bytes": b"\x89PNG", "path": None}])
def test_a_single_file_is_asked_for_in_a_list(single):
    with pytest.raises(ValueError, match=r"expected several samples.*Put a single text or file into a list: X=\[X\]"):
        PretrainedFeatureExtractor(tiny_cnn).fit(single)


def test_a_file_and_its_label_are_not_taken_for_samples(contents):
    with pytest.raises(ValueError, match=r"Got X\[0\] as a tuple of \(bytes, int\).*X=\[row\[0\] for row in X\]"):
        PretrainedFeatureExtractor(tiny_cnn).fit([(content, 1) for content in contents])


# Sounds


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    folder, time = tmp_path_factory.mktemp("sounds"), np.arange(3000) / 8000
    files = []
    for number, ending in enumerate(("wav", "flac", "ogg", "wav")):
        files.append(folder / f"{number}.{ending}")
        soundfile.write(files[-1], 0.5 * np.sin(700 * (number + 1) * time), 8000)
    return files


@pytest.fixture(scope="module")
def listener(tmp_path_factory, sound_files):
    name = make_sound_model("wav2vec2", tmp_path_factory.mktemp("listener"))
    return PretrainedFeatureExtractor(name).fit(sound_files)


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("form", ["bytes", "structs of parquet", "cells", "in memory", "streams", "in an archive"])
def test_the_content_of_a_sound_is_what_its_path_is(form, sound_files, listener):
    clear_cache()
    expected = listener.transform(sound_files)
    before = cache_info()
    X = FORMS[form]([file.read_bytes() for file in sound_files])
    np.testing.assert_array_equal(listener.transform(X), expected)
    assert cache_info().hits - before.hits == 4


def test_arrays_in_cells_have_the_rate_that_the_cell_says(sound_files, listener):
    X = []
    for number, file in enumerate(sound_files):
        values, rate = soundfile.read(file, dtype="float32")
        X.append({"path": "nowhere.wav", "array": values.tolist() if number == 3 else values, "sampling_rate": rate})
    np.testing.assert_allclose(listener.transform(X), listener.transform(sound_files), atol=1e-5)
    np.testing.assert_array_equal(listener.transform(pd.Series(X)), listener.transform(X))


def test_damaged_sounds_are_named_or_become_nan(sound_files, listener):
    X = [file.read_bytes() for file in sound_files]
    X[2] = X[2][:-500]
    with pytest.raises(ValueError, match="Got the file in row 2, which is not a whole sound"):
        listener.transform(X)
    X[1] = {"array": np.zeros(900), "sampling_rate": None}
    tolerant = PretrainedFeatureExtractor(listener.backbone, on_bad_sample="nan").fit(X)
    with pytest.warns(UserWarning, match="2 of 4 samples could not be read.*sampling_rate=None"):
        features = tolerant.transform(X)
    assert np.isnan(features).all(axis=1).tolist() == [False, True, True, False]
