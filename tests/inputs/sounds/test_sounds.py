"""What a user may rely on when X holds sounds."""

import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import transformers
from pretrained_models import SOUND_FAMILIES, make_sound_model, make_sounds

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs import SoundPreprocessing, make_reader
from sktransfer.inputs._rows import Rows

RATE = 16000
EXTRACTORS = {
    "whisper": (transformers.WhisperFeatureExtractor, "input_features"),
    "ast": (transformers.ASTFeatureExtractor, "input_values"),
    "wav2vec2": (transformers.Wav2Vec2FeatureExtractor, "input_values"),
}


def settings_of(extractor, argument):
    """What a network wants whose feature extractor this is."""
    return SoundPreprocessing.from_settings(type(extractor).__name__, extractor.to_dict(), argument)


def preprocessing(window=None, rate=RATE):
    """What a network like wav2vec2 wants, with its window in seconds."""
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=rate)
    made = settings_of(extractor, "input_values")
    record = {**made.record, "window": None if window is None else round(window * rate)}
    return SoundPreprocessing.from_record(record)


def read(X, window=None, sampling_rate=None, rate=RATE):
    """Return the windows of each sound, as they are loaded."""
    samples = make_reader("sounds", preprocessing(window, rate), sampling_rate=sampling_rate).learn(Rows(X).values)
    return [samples.load(row).numpy() for row in range(len(samples))]


def tone(seconds, rate=RATE, pitch=220.0):
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def close(got, expected, off=1e-6):
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=off)


# Forms of X


@pytest.fixture(scope="module")
def waves():
    return [tone(0.3), tone(0.3, pitch=440), tone(0.3, pitch=660)]


@pytest.fixture(scope="module")
def files(waves, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for row, wave in enumerate(waves):
        soundfile.write(folder / f"{row}.wav", wave, RATE, subtype="FLOAT")
    return sorted(folder.iterdir())


FORMS = {
    "list of arrays": lambda waves, files: waves,
    "array": lambda waves, files: np.stack(waves),
    "array with channels last": lambda waves, files: np.stack(waves)[..., None],
    "array with channels first": lambda waves, files: np.stack(waves)[:, None],
    "tensor": lambda waves, files: torch.tensor(np.stack(waves)),
    "list of tensors": lambda waves, files: [torch.tensor(wave) for wave in waves],
    "Series of arrays": lambda waves, files: pd.Series(waves, index=[5, 3, 1]),
    "float64": lambda waves, files: [wave.astype(np.float64) for wave in waves],
    "big-endian": lambda waves, files: [wave.astype(">f4") for wave in waves],
    "pathlib": lambda waves, files: files,
    "str": lambda waves, files: list(map(str, files)),
    "array of paths": lambda waves, files: np.array(list(map(str, files))),
    "Series of paths": lambda waves, files: pd.Series(list(map(str, files))),
    "table of paths": lambda waves, files: pd.DataFrame({"file": list(map(str, files))}),
    "paths and arrays": lambda waves, files: [files[0], waves[1], str(files[2])],
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_x_gives_the_same_windows(form, waves, files):
    got = read(FORMS[form](waves, files), sampling_rate=RATE)
    for one, wave in zip(got, waves, strict=True):
        close(one, wave[None], 1e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_sounds_of_different_lengths_are_followed_by_silence(kind):
    short, long = read([kind(tone(0.1)), kind(tone(0.4))], sampling_rate=RATE)
    close(long, tone(0.4)[None])
    close(short, np.pad(tone(0.1), (0, round(0.3 * RATE)))[None])


@pytest.mark.parametrize("shape", [(4800,), (4800, 1), (4800, 2), (2, 4800), (4800, 8), (8, 4800), (64, 4800)])
def test_channels_are_averaged_wherever_they_stand(shape):
    values = np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)
    long_side = np.argmax(shape)
    expected = values if values.ndim == 1 else values.mean(axis=1 - long_side)
    close(read([values], sampling_rate=RATE)[0], expected[None])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
def test_integers_have_the_full_scale_of_their_type(dtype):
    info = np.iinfo(dtype)
    half = (info.max - info.min + 1) / 2
    middle = half if dtype == "uint8" else 0
    values = (tone(0.3).astype(np.float64) * half + middle).round().astype(dtype)
    close(read([values], sampling_rate=RATE)[0], tone(0.3)[None], off=1.01 / half + 1e-7)


def test_floats_somewhat_beyond_full_scale_stay_as_they_are():
    close(read([tone(0.3) * 5], sampling_rate=RATE)[0], tone(0.3)[None] * 5, 1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (tone(0.3) * 32768, r"Got X\[0\], in which floats reach 163.*; expected integers, or floats within \[-1, 1\]"),
        (tone(0.3) * np.nan, r"Got X\[0\], in which values are NaN or infinite"),
        (np.where(np.arange(4800) == 4799, -np.inf, 0.1), r"Got X\[0\], in which values are NaN or infinite"),
        (np.full(4800, 1e300), r"Got X\[0\], in which values are NaN or infinite"),
        (np.zeros(4800, dtype=np.int64), r"Got X\[0\] of type int64; expected uint8, int8, int16"),
        (np.zeros(4800, dtype=np.uint16), r"Got X\[0\] of type uint16; expected"),
        (np.zeros(4800, dtype=bool), r"Got X\[0\] of type bool; expected"),
        (np.zeros(4800, dtype=complex), r"Got X\[0\] of type complex128; expected"),
        (np.zeros((3, 4800, 2)), r"Got X\[0\] = array.*; expected a path, or an array of shape \(n_samples,\)"),
        (np.zeros((4800, 65)), r"Got X\[0\] of shape \(4800, 65\) with 65 channels; expected at most 64"),
        (np.zeros(0), r"Got X\[0\] of shape \(0, 1\), which holds no sound; expected at least 0.01 seconds"),
        (np.zeros((0, 2)), r"Got X\[0\] of shape .*, which holds no sound"),
        (
            np.zeros(1),
            r"is 6.3e-05 seconds long \(1 samples at 16000 per second\); expected at least 0.01. Correct its",
        ),
        (None, r"Got X\[0\] = None; expected a path, or an array"),
        (
            b"a.wav",
            r"Got the file in row 0, which is not a whole sound \(it does not begin like a sound\); expected",
        ),
        (np.bytes_(b"a.wav"), r"Got X\[0\] in an array of NumPy's type 'S', which drops zero bytes.*list of bytes"),
        ({"array": [0.1]}, r"Got X\[0\] with an array and sampling_rate=None; expected its samples per second"),
        ({"array": [0.1], "sampling_rate": 0.5}, r"Got X\[0\] with an array and sampling_rate=0.5; expected"),
        ({"array": [[[0.1]]], "sampling_rate": 9}, r"Got X\[0\] = array.*; expected a path, or an array"),
        ({"bytes": None, "path": None}, r"Got X\[0\] = {'bytes': None.*; expected a path, or an array"),
        ({"sound": b"a.wav"}, r"Got X\[0\] = {'sound'.*; expected a path, or an array"),
    ],
)
def test_a_row_that_is_no_sound_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        read([values, tone(0.3), np.zeros((300, 2))], sampling_rate=RATE)


@pytest.mark.parametrize("X", [tone(0.3), np.stack([tone(0.3), tone(0.3)], axis=1), torch.tensor(tone(0.3))])
def test_a_single_sound_is_not_taken_for_several(X):
    with pytest.raises(ValueError, match=r"which looks like one sound; expected several.*\[X\]"):
        read(X, sampling_rate=RATE)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_rows_of_an_array_keep_their_scale_and_may_be_longer_tomorrow(dtype, tmp_path):
    name = make_sound_model("wav2vec2", tmp_path / "model")
    X = np.stack([tone(0.3, 1000), tone(0.3, 1000, 90)])
    given = (X * 32768).astype("int16") if dtype == "int16" else X
    fitted = extractor(name, on_bad_sample="nan").fit(given)
    np.testing.assert_allclose(fitted.transform(given), extractor(name).fit_transform(list(X)), atol=1e-3)
    assert fitted.transform([tone(0.8, 1000)]).shape == fitted.transform(given[:1]).shape
    with pytest.warns(UserWarning, match="1 of 2 samples could not be read"):
        features = fitted.transform(np.stack([X[0], X[1] * np.nan]))
    np.testing.assert_array_equal(np.isnan(features).all(axis=1), [False, True])


# Rates


def test_arrays_need_a_sampling_rate_and_files_do_not(waves, files):
    with pytest.raises(ValueError, match=r"Got sounds as arrays, and sampling_rate=None; expected"):
        read(waves)
    close(read(files)[0], waves[0][None])


@pytest.mark.parametrize("rate", [1, 99, 10**6 + 1, 10**9])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(
        ValueError, match=rf"Got sampling_rate={rate}; expected the samples per second .* 100 to 1000000"
    ):
        read([tone(0.3)], sampling_rate=rate)


def test_a_rate_that_leaves_next_to_nothing_of_a_sound_is_refused():
    with pytest.raises(ValueError, match=r"is 0.0048 seconds long \(4800 samples at 1000000 per second\); expected"):
        read([tone(0.3)], sampling_rate=1_000_000)


def test_a_sampling_rate_leaves_files_at_their_own(files, waves):
    close(read(files, sampling_rate=8000)[0], waves[0][None])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_a_tone_of_any_rate_comes_out_as_at_the_networks_own(rate, tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(1.0, rate), rate, subtype="FLOAT")
    from_file, from_array = read([tmp_path / "x.wav"])[0], read([tone(1.0, rate)], sampling_rate=rate)[0]
    np.testing.assert_array_equal(from_file, from_array)
    inner = slice(800, -800)  # at its ends a tone that begins at once rings
    close(from_array[0, inner], tone(1.0)[inner], 2e-3)


def test_resampling_in_blocks_is_resampling_as_a_whole():
    import soxr

    values = np.random.default_rng(0).uniform(-0.5, 0.5, 200_001).astype(np.float32)
    (got,) = read([values], sampling_rate=44100)
    whole = soxr.resample(values, 44100, RATE, quality="HQ")
    close(got[0, : len(whole)], whole)
    assert not got[0, len(whole) :].any()


# Kinds of files


@pytest.mark.parametrize(
    ("ending", "subtype", "off"),
    [
        *[("wav", "PCM_U8", 1e-2), ("wav", "PCM_16", 1e-4), ("wav", "PCM_24", 1e-6), ("wav", "PCM_32", 1e-6)],
        *[("wav", "FLOAT", 0), ("wav", "DOUBLE", 1e-7), ("wav", "ULAW", 3e-2), ("wav", "MS_ADPCM", 3e-2)],
        *[("flac", "PCM_16", 1e-4), ("flac", "PCM_24", 1e-6), ("aiff", "PCM_16", 1e-4)],
        *[("ogg", "VORBIS", 0.1), ("mp3", "MPEG_LAYER_III", 0.1)],
    ],
)
def test_each_kind_of_file_is_read(ending, subtype, off, tmp_path):
    wave = tone(0.5)
    soundfile.write(tmp_path / f"x.{ending}", np.stack([wave * 1.5, wave * 0.5], axis=1), RATE, subtype=subtype)
    (got,) = read([tmp_path / f"x.{ending}"])
    length = got.shape[1]
    close(got[0, : len(wave)], wave[:length], off)


def test_eight_channels_of_a_file_are_averaged(tmp_path):
    values = np.random.default_rng(0).uniform(-0.5, 0.5, (4800, 8)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", values, RATE, subtype="FLOAT")
    close(read([tmp_path / "x.wav"])[0], values.mean(axis=1)[None])


NAMES = {"umlaut": "höher.wav", "plain": "no ending", "bytes": os.fsdecode(b"\xff\xfe.wav")}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_file_may_be_called_anything(name, tmp_path):
    soundfile.write(tmp_path / "x", tone(0.3), RATE, format="WAV", subtype="FLOAT")
    try:
        (tmp_path / "x").rename(tmp_path / name)
    except OSError:
        pytest.skip("the file system has no such names")
    close(read([tmp_path / name])[0], tone(0.3)[None])


def test_tags_before_an_mp3_are_no_part_of_it(tmp_path):
    soundfile.write(tmp_path / "x.mp3", tone(0.5), RATE)
    plain = read([tmp_path / "x.mp3"])[0]
    tags = b"ID3\4\0\0\0\0\2\0" + bytes(256)
    (tmp_path / "x.mp3").write_bytes(tags + (tmp_path / "x.mp3").read_bytes())
    np.testing.assert_array_equal(read([tmp_path / "x.mp3"])[0], plain)


# Windows


@pytest.mark.parametrize("seconds", [0.01, 0.5, 0.999, 1.0, 1.005])
def test_a_sound_of_a_window_or_a_hair_more_is_one_window(seconds):
    (got,) = read([tone(seconds)], window=1.0, sampling_rate=RATE)
    assert got.shape == (1, RATE)
    wave = tone(seconds)[:RATE]
    close(got[0, : len(wave)], wave)
    assert not got[0, len(wave) :].any()


@pytest.mark.parametrize(("seconds", "count"), [(1.02, 2), (1.5, 2), (2.0, 2), (2.005, 2), (2.3, 3), (7.9, 8)])
def test_a_longer_sound_is_heard_in_windows_evenly_spread_that_leave_nothing_out(seconds, count):
    wave = (np.arange(1, round(seconds * RATE) + 1) / (10 * RATE)).astype(np.float32)
    (got,) = read([wave], window=1.0, sampling_rate=RATE)
    assert got.shape == (count, RATE)
    starts = np.round(got[:, 0] * 10 * RATE).astype(int) - 1
    for start, window in zip(starts, got, strict=True):
        np.testing.assert_array_equal(window, wave[start : start + RATE])
    assert starts[0] == 0
    assert 0 <= len(wave) - (starts[-1] + RATE) <= 0.01 * RATE
    assert np.ptp(np.diff(starts)) <= 1
    assert np.diff(starts).max() <= RATE


@pytest.mark.parametrize("rate", [7999, 11025, 22051, 44100])
def test_the_number_of_windows_follows_from_the_head_of_a_file_at_any_rate(rate, tmp_path):
    for n_samples in (rate - 1, rate, rate + 1, 2 * rate, 2 * rate + 1, 3 * rate - 1, round(1.01 * rate)):
        soundfile.write(tmp_path / "x.wav", np.full(n_samples, 0.1), rate)
        samples = make_reader("sounds", preprocessing(1.0)).learn([tmp_path / "x.wav"])
        assert samples.load(0).shape == (samples.size(0), RATE)
        assert samples.size(0) == max(1, round(n_samples / rate))


def test_a_window_is_learned_from_the_longest_sound_up_to_ten_seconds():
    for longest, window in [(0.32, 0.4), (0.4, 0.4), (0.05, 0.1), (9.95, 10.0), (12.0, 10.0)]:
        reader = make_reader("sounds", preprocessing(), sampling_rate=8000)
        reader.learn([tone(0.03, 8000), tone(longest, 8000)])
        assert reader.preprocessing.window == round(window * RATE)
        assert reader.read([tone(12, 8000)]).size(0) == int(np.ceil(12 / window - 0.03))


def test_a_network_with_a_window_of_its_own_keeps_it():
    for kind, seconds in (("whisper", 30.0), ("ast", 10.24)):
        make, argument = EXTRACTORS[kind]
        assert settings_of(make(), argument).window == round(seconds * RATE)


# What networks get


@pytest.mark.parametrize("seconds", [0.2, 1.0, 9.0])
@pytest.mark.parametrize("kind", EXTRACTORS)
def test_a_network_gets_what_its_own_feature_extractor_gives(kind, seconds):
    make, argument = EXTRACTORS[kind]
    wave = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    samples = make_reader("sounds", settings_of(make(), argument), sampling_rate=RATE).learn([wave, tone(9.5)])
    (got,) = samples.prepare(samples.load(0)[None]).numpy()
    expected = make()(wave, sampling_rate=RATE, return_tensors="np")[argument].astype(np.float32)
    if kind == "wav2vec2":
        expected = np.pad(expected, ((0, 0), (0, round(9.5 * RATE) - len(wave))))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_an_example_has_the_shape_of_a_real_sound(kind):
    make, argument = EXTRACTORS[kind]
    made = settings_of(make(), argument)
    reader = make_reader("sounds", made, sampling_rate=RATE)
    samples = reader.learn([tone(1.0)])
    shape = samples.prepare(samples.load(0)[None]).shape
    assert made.example(None, 1).shape == reader.example(1, None).shape == shape
    assert reader.example(3, None).shape == (3, 3, *shape[2:])


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_threads_that_share_a_feature_extractor_do_not_disturb_each_other(kind):
    make, argument = EXTRACTORS[kind]
    made = settings_of(make(), argument)
    waves = [np.random.default_rng(seed).normal(0, 0.1, 4000 + 800 * seed).astype(np.float32) for seed in range(6)]
    expected = [made.extract(wave) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(made.extract, waves * 3))
    assert all(torch.equal(one, other) for one, other in zip(got, expected * 3, strict=True))


def test_a_feature_extractor_of_images_is_refused():
    with pytest.raises(ValueError, match=r"Got a feature extractor 'ViTImageProcessorX'; expected one for sounds"):
        SoundPreprocessing.from_settings("ViTImageProcessorX", {}, "pixel_values")


def test_a_feature_extractor_of_another_network_is_refused():
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="which gives input_values, for a network that takes input_features; expected"):
        SoundPreprocessing.from_settings("Wav2Vec2FeatureExtractor", {}, "input_features")


# Through the estimators


@pytest.fixture(scope="module", params=SOUND_FAMILIES)
def name(request, tmp_path_factory):
    return make_sound_model(request.param, tmp_path_factory.mktemp(request.param) / "model")


def extractor(name, **parameters):
    given = {"sampling_rate": 1000, "random_state": 0, "precision": "float32", "feature_cache": None} | parameters
    return PretrainedFeatureExtractor(name, **given)


def test_silent_sounds_give_finite_features(name):
    X = [*make_sounds(4)[0], np.zeros(300, np.float32), np.zeros(3000, np.float32), np.full(300, 0.5, np.float32)]
    assert np.isfinite(extractor(name).fit_transform(X)).all()


def test_a_sound_alone_has_the_features_that_it_has_among_others(name):
    X = [*make_sounds(6)[0], tone(3.3, 1000), tone(2.5, 1000)]
    fitted = extractor(name, batch_size=3).fit(X)
    together = fitted.transform(X)
    alone = np.concatenate([fitted.transform([sound]) for sound in X])
    np.testing.assert_allclose(together, alone, atol=2e-5)


@pytest.mark.parametrize("pooling", ["avg", "mean", "max", "cls", "last"])
def test_pooling_is_over_positions_and_then_over_windows(pooling, tmp_path):
    name = make_sound_model("wav2vec2", tmp_path / "model")
    sound = np.random.default_rng(0).normal(0, 0.1, 800).astype(np.float32)
    fitted = extractor(name, pooling=pooling).fit([tone(0.4, 1000)])
    got = fitted.transform([sound])
    halves = [fitted.transform([half]) for half in (sound[:400], sound[400:])]
    expected = np.maximum(*halves) if pooling == "max" else np.mean(halves, axis=0)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_features_are_those_of_the_network_itself(name, seconds):
    folder = name.removeprefix("hf:")
    prepared = transformers.AutoFeatureExtractor.from_pretrained(folder)
    rate = prepared.sampling_rate
    sound = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    network = network.get_encoder() if network.config.is_encoder_decoder else network
    values = torch.tensor(prepared(sound, sampling_rate=rate, return_tensors="np")[network.main_input_name])
    with torch.no_grad():
        expected = network(values).last_hidden_state.mean(1).numpy()
    np.testing.assert_allclose(extractor(name, sampling_rate=rate).fit_transform([sound]), expected, atol=1e-5)


def test_a_classifier_learns_pitches_and_is_never_augmented_when_it_predicts(name, tmp_path):
    X, y = make_sounds(24)
    for row, sound in enumerate(X):
        soundfile.write(tmp_path / f"{row:02}.wav", sound, 1000, subtype="FLOAT")
    paths = sorted(tmp_path.glob("*.wav"))
    classifier = FineTunedClassifier(
        name, freeze_depth=2, strategy="fine_tune", augment="strong", max_epochs=2, random_state=0, precision="float32"
    ).fit(paths, y)
    first = classifier.predict_proba(paths)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, classifier.predict_proba(paths))
    np.testing.assert_allclose(classifier.set_params(sampling_rate=1000).predict_proba(paths), first, atol=1e-6)


def test_a_saved_model_hears_the_same(tmp_path):
    X, y = make_sounds(12)
    X[1] = np.tile(X[1], 40)
    name = make_sound_model("wav2vec2", tmp_path / "model")
    classifier = FineTunedClassifier(name, sampling_rate=1000, random_state=0).fit(X, y)
    sktransfer.save(classifier, tmp_path / "saved")
    loaded = sktransfer.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.predict_proba(X), classifier.predict_proba(X), atol=1e-6)
    copied = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_allclose(copied.predict_proba(X), classifier.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_a_sound_that_was_heard_is_not_heard_again_whatever_its_file_is_called(kind, tmp_path):
    sktransfer.clear_cache()
    name = make_sound_model("wav2vec2", tmp_path / "model")
    X = [tone(0.5, 1000, pitch) for pitch in (50, 80, 130)]
    for row, wave in enumerate(X):
        soundfile.write(tmp_path / f"{row}.wav", wave, 1000, subtype="FLOAT")
        soundfile.write(tmp_path / f"again{row}.wav", wave, 1000, subtype="FLOAT")
    once, again = (sorted(tmp_path.glob(f"{prefix}?.wav")) for prefix in ("", "again"))
    once, again = (once, again) if kind == "files" else (X, [wave.copy() for wave in X])
    fitted = extractor(name, feature_cache="auto").fit(once)
    first = fitted.transform(once)
    before = sktransfer.cache_info().misses
    np.testing.assert_array_equal(fitted.transform(again), first)
    assert sktransfer.cache_info().misses == before
    if kind == "arrays":  # the same numbers, heard at another rate, are another sound
        slower = extractor(name, feature_cache="auto", sampling_rate=500).fit(X).transform(X)
        assert sktransfer.cache_info().misses > before
        assert not np.allclose(slower, first, atol=1e-5)


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(package, files, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'the package {package}. It is not installed: pip install "sktransfer\['):
        read(files, rate=8000)
