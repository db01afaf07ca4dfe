"""A fitted network as an ONNX file, for runtimes without torch: one tensor in, one tensor out, any number of samples.

A JSON file beside it says how its input is prepared, unless the file itself does that.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._files._onnx_export import OPSET, ExportTask, import_onnx, write_network
from sktransfer._files._onnx_export_result import OnnxExport
from sktransfer._files._onnx_pictures import PICTURES, check_preprocessing, put_in_front
from sktransfer._files._onnx_precision import check_precision, convert, measure_change, open_session
from sktransfer._files._whole_files import check_target, written_whole
from sktransfer._messages import shown

_INPUT = "prepared"
_TOKENIZER = ".tokenizer.json"
# Height and width of a picture that is timed, where the file prepares pictures.
_TIMED_SIDES = (375, 500)
# With less agreement than this, a file is not what its user expects.
_LEAST_AGREEMENT = 0.95
_SECONDS_OF_TIMING = 0.3


@dataclass(frozen=True)
class Wishes:
    """What a person asks of a file.

    Parameters
    ----------
    preprocessing : bool, default=False
        Whether it prepares pictures by itself, and a tokenizer for texts lies beside it.
    precision : str, default="float32"
        One of `PRECISIONS`.
    batches : callable or None, default=None
        Returns an iterator of prepared batches, to calibrate and compare with.
    classes : {"one", "several"} or None, default=None
        Whether the output holds probabilities of classes (one is predicted), of labels (several may be), or neither.
    """

    preprocessing: bool = False
    precision: str = "float32"
    batches: Callable[[], Iterator[torch.Tensor]] | None = None
    classes: str | None = None


def export(
    network: nn.Module,
    samples: torch.Tensor,
    varying: str | None,
    described: Mapping[str, Any],
    path: "str | os.PathLike[str]",
    output_name: str,
    classes: np.ndarray | None = None,
    wishes: Wishes | None = None,
) -> OnnxExport:
    """Write a network to `path`, and a JSON description of its input and output to `path` + `".json"`.

    Each file appears whole or not at all, the network last. Weights that are too large for one file of protobuf, which
    holds 2 GB, are a third file, `path` + `".data"`; torch's newer exporter moves them there from 1.5 GB on.

    Parameters
    ----------
    network : nn.Module
        On the CPU; it is put into eval mode, and no weight of it is changed. Until this returns, no other thread may
        compute with these modules; it may with others that share their weights.
    samples : Tensor of shape (3, ...)
        Prepared samples to try it with.
    varying : str or None
        The name of the second axis of samples, such as `"tokens"`, if its length varies.
    described : mapping
        How samples are prepared, in words and numbers, for the JSON file.
    path : path-like
        The file to write.
    output_name : str
        Name of the output.
    classes : ndarray of shape (n_classes,) or None, default=None
        Labels, in the order of the outputs.
    wishes : Wishes or None, default=None
        How the file is wanted.

    Returns
    -------
    OnnxExport
        Size, speed and, where there are batches to compare with, what the file changes.

    Raises
    ------
    ImportError
        If the package onnx, or another that it takes, is not installed.
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If the path is a folder.
    ValueError
        If ONNX has no operation for one of the network's, the network depends on the size of the batch, or the file
        cannot be what is wished.

    Warns
    -----
    UserWarning
        If torch's older exporter wrote the file, although this version of torch prefers the newer one; if the file's
        results are far from the network's.
    """
    wishes = wishes or Wishes()
    import_onnx()
    check_precision(wishes.precision, wishes.batches is not None)
    if wishes.preprocessing:
        check_preprocessing(described)
    place = check_target(path)
    for ending in (".json", ".data", _TOKENIZER):
        check_target(f"{place}{ending}")
    network.eval()  # all of it: a container may say training=True around layers that are in eval mode
    shape = list(samples.shape[1:]) if varying is None else [varying, *samples.shape[2:]]
    with torch.no_grad():
        expected = network(samples)
    description = {
        "sktransfer": _own_version(),
        "opset": OPSET,
        "input": {"name": _INPUT, "type": _type_of(samples), "shape": ["batch", *shape]},
        "output": {"name": output_name, "type": _type_of(expected), "shape": ["batch", *expected.shape[1:]]},
        "precision": wishes.precision,
        **described,
        **({} if classes is None else _describe_classes(classes)),
    }
    with written_whole(place, path) as file:
        task = ExportTask(network, samples, expected, varying, _INPUT, output_name, file)
        description["exporter"], why_older = write_network(task)
        if why_older:
            warnings.warn(
                f"torch's older exporter wrote {shown(place.name)}, because {why_older}. The file is correct, but "
                "torch plans to remove that exporter: a later version may not be able to write this network as ONNX.",
                UserWarning,
                stacklevel=3,  # the line that called to_onnx
            )
        batches = wishes.batches
        if wishes.precision != "float32":
            convert(file, wishes.precision, samples, batches() if batches else (), _INPUT)
        change = measure_change(file, network, batches(), _INPUT, wishes.classes) if batches else {}
        timed = samples[:1].numpy()
        if wishes.preprocessing:
            described_anew, timed = _prepare_inside(file, description, timed)
            description |= described_anew
        text = json.dumps(description, indent=2, ensure_ascii=False, default=lambda value: value.item())
        file.with_name(f"{place.name}.json").write_text(f"{text}\n", encoding="utf-8")
        size = sum(one.stat().st_size for one in (file, file.with_name(f"{place.name}.data")) if one.exists())
        milliseconds = _milliseconds(file, description["input"]["name"], timed)
    if change and not change["agreement"] >= _LEAST_AGREEMENT:  # NaN as well
        warnings.warn(_far_from_the_estimator(place, wishes, change), UserWarning, stacklevel=3)
    return OnnxExport(place, wishes.precision, size / 1e6, milliseconds, timed.shape, **change)


def _prepare_inside(file: Path, description: Mapping[str, Any], timed: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Put what prepares samples into the file, or beside it; return what is now to be said, and a sample to time."""
    preprocessing = description["preprocessing"]
    if description["kind"] == "images":
        put_in_front(file, preprocessing, _INPUT)
        channels = preprocessing["channels"]
        takes = {"name": PICTURES, "type": "uint8", "shape": ["batch", "height", "width", channels]}
        picture = np.random.default_rng(0).integers(0, 256, (1, *_TIMED_SIDES, channels), dtype=np.uint8)
        return {"input": takes, "preprocessing_inside": True}, picture
    if description["kind"] == "texts":
        tokenizer = file.with_name(f"{file.name}{_TOKENIZER}")
        tokenizer.write_text(preprocessing["tokenizer"], "utf-8")
        rest = {name: value for name, value in preprocessing.items() if name != "tokenizer"}
        return {"preprocessing": rest, "tokenizer_file": tokenizer.name}, timed
    return {}, timed


def _far_from_the_estimator(place: Path, wishes: Wishes, change: Mapping[str, Any]) -> str:
    share, n_samples = change["agreement"], change["n_samples"]
    what = f"R² of its outputs is {share:.3f}, with the estimator's as truth"
    if wishes.classes is not None:
        what = f"it predicts what the estimator does for {share:.1%} of {n_samples} samples"
    return (
        f"{shown(place.name)} in {wishes.precision} is far from the estimator: {what}; expected at least "
        f"{_LEAST_AGREEMENT:.0%}. Calibrate with more samples, which are like those that it will see. Or take "
        'precision="float16" or "float32".'
    )


def _milliseconds(file: Path, name: str, timed: np.ndarray) -> float | None:
    """Return the time for one sample in onnxruntime, the fastest of several, or `None` where that is not installed."""
    try:
        session = open_session(file)
    except ImportError:
        return None
    session.run(None, {name: timed})
    times: list[float] = []
    while len(times) < 3 or (sum(times) < _SECONDS_OF_TIMING and len(times) < 20):
        start = time.perf_counter()
        session.run(None, {name: timed})
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


# What the JSON file says


def _type_of(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _describe_classes(classes: np.ndarray) -> dict[str, Any]:
    plain = [_to_plain(label) for label in classes]
    if None not in plain:
        return {"classes": plain}
    note = f"The labels have a type that JSON does not have ({type(classes[0]).__name__}); they stand here as text."
    return {"classes": [str(label) for label in classes], "classes_note": note}


def _to_plain(label: Any) -> str | bool | int | float | None:
    """Return a label as JSON has it, or `None` where JSON has no such type; of numpy's dates, `item` makes integers."""
    if isinstance(label, np.generic) and label.dtype.kind in "biuf":
        label = label.item()
    return label if isinstance(label, str | bool | int | float) else None


def _own_version() -> str:
    try:
        return version("sktransfer")
    except PackageNotFoundError:  # run from a folder
        return "unknown"
