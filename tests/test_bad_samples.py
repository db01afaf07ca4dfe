"""A picture that cannot be read costs a row of NaN where that is asked for, never a night, and never another's row."""

import shutil
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from PIL import Image
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor


@pytest.fixture
def files(paths, tmp_path):
    """The 24 pictures, in files that a test may spoil."""
    files = [tmp_path / f"{row:02}.png" for row in range(len(paths))]
    for source, file in zip(paths, files, strict=True):
        shutil.copy(source, file)
    return files


@pytest.fixture(params=["auto", "folder", None])
def extractor(request, tmp_path):
    sktransfer.clear_cache()
    cache = tmp_path / "cache" if request.param == "folder" else request.param
    return PretrainedFeatureExtractor(
        tiny_cnn, on_bad_sample="nan", random_state=0, precision="float32", feature_cache=cache, batch_size=4
    )


def spoil(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return content


def told(extractor, X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features = extractor.transform(X)
    return features, [str(warning.message) for warning in caught]


def test_each_kind_of_bad_row_is_nan_and_all_are_counted_in_one_warning(extractor, files, tmp_path):
    expected = extractor.fit(files).transform(files)
    spoil(files[5])
    files[9].write_text("no picture")
    files[11].write_bytes(b"")
    files[13].unlink()
    X = [*files, None, np.nan, tmp_path, 3, np.zeros((8, 8, 2)), np.full((8, 8, 3), np.nan)]
    bad = [5, 9, 11, 13, *range(24, 30)]
    features, messages = told(extractor, X)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(features).all(axis=1)), bad)
    good = np.setdiff1d(np.arange(24), bad)
    np.testing.assert_allclose(features[good], expected[good], atol=1e-5)
    assert len(messages) == 1
    assert messages[0].startswith("10 of 30 samples could not be read; their rows are NaN. The first: ")
    assert f"'{files[5]}' (row 5)" in messages[0]
    assert messages[0].endswith("Rows: 5, 9, 11, 13, 24, 25, 26, 27, 28, 29.")
    assert len(messages[0]) < 600


def test_a_mended_file_is_read_and_nothing_of_the_bad_one_is_kept(extractor, files):
    expected = extractor.fit(files).transform(files)
    content = spoil(files[7])
    sktransfer.clear_cache(folders=True)
    for _ in range(2):
        features, messages = told(extractor, files)
        assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [7]
        assert len(messages) == 1
    with pytest.raises(ValueError, match=r"\(row 7\)"):
        extractor.set_params(on_bad_sample="raise").transform(files)
    extractor.set_params(on_bad_sample="nan")
    files[7].write_bytes(content)
    features, messages = told(extractor, files)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert messages == []
    if extractor.feature_cache is not None:
        before = sktransfer.cache_info().misses
        extractor.transform(files)
        assert sktransfer.cache_info().misses == before


def test_bad_files_of_the_same_bytes_are_each_named(extractor, files):
    extractor.fit(files)
    spoil(files[3])
    for row in (8, 20):
        shutil.copy(files[3], files[row])
    features, messages = told(extractor, files)
    assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [3, 8, 20]
    assert messages[0].startswith("3 of 24")
    assert "(row 3)" in messages[0]
    assert messages[0].endswith("Rows: 3, 8, 20.")


def test_all_bad_is_all_nan(extractor, files):
    extractor.fit(files)
    for file in files[:5]:
        file.write_bytes(b"")
    features, messages = told(extractor, files[:5])
    assert features.shape == (5, extractor.n_features_out_)
    assert np.isnan(features).all()
    assert messages[0].startswith("5 of 5")


def test_rows_go_on_from_an_earlier_cut_and_bad_ones_stay_nan(files, tmp_path):
    how = {"random_state": 0, "precision": "float32", "feature_cache": tmp_path / "cache", "on_bad_sample": "nan"}
    PretrainedFeatureExtractor(tiny_cnn, layer=2, pooling="flatten", **how).fit(files).transform(files)
    deeper = PretrainedFeatureExtractor(tiny_cnn, **how).fit(files)
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, precision="float32").fit_transform(files)
    spoil(files[6])
    features, messages = told(deeper, files)
    assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [6]
    keep = np.arange(24) != 6
    np.testing.assert_allclose(features[keep], expected[keep], atol=1e-5)
    assert len(messages) == 1


def test_pictures_and_arrays_that_are_bad_are_nan_too(extractor, files):
    extractor.fit(files)
    content = files[0].read_bytes()
    files[0].write_bytes(content[: len(content) // 2])
    X = [Image.open(file) for file in files[:3]]
    features, messages = told(extractor, X)
    assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [0]
    assert "Got the picture in row 0, which is not a whole image" in messages[0]


def test_an_imputer_behind_it_makes_a_whole_pipeline(files, pictures):
    y = pictures[1]
    spoil(files[12])
    pipeline = make_pipeline(
        PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan", batch_size=4, random_state=0),
        SimpleImputer(),
        LogisticRegression(),
    )
    with pytest.warns(UserWarning, match="1 of 24 samples could not be read"):
        pipeline.fit(files, y)
    with pytest.warns(UserWarning, match="1 of 2 samples could not be read"):
        assert pipeline.predict(files[12:14]).shape == (2,)


def test_a_classifier_and_a_strict_extractor_raise_with_row_and_path(files, pictures):
    y = pictures[1]
    classifier = FineTunedClassifier(tiny_cnn, random_state=0).fit(files, y)
    spoil(files[0])
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0)
    for run in (lambda: extractor.fit(files), lambda: classifier.fit(files, y), lambda: classifier.predict(files)):
        with pytest.raises(ValueError, match=r"Got '.*00\.png' \(row 0\), which is not a whole image"):
            run()


def test_it_can_be_changed_after_fit_and_is_checked_then(files):
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(files)
    spoil(files[1])
    with pytest.raises(ValueError, match=r"\(row 1\)"):
        extractor.transform(files)
    features, _ = told(extractor.set_params(on_bad_sample="nan"), files)
    assert np.isnan(features[1]).all()
    with pytest.raises(ValueError, match="Got on_bad_sample='zero'"):
        extractor.set_params(on_bad_sample="zero").transform(files)


def test_a_network_that_gives_nan_is_not_taken_for_a_bad_file(files):
    import torch

    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * torch.nan

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), Broken())
    extractor = PretrainedFeatureExtractor(network, on_bad_sample="nan").fit(files)
    features, messages = told(extractor, files)
    assert np.isnan(features).all()
    assert messages == []


# What fit makes of them, and columns of nothing: images, texts and sounds alike


@pytest.fixture(scope="module", params=["paths", "arrays", "texts", "sounds", "sound files"])
def kind(request, paths, pictures, tmp_path_factory):
    """Eight good samples, the settings of an extractor that takes them, and what it says of a row without one."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    if request.param in ("paths", "arrays"):
        X = list(paths[:8]) if request.param == "paths" else list(pictures[0][:8])
        return X, {"backbone": tiny_cnn}, "expected a path, a PIL image"
    if request.param == "texts":
        return list(make_texts()[0][:8]), {"backbone": make_text_model("bert", folder)}, "expected a string"
    sounds = list(make_sounds()[0][:8])
    settings = {"backbone": make_sound_model("wav2vec2", folder), "sampling_rate": 1000}
    if request.param == "sound files":
        soundfile = pytest.importorskip("soundfile", reason="the package that writes sounds")
        for row, sound in enumerate(sounds):
            soundfile.write(folder / f"{row}.wav", sound, 1000)
        sounds = [folder / f"{row}.wav" for row in range(8)]
    return sounds, settings, "expected a path, or an array"


def tolerant(settings, **more):
    return PretrainedFeatureExtractor(
        **settings, **{"on_bad_sample": "nan", "random_state": 0, "precision": "float32", "batch_size": 3, **more}
    )


def objects(rows):
    column = np.empty(len(rows), dtype=object)
    column[:] = rows
    return column


@pytest.mark.parametrize("where", rest_exhaustive([[0], [0, 1, 2, 3, 4], [7], [0, 3, 6]], [0, 3, 6]), ids=str)
@pytest.mark.parametrize("cache", ["auto", None])
def test_fit_leaves_out_rows_that_cannot_be_read_wherever_they_stand(kind, where, cache):
    good, settings, _ = kind
    sktransfer.clear_cache()
    rest = [row for row in range(8) if row not in where]
    expected = tolerant(settings, feature_cache=cache).fit_transform([good[row] for row in rest])
    nothing = [None, np.nan, pd.NA, ["a"] if "string" in kind[2] else "gone.png", pd.NaT, 3, {"a": 1}, (1, 2)]
    X = objects([nothing[row] if row in where else good[row] for row in range(8)])
    for form in (X, list(X), pd.Series(X), pd.DataFrame({"sample": X})):
        extractor = tolerant(settings, feature_cache=cache)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extractor.fit(form)
        features, messages = told(extractor, form)
        assert extractor.n_features_out_ == expected.shape[1]
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(features).any(axis=1)), where)
        np.testing.assert_allclose(features[rest], expected, atol=1e-4)
        assert len(messages) == 1
        assert messages[0].startswith(f"{len(where)} of 8 samples could not be read; their rows are NaN. The first: ")
    with pytest.raises((ValueError, FileNotFoundError), match=rf"X\[{where[0]}\]|gone\.png"):
        tolerant(settings, on_bad_sample="raise").fit(X)


COLUMNS = {
    "list of None": lambda n: [None] * n,
    "list of NaN": lambda n: [np.nan] * n,
    "list of NA": lambda n: [pd.NA] * n,
    "objects": lambda n: np.array([None, np.nan, pd.NA, pd.NaT] * n, dtype=object)[:n],
    "floats": lambda n: np.full(n, np.nan),
    "one column": lambda n: np.full((n, 1), np.nan),
    "Series of None": lambda n: pd.Series([None] * n),
    "Series of NaN": lambda n: pd.Series([np.nan] * n),
    "Series of strings": lambda n: pd.Series([None] * n, dtype="string"),
    "Series of categories": lambda n: pd.Series([None] * n, dtype="category"),
    "Series of dates": lambda n: pd.Series([pd.NaT] * n),
    "DataFrame of None": lambda n: pd.DataFrame({"sample": [None] * n}),
    "DataFrame of NaN": lambda n: pd.DataFrame({"sample": [np.nan] * n}),
    "DataFrame of NA": lambda n: pd.DataFrame({"sample": [pd.NA] * n}),
    "polars": lambda n: pl.DataFrame({"sample": [None] * n}),
    "polars strings": lambda n: pl.Series([None] * n, dtype=pl.String),
}


@pytest.mark.parametrize("form", rest_exhaustive(COLUMNS, "Series of strings", "DataFrame of NaN", "polars"))
def test_a_column_of_nothing_is_a_column_of_bad_samples(kind, form):
    good, settings, expected = kind
    column = COLUMNS[form](3)
    fitted = tolerant(settings).fit(pd.DataFrame({"sample": objects(good)}) if hasattr(column, "columns") else good)
    features, messages = told(fitted, column)
    assert features.shape == (3, fitted.n_features_out_)
    assert np.isnan(features).all()
    assert len(messages) == 1
    assert "3 of 3 samples could not be read" in messages[0]
    with pytest.raises(ValueError, match=rf"^Got X\[0\] = .*; {expected}"):
        fitted.set_params(on_bad_sample="raise").transform(column)
    with pytest.raises(ValueError, match=r"^Got X\[0\] = .*"):
        tolerant(settings, on_bad_sample="raise").fit(column)
    with pytest.raises(ValueError, match=r"^Got 3 samples, but none of them could be read.*X\[0\] = "):
        tolerant(settings).fit(column)
    with pytest.raises(ValueError, match=r"^Got X\[0\] = .*"):
        FineTunedClassifier(**settings).fit(column, [0, 1, 0])


def test_columns_of_nothing_stand_in_a_column_transformer(kind):
    good, settings, _ = kind
    table = pd.DataFrame({"sample": pd.Series(objects(good)), "age": np.arange(8.0)})
    for column in ("sample", ["sample"]):
        columns = make_column_transformer((tolerant(settings), column), remainder="passthrough").fit(table)
        with pytest.warns(UserWarning, match="8 of 8 samples could not be read"):
            features = columns.transform(table.assign(sample=np.nan))
        assert np.isnan(features[:, :-1]).all()
        np.testing.assert_array_equal(features[:, -1], table["age"])


@pytest.mark.parametrize("row", [0, 5, 12])
def test_a_pipeline_with_one_unreadable_row_is_fitted(files, pictures, row):
    spoil(files[row])
    pipeline = make_pipeline(
        PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan", batch_size=4), SimpleImputer(), LogisticRegression()
    )
    with pytest.warns(UserWarning, match="1 of 24 samples could not be read; their rows are NaN") as caught:
        pipeline.fit(files, pictures[1])
    assert len(caught) == 1


def test_fit_of_damaged_files_alone_says_so(files):
    for file in files:
        spoil(file)
    with pytest.raises(
        ValueError, match=r"Got 24 samples, but none of them could be read.*row 0\), which is not a whole"
    ) as e:
        PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan").fit(files)
    assert len(str(e.value)) < 600


@pytest.mark.parametrize("shape", [(8, 10, 12, 3), (8, 3, 10, 12), (8, 10, 12), (8, 360)], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_picture_of_an_array_that_holds_nan_is_a_bad_sample(shape, bad):
    X = np.random.default_rng(0).random(shape)
    extractor = PretrainedFeatureExtractor(tiny_cnn, image_shape=(10, 12, 3) if len(shape) == 2 else None,
                                           on_bad_sample="nan", random_state=0)  # fmt: skip
    expected = extractor.fit_transform(X)
    spoilt = X.copy()
    spoilt[0].flat[3], spoilt[5].flat[7] = bad, bad
    for fitted in (extractor.fit(X), extractor.fit(spoilt)):
        features, messages = told(fitted, spoilt)
        assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [0, 5]
        np.testing.assert_allclose(features[1:5], expected[1:5], atol=1e-5)
        assert "2 of 8 samples" in messages[0]
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        extractor.set_params(on_bad_sample="raise").fit(spoilt)


def test_rows_of_plain_numbers_have_to_be_finite():
    X = np.random.default_rng(0).normal(size=(6, 4))
    extractor = PretrainedFeatureExtractor(tiny_vectors, on_bad_sample="nan").fit(X)
    X[2, 1] = np.nan
    for run in (extractor.fit, extractor.transform):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            run(X)


def test_a_warning_stays_short_whatever_paths_are_called(files, tmp_path):
    extractor = PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan").fit(files)
    _, messages = told(extractor, [f"/nowhere/{'deep/' * 300}{row}.png" for row in range(500)] + files)
    assert "500 of 524" in messages[0]
    assert len(messages[0]) < 600
