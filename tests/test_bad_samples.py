"""A picture that cannot be read costs a row of NaN where that is asked for, never a night, and never another's row."""

import shutil
import warnings

import numpy as np
import pytest
from networks import tiny_cnn
from PIL import Image
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
    for row in (5, 9, 11, 13):
        assert f"'{files[row]}' (row {row})" in messages[0]
    assert "X[24] = None" in messages[0]


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
    for row in (3, 8, 20):
        assert f"(row {row})" in messages[0]


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
    assert "Got the picture in row 0, which is no whole image" in messages[0]


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


def test_fit_and_predict_always_raise_with_row_and_path(files, pictures):
    y = pictures[1]
    classifier = FineTunedClassifier(tiny_cnn, random_state=0).fit(files, y)
    spoil(files[0])
    extractor = PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan", random_state=0)
    for run in (lambda: extractor.fit(files), lambda: classifier.fit(files, y), lambda: classifier.predict(files)):
        with pytest.raises(ValueError, match=r"Got '.*00\.png' \(row 0\), which is no whole image"):
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
