"""What a user may rely on when sound files are damaged: the right sound, or an error that names the file."""

import io
import os
import tracemalloc
import warnings

import numpy as np
import pytest
import soundfile
from pretrained_models import make_sound_model

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs import make_reader
from sktransfer.inputs.sounds._preprocessing import SoundPreprocessing

RATE = 16000
SETTINGS = SoundPreprocessing("Wav2Vec2FeatureExtractor", "{}", "input_values", RATE)
KINDS = {
    "WAV of 8 bits": ("WAV", "PCM_U8"), "WAV of 16 bits": ("WAV", "PCM_16"), "WAV of 24 bits": ("WAV", "PCM_24"),
    "WAV of float64": ("WAV", "DOUBLE"), "extensible WAV": ("WAVEX", "PCM_16"), "large WAV": ("RF64", "PCM_16"),
    "AIFF": ("AIFF", "PCM_16"), "FLAC": ("FLAC", "PCM_16"), "Vorbis": ("OGG", "VORBIS"), "Opus": ("OGG", "OPUS"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
CHECKED = ("FLAC", "Vorbis", "Opus")  # whose checksums tell of each changed byte


def encode(kind, seconds=1.5, channels=1):
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time) + np.random.default_rng(0).normal(0, 0.05, len(time))
    file = io.BytesIO()
    form, subtype = KINDS[kind]
    soundfile.write(file, np.repeat(wave[:, None], channels, axis=1), RATE, format=form, subtype=subtype)
    return file.getvalue()


def load(path):
    return make_reader("sounds", SETTINGS).learn([path]).load(0).numpy()


def without_data(content):
    return content[: content.index(b"data")]


def without_a_page(content):
    pages = content.split(b"OggS")
    assert len(pages) > 5
    return b"OggS".join(pages[:3] + pages[4:])


def claiming(content, n_bytes):
    at = content.index(b"data") + 4
    return content[:4] + b"\xf0\xff\xff\xff" + content[8:at] + n_bytes.to_bytes(4, "little") + content[at + 4 :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_early_is_refused_wherever_it_ends(kind, tmp_path):
    content = encode(kind)
    for length in {0, 1, 4, 12, 40, *np.linspace(0, len(content) - 1, 20).astype(int).tolist()}:
        (tmp_path / "x").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"Got '.*x' \(row 0\), which (is not a whole|holds no) sound"):
            load(tmp_path / "x")


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_give_a_sound_or_an_error_and_an_error_where_there_are_checksums(kind, tmp_path):
    content, rng = encode(kind), np.random.default_rng(0)
    whole, quiet = load_bytes(content, tmp_path), 0
    for _ in range(30):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        try:
            got = load_bytes(bytes(damaged), tmp_path)
        except ValueError as error:
            assert "x' (row 0)" in str(error)  # noqa: PT017
            continue
        quiet += got.shape != whole.shape or not np.array_equal(got, whole)
        assert np.isfinite(got).all()
    assert not (quiet and kind in CHECKED)


def load_bytes(content, folder):
    (folder / "x").write_bytes(content)
    return load(folder / "x")


WAV = encode("WAV of 16 bits", 0.5)
MATLAB = io.BytesIO()
soundfile.write(MATLAB, np.zeros(8000), RATE, format="MAT5")
WRONG = {
    "empty": (b"", "it is empty"),
    "text": (b"This is a text, and nobody reads it aloud." * 9, "it does not begin like a sound"),
    "head alone": (WAV[: WAV.index(b"data") + 8], "it holds 0 of 16000 bytes"),
    "no samples": (claiming(WAV[: WAV.index(b"data") + 8], 0), "which holds no sound"),
    "no chunk of samples": (without_data(WAV) + b"LIST\4\0\0\0abcd", "not a whole sound"),
    "4 GB in few bytes": (claiming(WAV[:100], 0xFFFFFFF0), "it holds 56 of 4294967280 bytes"),
    "another format": (MATLAB.getvalue(), "it is of type MAT5|does not begin like a sound"),
    "rate of nothing": (WAV[:24] + bytes(4) + WAV[28:], "row 0"),
    "rate of 1": (WAV[:24] + b"\1\0\0\0" + WAV[28:], "with 1 samples per second; expected 100 to 1000000"),
    "rate of 4e9": (WAV[:24] + b"\0\xff\xff\x7f" + WAV[28:], "row 0"),
    "a few samples": (encode("WAV of 16 bits", 0.005), r"which is 0.005 seconds long \(80 samples"),
    "an hour and a half": (
        encode("FLAC", 0.5)[:21] + b"\xf5\x26\x5c\0\0" + encode("FLAC", 0.5)[26:],
        "claims .* limit",
    ),
    "page left out": (without_a_page(encode("Vorbis", 8.0)), "pages are missing before byte"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_sound_is_refused_with_its_reason(what, tmp_path):
    content, reason = WRONG[what]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"'.*x.wav' \(row 0\)[\s\S]*({reason})|{reason}"):
        load(tmp_path / "x.wav")


@pytest.mark.parametrize("what", ["4 GB in few bytes", "an hour and a half"])
def test_memory_grows_with_what_a_file_holds_not_with_what_it_claims(what, tmp_path):
    (tmp_path / "x.wav").write_bytes(WRONG[what][0])
    hour = encode("FLAC", 0.5)
    (tmp_path / "hour.flac").write_bytes(hour[:22] + (3599 * RATE).to_bytes(4, "big") + hour[26:])
    tracemalloc.start()
    for name in ("x.wav", "hour.flac"):
        with pytest.raises(ValueError, match="row 0"):
            load(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_a_wav_written_into_a_pipe_is_read_up_to_its_end(tmp_path):
    expected = load_bytes(WAV, tmp_path)
    for claimed in (0x7FFFF000, 0xFFFFFFFF):
        np.testing.assert_array_equal(load_bytes(claiming(WAV, claimed), tmp_path), expected)


def test_what_follows_the_samples_of_a_wav_does_not_matter(tmp_path):
    np.testing.assert_array_equal(load_bytes(WAV + b"LIST\4\0", tmp_path), load_bytes(WAV, tmp_path))


def test_an_mp3_of_variable_rate_that_does_not_say_its_length_is_refused_and_not_cut(tmp_path):
    content = encode("MP3", 6.0)
    second = content.find(content[:2], 4)
    with pytest.raises(ValueError, match=r"it does not say its length: \d+ of about \d+ samples would be read"):
        load_bytes(content[second:], tmp_path)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN"), (3e4, "floats reach")])
def test_floats_that_are_no_sound_are_refused(value, message, tmp_path):
    wave = np.full(16000, 0.1, dtype=np.float32)
    wave[12345] = value
    soundfile.write(tmp_path / "x.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match=rf"x.wav' \(row 0\), which is not a whole sound \(.*{message}"):
        load(tmp_path / "x.wav")


def test_a_file_that_changes_its_length_after_it_was_looked_at_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(WAV)
    samples = make_reader("sounds", SETTINGS).learn([tmp_path / "x"])
    stamp, digest = samples.stamp(0), samples.digest(0)
    (tmp_path / "x").write_bytes(encode("WAV of 16 bits", 0.7))
    with pytest.raises(ValueError, match="it has been written to since it was looked at"):
        samples.load(0)
    assert samples.stamp(0) != stamp
    assert samples.digest(0) != digest


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_missing_files_folders_and_pipes_are_counted_and_never_opened(tmp_path):
    (tmp_path / "x.wav").write_bytes(WAV)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(
        FileNotFoundError, match=r"Got 3 of 4 paths that are not files; expected paths of sounds.*y\.wav"
    ):
        make_reader("sounds", SETTINGS).learn([tmp_path / "x.wav", tmp_path / "y.wav", tmp_path, tmp_path / "pipe.wav"])


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return make_sound_model("wav2vec2", tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def files(tmp_path):
    """Eight good files, of which the last four are of several windows of 0.5 seconds."""
    files = [tmp_path / f"{row}.wav" for row in range(8)]
    for row, file in enumerate(files):
        file.write_bytes(encode("WAV of 16 bits", 0.3 + 0.1 * row if row < 3 else 1.4))
    return files


@pytest.mark.parametrize("cache", ["auto", None])
def test_each_kind_of_bad_row_is_nan_and_all_are_counted_in_one_warning(cache, name, files, tmp_path):
    extractor = PretrainedFeatureExtractor(
        name, on_bad_sample="nan", random_state=0, batch_size=4, precision="float32", feature_cache=cache
    )
    expected = extractor.fit(files[:3]).transform(files)
    flac = encode("FLAC", 1.4)
    for row, content in [(1, b""), (4, files[4].read_bytes()[:-9]), (6, flac[: len(flac) // 2])]:
        files[row].write_bytes(content)
    more = [None, 3, tmp_path, tmp_path / "none.wav", *(tmp_path / f"{number}" for number in range(len(WRONG)))]
    for number, (content, _) in enumerate(WRONG.values()):
        (tmp_path / f"{number}").write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features = extractor.transform([*files, *more])
    bad = [1, 4, 6, *range(8, 8 + len(more))]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(features).any(axis=1)), bad)
    good = np.setdiff1d(np.arange(8), bad)
    np.testing.assert_allclose(features[good], expected[good], atol=1e-5)
    assert len(caught) == 1
    assert str(caught[0].message).startswith(f"{len(bad)} of {8 + len(more)} samples could not be read")


def test_fit_and_predict_raise_with_row_and_path(name, files):
    y = np.arange(8) % 2
    classifier = FineTunedClassifier(name, random_state=0).fit(files, y)
    files[5].write_bytes(files[5].read_bytes()[:-100])
    extractor = PretrainedFeatureExtractor(name, random_state=0)
    for run in (lambda: extractor.fit_transform(files, y), lambda: classifier.predict(files)):
        with pytest.raises(ValueError, match=r"5\.wav' \(row 5\), which is not a whole sound"):
            run()
