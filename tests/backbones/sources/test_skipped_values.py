"""Checkpoints with settings, paths and the like beside their weights are read; nothing of a file's classes runs."""

import argparse
import collections
import datetime
import pathlib
import pickle
import sys
import threading
import types
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from torchvision.transforms import InterpolationMode

from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources._skipped_values import Skipped, read_skipping

VALUES: dict[str, Any] = {
    "arguments": argparse.Namespace(lr=0.1, output=Path("runs/1"), layers=[1, 2], inner=argparse.Namespace(a=None)),
    "paths": [Path("a"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")],
    "numbers of numpy": {"best": np.float64(0.5), "epoch": np.int64(3), "late": np.bool_(True)},
    "arrays": {"history": np.arange(3.0)},
    "dates": [datetime.datetime(2031, 1, 2), datetime.date(2031, 1, 2), datetime.timedelta(1), datetime.UTC],
    "version": torch.__version__,
    "kinds of dict": collections.defaultdict(list, a=[1]),
    "queue": collections.deque([1, 2], maxlen=3),
    "sets and ranges": [frozenset([1]), range(3), slice(1, 2), {1, 2}],
    "types": [int, float, str],
    "space": types.SimpleNamespace(a=1),
    "fraction": Fraction(1, 3),
    "interpolation": InterpolationMode.BICUBIC,
}


def first_weight(file: Path) -> torch.Tensor:
    weight: torch.Tensor = load_backbone(tiny_cnn, file).network[0].weight
    return weight


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", VALUES)
def test_what_stands_beside_weights_is_skipped(kind: str, zipped: bool, tmp_path: Path):
    network = tiny_cnn()
    before = set(torch.serialization.get_safe_globals())
    content = {"model": network.state_dict(), "args": VALUES[kind], "epoch": 3}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(first_weight(tmp_path / "w.pth"), network[0].weight)
    assert set(torch.serialization.get_safe_globals()) == before


def test_weights_in_a_dict_of_another_kind_are_found(tmp_path: Path):
    network = tiny_cnn()
    torch.save(collections.defaultdict(dict, model=network.state_dict()), tmp_path / "w.pth")
    assert torch.equal(first_weight(tmp_path / "w.pth"), network[0].weight)


class Reduced:
    """Unpickling it calls what it holds."""

    def __init__(self, *reduced: Any):
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


class Settings(argparse.Namespace):
    """Code of a file's own: to be made, it would have to be imported."""


@pytest.mark.parametrize("value", [Reduced(Path.touch, (Path("mark"),)), Settings(a=1), Reduced(eval, ("1",))])
def test_settings_do_not_let_code_in(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": tiny_cnn().state_dict(), "args": argparse.Namespace(a=value)}, "w.pth")
    with pytest.raises(ValueError, match=r"Refused to load .*run code"):
        first_weight(tmp_path / "w.pth")
    assert not Path("mark").exists()


def test_a_stand_in_keeps_nothing_and_calls_nothing(tmp_path: Path):
    """Whatever instructions a file gives: state set twice, state of slots, a callable as state, arguments."""
    called = []

    class Evil:
        def __call__(self, *args: Any) -> None:
            called.append(args)

    for state in ({"__setstate__": Evil(), "__class__": dict}, (None, {"__class__": Evil}), [Evil()]):
        one = Skipped(1, 2, key=3)
        one.__setstate__(state)
        one.__setstate__(state)
        assert type(one) is Skipped
        assert not hasattr(one, "__dict__")
    assert not called


@pytest.mark.parametrize("state", [{"__setstate__": print}, (None, {"__class__": collections.OrderedDict}), ({}, {})])
def test_a_crafted_state_of_settings_sets_nothing(state: Any, tmp_path: Path):
    value = Reduced(argparse.Namespace, (1, 2), state)
    torch.save({"w": torch.ones(2), "args": [value, value]}, tmp_path / "w.pth")
    if "__setstate__" in state:  # `print` is no name of the list
        with pytest.raises(pickle.UnpicklingError, match="print"):
            read_skipping(tmp_path / "w.pth")
    else:
        assert [type(one).__base__ for one in read_skipping(tmp_path / "w.pth")["args"]] == [Skipped, Skipped]


def test_no_module_that_a_file_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("easydict")
    kind = type("EasyDict", (dict,), {"__module__": "easydict", "__qualname__": "EasyDict"})
    module.EasyDict = kind
    monkeypatch.setitem(sys.modules, "easydict", module)
    network = tiny_cnn()
    torch.save({"model": network.state_dict(), "config": kind(a=kind(b=1))}, tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, "easydict", None)  # to import it would raise
    assert torch.equal(first_weight(tmp_path / "w.pth"), network[0].weight)


def test_threads_that_read_at_once_do_not_take_the_list_from_each_other(tmp_path: Path):
    torch.save({"model": tiny_cnn().state_dict(), "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    failed = []

    def read() -> None:
        try:
            for _ in range(20):
                read_skipping(tmp_path / "w.pth")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
