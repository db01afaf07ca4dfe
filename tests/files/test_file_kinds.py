"""A path that names no plain file, or a file of another kind, gets a sentence at once: nothing hangs or is replaced."""

import os
import pickle
import socket
import stat
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from networks import tiny_vectors

import sktransfer
from sktransfer import PretrainedFeatureExtractor

MODEL = PretrainedFeatureExtractor("squeezenet1_1", weights=None)


@pytest.fixture
def fitted():
    return PretrainedFeatureExtractor(tiny_vectors).fit(np.zeros((2, 4), dtype=np.float32))


def make_special(folder, kind):
    """Return a path at which something stands that is not a plain file."""
    place = folder / kind.replace(" ", "_")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(place))
    elif kind == "link to itself":
        place.symlink_to(place)
    elif kind == "folder":
        place.mkdir()
    elif kind.startswith("link to a "):
        place.symlink_to(make_special(folder, kind.removeprefix("link to a ")))
    else:
        return type(place)("/dev/null" if kind == "device" else kind)
    return place


SPECIAL = {
    "pipe": r"a pipe \(FIFO\)",
    "socket": "a socket",
    "device": "a device",
    "/dev/zero": "a device",
    "folder": "a folder",
    "link to itself": "a link that leads back to itself",
    "link to a pipe": r"a pipe \(FIFO\)",
    "link to a device": "a device",
    "link to a link to a pipe": r"a pipe \(FIFO\)",
}


def within_seconds(call):
    """Raise what a call raises, or fail where it is still under way after 20 seconds."""
    raised = []

    def run():
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for what will never come"
    if raised:
        raise raised[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with pipes that have names")
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_not_a_plain_file_is_neither_replaced_nor_waited_for(kind, fitted, tmp_path):
    place = make_special(tmp_path, kind)
    before = os.lstat(place)
    for write in (sktransfer.save, lambda model, path: model.to_onnx(path)):
        with pytest.raises(OSError, match=rf"{SPECIAL[kind]}; expected the name of a file"):
            within_seconds(lambda write=write: write(fitted, place))
    with pytest.raises(FileNotFoundError, match=rf"{SPECIAL[kind]}; expected a file that sktransfer\.save"):
        within_seconds(lambda: sktransfer.load(place))
    after = os.lstat(place)
    assert (stat.S_IFMT(after.st_mode), after.st_ino) == (stat.S_IFMT(before.st_mode), before.st_ino)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with pipes that have names")
@pytest.mark.parametrize("ending", [".json", ".data"])
def test_what_is_written_beside_an_onnx_file_replaces_no_pipe(ending, fitted, tmp_path):
    os.mkfifo(tmp_path / f"model.onnx{ending}")
    with pytest.raises(OSError, match="a pipe"):
        fitted.to_onnx(tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == [f"model.onnx{ending}"]


NOWHERE = {
    "~nobody_of_this_name/model": (FileNotFoundError, "an unknown user"),
    "a\0b": (ValueError, "not a valid file name"),
    "\ud800": (ValueError, "not a valid file name"),
    "x" * 300: (OSError, r"Could not write 'x+\.\.\.x+'|which is not a file"),
    "": (OSError, "is a folder"),
    "/proc/model": (OSError, "Could not write '/proc/model'|may not write|which is not a file|does not exist"),
    3: (TypeError, "expected the name of a file: a str or a pathlib.Path"),
    None: (TypeError, "expected the name of a file"),
    b"model": (TypeError, "expected the name of a file"),
}


@pytest.mark.parametrize("path", NOWHERE, ids=lambda path: ascii(path)[:20])
def test_a_name_that_no_file_can_have_here_gets_a_sentence(path):
    error, match = NOWHERE[path]
    for call in (lambda: sktransfer.save(MODEL, path), lambda: sktransfer.load(path)):
        with pytest.raises(error, match=match) as caught:
            call()
        assert len(str(caught.value)) < 600


OTHERS = {
    "pickle 0": (lambda file: file.write_bytes(pickle.dumps(MODEL, protocol=0)), r"a pickle: joblib\.load"),
    "pickle 1": (lambda file: file.write_bytes(pickle.dumps(MODEL, protocol=1)), r"a pickle: joblib\.load"),
    "pickle 2": (lambda file: file.write_bytes(pickle.dumps(MODEL, protocol=2)), r"a pickle: joblib\.load"),
    "pickle 5": (lambda file: file.write_bytes(pickle.dumps(MODEL, protocol=5)), r"a pickle: joblib\.load"),
    "joblib": (lambda file: joblib.dump(MODEL, file), r"a pickle: joblib\.load"),
    **{
        f"joblib {how}": (
            lambda file, how=how: joblib.dump(MODEL, file, compress=(how, 3)),
            r"a compressed pickle of joblib\.dump: joblib\.load",
        )
        for how in ("zlib", "gzip", "bz2", "xz", "lzma")
    },
    "lz4": (lambda file: file.write_bytes(b"\x04\x22\x4d\x18" + bytes(50)), "a compressed pickle"),
    "torch": (lambda file: torch.save({"a": torch.zeros(2)}, file), "a file of torch.save.*weights=PATH"),
    "old torch": (
        lambda file: torch.save({"a": torch.zeros(2)}, file, _use_new_zipfile_serialization=False),
        "weights that torch.save wrote.*weights=PATH",
    ),
    "npz": (lambda file: np.savez(file.open("wb"), a=np.zeros(2)), "arrays of numpy.savez"),
    "npy": (lambda file: np.save(file.open("wb"), np.zeros(2)), "an array"),
    "zip": (lambda file: file.write_bytes(b"PK\x03\x04" + bytes(50)), "a zip archive"),
    "onnx": (lambda file: file.write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(9)), "an ONNX file"),
    "keras": (lambda file: file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "an HDF5 file"),
    "pointer": (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"), "git lfs pull"),
    "json": (lambda file: file.write_text(' {"model_type": "bert"}'), "a text file"),
    "page": (lambda file: file.write_text("\n<!DOCTYPE html><html></html>"), "a web page: the download went wrong"),
    "empty": (lambda file: file.touch(), "an empty file"),
    "noise": (lambda file: file.write_bytes(b"\x13\x37" * 99), "Copy the file again"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_called_by_its_name(kind, tmp_path):
    write, match = OTHERS[kind]
    write(tmp_path / "model")
    with pytest.raises(ValueError, match=match) as caught:
        sktransfer.load(tmp_path / "model")
    assert len(str(caught.value)) < 600


def test_a_file_of_skops_is_called_by_its_name(tmp_path):
    skops = pytest.importorskip("skops.io", reason="needs the extra skops")
    skops.dump(MODEL, tmp_path / "model")
    with pytest.raises(ValueError, match=r"a file of skops: skops\.io\.load"):
        sktransfer.load(tmp_path / "model")


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="needs files of Linux that block whoever reads them")
@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/mem", "/proc/kcore", "/sys/kernel/uevent_seqnum"])
def test_files_of_the_system_are_refused_without_waiting(path):
    with pytest.raises((ValueError, OSError), match="expected"):
        within_seconds(lambda: sktransfer.load(path))
