"""What a user may rely on when X holds addresses: what fsspec reads is read as files on the disk are."""

import builtins
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pandas as pd
import pytest
import soundfile
from networks import tiny_cnn
from pretrained_models import make_sound_model, make_text_model

from sktransfer import PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer.inputs import _remote_files
from sktransfer.inputs._remote_files import is_address


class Server(ThreadingHTTPServer):
    """Serves contents by name, and counts how often each was asked for and fetched."""

    daemon_threads = True

    def __init__(self):
        self.contents, self.tag, self.fetched, self.status = {}, None, [], {}
        super().__init__(("127.0.0.1", 0), Handler)

    def address(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.server.fetched.append(self.path[1:])
        content = self.answer()
        if content is not None:
            self.wfile.write(content)

    def answer(self):
        name = self.path[1:]
        content = self.server.contents.get(name)
        status = self.server.status.get(name, 200 if content is not None else 404)
        self.send_response(status)
        if status == 200:
            self.send_header("Content-Length", str(len(content)))
            if self.server.tag is not None:
                self.send_header("ETag", self.server.tag.format(hashlib.md5(content).hexdigest()))
        else:
            content = None
            self.send_header("Content-Length", "0")
        self.end_headers()
        return content

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(contents):
    server = Server()
    server.contents = {f"{number}.png": content for number, content in enumerate(contents)}
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    _remote_files._KNOWN.clear()
    clear_cache()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(60)


@pytest.fixture(scope="module")
def contents(paths):
    return [open(path, "rb").read() for path in paths[:6]]  # noqa: PTH123


@pytest.fixture(scope="module")
def extractor(paths):
    return PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(list(paths[:6]))


@pytest.fixture(scope="module")
def expected(extractor, paths):
    return extractor.transform(list(paths[:6]))


@pytest.fixture
def in_memory(contents):
    system = fsspec.filesystem("memory")
    for number, content in enumerate(contents):
        system.pipe_file(f"/pictures/{number}.png", content)
    yield [f"memory://pictures/{number}.png" for number in range(len(contents))]
    system.rm("/pictures", recursive=True)


@pytest.mark.parametrize("form", [list, pd.Series, lambda X: [{"bytes": None, "path": address} for address in X]])
def test_an_address_is_what_the_file_on_the_disk_is(form, in_memory, extractor, expected, paths):
    clear_cache()
    extractor.transform(list(paths[:6]))
    before = cache_info()
    np.testing.assert_array_equal(extractor.transform(form(in_memory)), expected)
    assert cache_info().hits - before.hits == 6
    clear_cache()
    fitted = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None)
    np.testing.assert_allclose(fitted.fit_transform(form(in_memory)), expected, rtol=1e-5, atol=1e-6)


def test_files_in_archives_and_on_this_machine_have_addresses(extractor, expected, contents, paths, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for number, content in enumerate(contents):
            file.writestr(f"in/{number}.png", content)
    archived = [f"zip://in/{number}.png::{tmp_path / 'all.zip'}" for number in range(6)]
    np.testing.assert_array_equal(extractor.transform(archived), expected)
    np.testing.assert_array_equal(extractor.transform([f"file://{path}" for path in paths[:6]]), expected)
    with pytest.raises(FileNotFoundError, match=r"Got 1 of 2 paths that are not files.*nothing\.png"):
        extractor.transform([f"zip://in/nothing.png::{tmp_path / 'all.zip'}", archived[0]])


def test_only_addresses_are_addresses():
    for path in ("s3://a/b", "memory://x", "zip://a::s3://b/c", "simplecache::https://a/b", "HTTPS://a"):
        assert is_address(path)
    for path in ("C:\\x.jpg", "C://x.jpg", "c:/x", "/a/b", "a/b.png", "see: a://b", "://x", "a b://c"):
        assert not is_address(path)


def test_a_text_with_an_address_in_it_is_a_text(tmp_path):
    texts = ["good", "memory://nowhere", "see https://example.org"]
    features = PretrainedFeatureExtractor(make_text_model("bert", tmp_path / "bert")).fit_transform(texts)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("tag", [None, '"{}"', 'W/"{}"'])
def test_each_file_is_fetched_once_and_with_a_strong_tag_not_again(tag, server, extractor, expected):
    server.tag = tag
    X = [server.address(f"{number}.png") for number in (0, 1, 2, 3, 4, 5, 0)]
    np.testing.assert_array_equal(extractor.transform(X)[:6], expected)
    assert sorted(server.fetched) == [f"{number}.png" for number in range(6)]
    server.fetched.clear()
    hits = cache_info().hits
    np.testing.assert_array_equal(extractor.transform(X)[:6], expected)
    assert cache_info().hits - hits == 7
    assert len(server.fetched) == (0 if tag == '"{}"' else 6)


@pytest.mark.parametrize("tag", [None, '"{}"'])
def test_another_content_at_an_address_is_another_picture(tag, server, extractor, expected):
    server.tag = tag
    X = [server.address("0.png")]
    np.testing.assert_array_equal(extractor.transform(X), expected[:1])
    server.contents["0.png"] = server.contents["3.png"]
    np.testing.assert_array_equal(extractor.transform(X), expected[3:4])


def test_what_finds_no_room_to_wait_is_fetched_again(server, extractor, expected, monkeypatch):
    monkeypatch.setattr(_remote_files, "MOST_WAITING", 0)
    X = [server.address(f"{number}.png") for number in range(6)]
    np.testing.assert_array_equal(extractor.transform(X), expected)
    assert sorted(server.fetched) == sorted([f"{number}.png" for number in range(6)] * 2)


def test_a_file_that_changes_between_two_fetches_is_not_kept(server, extractor, contents, monkeypatch):
    monkeypatch.setattr(_remote_files, "MOST_WAITING", 0)
    samples = extractor._read([server.address("0.png")])
    stamp, digest = samples.stamp(0), samples.digest(0)
    assert digest == hashlib.sha256(contents[0]).digest()
    server.contents["0.png"] = contents[1]
    samples.load(0)
    assert samples.stamp(0) != stamp


def test_missing_files_are_counted_and_named(server, in_memory, extractor):
    X = [in_memory[0], "memory://pictures/no.png", server.address("no.png"), "nowhere.png"]
    match = r"Got 3 of 4 paths that are not files.*'memory://pictures/no\.png', 'http://127.*/no\.png', 'nowhere\.png'"
    with pytest.raises(FileNotFoundError, match=match):
        extractor.transform(X)
    tolerant = PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan").fit(X)
    with pytest.warns(UserWarning, match=r"3 of 4 samples could not be read.*memory://pictures/no\.png' \(row 1\)"):
        assert np.isnan(tolerant.transform(X)).all(axis=1).tolist() == [False, True, True, True]


def test_files_that_cannot_be_read_are_named_or_become_nan(server, extractor):
    server.status["1.png"] = 403
    X = [server.address("0.png"), server.address("1.png")]
    with pytest.raises(
        ValueError, match=r"Could not read 'http://.*/1\.png' \(row 1\): 403.*Forbidden.*Check the addr"
    ):
        extractor.transform(X)
    tolerant = PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan").fit(X)
    with pytest.warns(UserWarning, match=r"1 of 2 samples could not be read.*1\.png' \(row 1\): 403"):
        assert np.isnan(tolerant.transform(X)).all(axis=1).tolist() == [False, True]
    server.contents["2.png"] = server.contents["2.png"][:100]
    with pytest.raises(ValueError, match=r"Got 'http://.*/2\.png' \(row 0\), which is not a whole image"):
        extractor.transform([server.address("2.png")])


def test_a_server_that_is_not_there_is_said(extractor):
    server = Server()
    server.server_close()
    with pytest.raises(ValueError, match=r"Could not read 'http://.*/0\.png' \(row 0\): .*[Cc]onnect"):
        extractor.transform([server.address("0.png")])


def test_an_unknown_kind_of_address_is_said(extractor):
    with pytest.raises(ValueError, match=r"Could not read 'nonsense://x\.png' \(row 0\): .*nonsense"):
        extractor.transform(["nonsense://x.png"])


def test_without_fsspec_it_is_said_what_to_install(extractor, in_memory, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("fsspec"):
            raise ImportError("no module")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'memory:// need the package fsspec.*pip install "sktransfer\[remote\]"'):
        extractor.transform(in_memory)


def test_sounds_at_addresses_are_fetched_once(server, tmp_path):
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], 0.5 * np.sin(np.arange(3000) * (number + 1) / 9), 8000)
        server.contents[f"{number}.wav"] = files[-1].read_bytes()
    listener = PretrainedFeatureExtractor(make_sound_model("wav2vec2", tmp_path / "model")).fit(files)
    expected = listener.transform(files)
    clear_cache()
    X = [server.address(f"{number}.wav") for number in range(3)]
    np.testing.assert_allclose(listener.transform(X), expected, atol=1e-5)
    assert sorted(server.fetched) == ["0.wav", "1.wav", "2.wav"]
    with pytest.raises(
        FileNotFoundError, match=r"Got 1 of 1 paths that are not files; expected paths of sounds.*no\.wav"
    ):
        listener.transform([server.address("no.wav")])


def test_files_of_fsspec_are_open_files(in_memory, extractor, expected):
    opened = [fsspec.open(address, "rb").open() for address in in_memory]
    np.testing.assert_array_equal(extractor.transform(opened), expected)
    assert isinstance(opened[0], io.IOBase)
