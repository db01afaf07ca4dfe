"""A fault at each single place where one can be, one after another, counted: nothing is lost, nothing is half there.

After SQLite's own tests: the first call of the file layer fails, then the second, and so on, until none is left.
"""

import errno
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pytest
from networks import tiny_cnn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor


class Faults:
    """Lets calls through until it is the turn of one, which fails."""

    def __init__(self, error):
        self.error, self.turn, self.calls, self.struck = error, 0, 0, False

    def start(self, turn):
        self.turn, self.calls, self.struck = turn, 0, False

    def wrap(self, function):
        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == self.turn:
                self.struck = True
                raise type(self.error)(*self.error.args)  # a new one: its traceback holds on to what it went through
            return function(*args, **kwargs)

        return call


def tell(capsys, words):
    with capsys.disabled():
        print(f"\n{words}")


# Saving

DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [DISK_FULL, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_fault_at_each_step_of_a_save_leaves_the_old_model_or_the_new(error, pictures, tmp_path, monkeypatch, capsys):
    faults = Faults(error)
    old = FineTunedClassifier("squeezenet1_1", weights=None, random_state=0, store_backbone=False).fit(*pictures)
    new = FineTunedClassifier("squeezenet1_1", weights=None, random_state=1, store_backbone=False).fit(*pictures)
    path = tmp_path / "model"
    sktransfer.save(old, path)
    before = path.read_bytes()
    sktransfer.save(new, path)
    after = path.read_bytes()
    for name in ("fsync", "open", "close"):
        monkeypatch.setattr(f"sktransfer._files._model_file.os.{name}", faults.wrap(getattr(__import__("os"), name)))
    monkeypatch.setattr("safetensors.torch.save_file", faults.wrap(__import__("safetensors.torch").torch.save_file))
    for name in ("touch", "chmod", "stat", "replace"):
        monkeypatch.setattr(Path, name, faults.wrap(getattr(Path, name)))
    turn = 0
    while True:
        turn += 1
        faults.start(10**9)
        path.write_bytes(before)
        faults.start(turn)
        try:
            sktransfer.save(new, path)
        except (OSError, KeyboardInterrupt) as raised:
            assert (type(raised), raised.args) == (type(error), error.args)  # noqa: PT017
            assert faults.struck
            faults.start(10**9)
            assert path.read_bytes() in (before, after)
        else:
            faults_left = faults.struck
            faults.start(10**9)
            assert path.read_bytes() == after
            if not faults_left:
                break
        assert [file.name for file in tmp_path.iterdir()] == ["model"], "no half file is left"
        assert sktransfer.load(path).classes_.tolist() == ["leaf", "stone"]
    assert turn > 7
    tell(capsys, f"faults in a save ({type(error).__name__}): {turn - 1} places")


# The cache on disk


class Breaking(sqlite3.Connection):
    """A connection whose statements may fail."""

    faults = Faults(None)

    def execute(self, *args):
        return self.faults.wrap(super().execute)(*args)

    def executemany(self, *args):
        return self.faults.wrap(super().executemany)(*args)


CACHE_ERRORS = {
    "full disk": sqlite3.OperationalError("database or disk is full"),
    "locked": sqlite3.OperationalError("database is locked"),
    "damage": sqlite3.DatabaseError("database disk image is malformed"),
    "input/output": OSError(errno.EIO, "Input/output error"),
    "Ctrl-C": KeyboardInterrupt(),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", CACHE_ERRORS)
def test_a_fault_at_each_statement_of_the_cache_costs_no_result(kind, pictures, tmp_path, monkeypatch, capsys):
    X = pictures[0]
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(X)
    connect = sqlite3.connect
    monkeypatch.setattr(
        "sktransfer._cache._disk_store.sqlite3.connect", lambda *args, **how: connect(*args, factory=Breaking, **how)
    )
    Breaking.faults = Faults(CACHE_ERRORS[kind])
    turn = 0
    while True:
        turn += 1
        folder = tmp_path / str(turn)  # a store of its own
        extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=folder, batch_size=8)
        Breaking.faults.start(turn)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for _ in range(2):
                    np.testing.assert_allclose(extractor.fit(X).transform(X), expected, atol=1e-2)
            except KeyboardInterrupt:
                assert kind == "Ctrl-C"
        struck = Breaking.faults.struck
        Breaking.faults.start(10**9)
        assert len(caught) <= 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(extractor.fit(X).transform(X), expected, atol=1e-2)
        with sqlite3.connect(next(folder.glob("*.sqlite"))) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not struck:
            break
    assert turn > 20
    tell(capsys, f"faults in the cache ({kind}): {turn - 1} statements")
