"""A fitted network as an ONNX file, for runtimes without torch: one tensor in, one tensor out, any number of samples.

Decoding, resizing and normalising stay outside it, so a JSON file beside it says how its input is prepared.
"""

import json
import os
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._files._onnx_export import OPSET, ExportTask, import_onnx, write_network
from sktransfer._files._whole_files import check_target, written_whole
from sktransfer._messages import shown

_INPUT = "prepared"


def export(
    network: nn.Module,
    samples: torch.Tensor,
    varying: str | None,
    described: Mapping[str, Any],
    path: "str | os.PathLike[str]",
    output_name: str,
    classes: np.ndarray | None = None,
) -> None:
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

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If the path is a folder.
    ValueError
        If ONNX has no operation for one of the network's, or the network depends on the size of the batch.

    Warns
    -----
    UserWarning
        If torch's older exporter wrote the file, although this version of torch prefers the newer one.
    """
    import_onnx()
    place = check_target(path)
    for ending in (".json", ".data"):
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
        text = json.dumps(description, indent=2, ensure_ascii=False, default=lambda value: value.item())
        file.with_name(f"{place.name}.json").write_text(f"{text}\n", encoding="utf-8")


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
