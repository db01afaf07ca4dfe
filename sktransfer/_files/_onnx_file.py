"""A fitted network as an ONNX file, for runtimes without torch: one tensor in, one tensor out, any number of samples.

Decoding, resizing and normalising stay outside it, so a JSON file beside it says how its input is prepared. torch has
two exporters: the one built on torch.export writes the file where it can, and else the older one, built on TorchScript.
"""

import copy
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._files._model_file import check_target
from sktransfer._messages import first_line, named_extra
from sktransfer._process._locks import Lock

# The version of ONNX's operators: torch from 2.6 to 2.15 writes it, and runtimes have known it since 2023.
OPSET = 18
_INPUT = "prepared"
# The exporters keep their state in globals of torch.
_ONE_AT_A_TIME = Lock()
# How the two are called in the file beside.
_TODAYS, _OLDER = "torch.export", "TorchScript"
# Since when torch itself takes the one built on torch.export unless told otherwise, and warns of the older one.
_DEFAULT_SINCE = (2, 9)
# What torch says of TorchScript and of its own code for it. `export` gives one warning instead, about the file.
_SAID_OF_THE_OLDER = "|".join(
    (
        "You are using the legacy TorchScript-based ONNX export",
        r"`torch\.jit\.trace` is (deprecated|not supported)",
        "The feature will be removed",
        "Unconvertible ops are not definitive",
    )
)


@dataclass(frozen=True)
class _Task:
    """What is to be written, and three samples, or longer ones, with what the network makes of them, to check it by."""

    network: nn.Module
    samples: torch.Tensor
    expected: torch.Tensor
    varying: str | None
    output_name: str
    file: Path

    @property
    def some(self) -> torch.Tensor:
        """Two samples, or shorter ones, for the exporter to try."""
        return self.samples[1:] if self.varying is None else self.samples[1:, :-1]

    @property
    def axes(self) -> dict[int, str]:
        return {0: "batch"} if self.varying is None else {0: "batch", 1: self.varying}

    def agrees(self, found: torch.Tensor) -> bool:
        """Tell whether the results for all samples are the network's, but for rounding."""
        rounding = 1e-4 * float(self.expected.nan_to_num(0, 0, 0).abs().max())
        same_shape = found.shape == self.expected.shape
        return same_shape and torch.allclose(found, self.expected, rtol=1e-3, atol=rounding, equal_nan=True)


def export(
    network: nn.Module,
    samples: torch.Tensor,
    varying: str | None,
    described: Mapping[str, Any],
    path: "str | os.PathLike[str]",
    output_name: str,
    classes: np.ndarray | None = None,
) -> None:
    """Write a network to `path`, and to `path` + `".json"` what has to be known to use it.

    Each file appears whole or not at all, the network last. Where its weights exceed the 2 GB that a file of protobuf
    holds, they are a third file, `path` + `".data"`.

    Parameters
    ----------
    network : nn.Module
        On the CPU; it is put into eval mode, and no weight of it is changed.
    samples : Tensor of shape (3, ...)
        Prepared samples to try it with.
    varying : str or None
        What the second axis of samples counts, where they differ in how many they have.
    described : mapping
        How samples are prepared, in words and numbers: it stands in the file beside.
    path : path-like
        Where to.
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
        If torch's older exporter wrote the file although torch has a newer one.
    """
    _import_onnx()
    place = check_target(path)
    for ending in (".json", ".data"):
        check_target(f"{place}{ending}")
    network.eval()  # a mere container of layers in eval mode says otherwise, and torch would put them back into that
    shape = list(samples.shape[1:]) if varying is None else [varying, *samples.shape[2:]]
    with torch.no_grad():
        expected = network(samples)
    description = {
        "sktransfer": _own_version(),
        "opset": OPSET,
        "input": {"name": _INPUT, "type": str(samples.dtype).removeprefix("torch."), "shape": ["batch", *shape]},
        "output": {"name": output_name, "type": "float32", "shape": ["batch", *expected.shape[1:]]},
        **described,
        **({} if classes is None else _describe_classes(classes)),
    }
    # In a folder of their own they have the names that they will have, which a file of weights is found by.
    with tempfile.TemporaryDirectory(prefix=".sktransfer-", dir=place.parent) as folder:
        task = _Task(network, samples, expected, varying, output_name, Path(folder, place.name))
        description["exporter"], why_older = _write_network(task)
        if why_older:
            warnings.warn(
                f"This ONNX file was written by torch's older exporter, which torch means to remove: {why_older}. The "
                "file is good, but a later torch may not be able to write it again.",
                UserWarning,
                stacklevel=3,  # the line that called to_onnx
            )
        text = json.dumps(description, indent=2, ensure_ascii=False, default=lambda value: value.item())
        Path(folder, f"{place.name}.json").write_text(f"{text}\n", encoding="utf-8")
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == place.name):
            file.replace(place.with_name(file.name))


# What stands beside


def _describe_classes(classes: np.ndarray) -> dict[str, Any]:
    plain = [_to_plain(label) for label in classes]
    if None not in plain:
        return {"classes": plain}
    note = f"The labels are no type of JSON's ({type(classes[0]).__name__}); they stand here as text."
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


# What torch writes


def _write_network(task: _Task) -> tuple[str, str]:
    """Return the name of the exporter that wrote the file, and why it is the older one where torch would rather not."""
    why_older = ""
    known = tuple(map(int, torch.__version__.split(".")[:2])) >= _DEFAULT_SINCE
    if known and find_spec("onnxscript") is None:
        why_older = 'today\'s exporter needs onnxscript (pip install "sktransfer[onnx]")'
    with _ONE_AT_A_TIME, _slow_attention(), torch.no_grad():
        if known and not why_older:
            try:
                _write_by_export(task)
                return _TODAYS, ""
            except (OSError, MemoryError):
                raise
            except Exception as error:  # it may stop anywhere
                why_older = f"today's exporter could not ({first_line(_first_cause(error))})"
            for half_written in task.file.parent.iterdir():
                half_written.unlink()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _SAID_OF_THE_OLDER, DeprecationWarning)
            warnings.filterwarnings("ignore", _SAID_OF_THE_OLDER, FutureWarning)
            # A number that Python takes from a tensor is what the comparison with three samples is for.
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
            _write_by_tracing(task)
    return _OLDER, why_older


def _write_by_export(task: _Task) -> None:
    """Write the file with today's exporter, which raises where the size of a batch has become a constant."""
    # Meanwhile fakes take the place of a network's parameters, and another thread that predicts would compute with them.
    shared = {id(tensor): tensor for tensor in (*task.network.parameters(), *task.network.buffers())}
    program = torch.onnx.export(
        copy.deepcopy(task.network, shared),
        (task.some,),
        input_names=[_INPUT],
        output_names=[task.output_name],
        dynamic_shapes=(task.axes,),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph = program.model.graph
    for each in (graph, *graph.all_nodes()):
        each.metadata_props.clear()  # lines of source code, and the folders that they are in on this machine
    program.save(str(task.file), external_data=False)
    _check_file(task, program.exported_program.module())


def _write_by_tracing(task: _Task) -> None:
    """Write the file with the older exporter, which needs onnx alone.

    Where it fails it may print the graph to stdout, past Python: a missing operation is looked for before.
    """
    try:
        traced = _trace(task)
        if traced is not None:
            missing = torch.onnx.utils.unconvertible_ops(task.network, (task.some,), opset_version=OPSET)[1]
            if missing:
                raise LookupError(", ".join(sorted(set(missing))))
            torch.onnx.export(
                task.network,
                (task.some,),
                str(task.file),
                input_names=[_INPUT],
                output_names=[task.output_name],
                dynamic_axes={_INPUT: task.axes, task.output_name: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # it may stop anywhere
        raise ValueError(
            f"Got a network that torch cannot write as ONNX ({first_line(error)}); expected operations that opset "
            f"{OPSET} has. Write the operation with others in the network's forward, or end before it with layer=."
        ) from error
    if traced is None:
        raise ValueError(
            "Got a network whose operations depend on how many samples a batch has; expected the same for any number. "
            "In the network's forward, write x.flatten(1) or x.shape[0] instead of len(x) and int(x.shape[0])."
        )
    _gather_weights(task.file)
    try:
        _check_file(task, traced)
    except Exception as error:
        raise ValueError(
            f"Got a network that torch writes as ONNX wrongly ({first_line(error)}); expected operations whose shapes "
            "fit. Write the operation with others in the network's forward, and fit again."
        ) from error


def _trace(task: _Task) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the operations that two samples are traced with, if they compute of three what the network does.

    The exporter traces too, and a number that Python took from the batch would stand in the file for good.
    """
    traced = torch.jit.trace(lambda x: task.network(x), (task.some,), check_trace=False)  # type: ignore[no-untyped-call]
    try:
        return traced if task.agrees(traced(task.samples)) else None
    except RuntimeError:  # shapes that do not fit
        return None


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Set torch so that each attention is operations that ONNX has."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _gather_weights(file: Path) -> None:
    """Put weights of more than 2 GB, each of which the older exporter writes to a file of its own, into one."""
    scattered = [one for one in file.parent.iterdir() if one != file]
    if not scattered:
        return
    onnx = _import_onnx()
    model = onnx.load(file)
    for one in scattered:
        one.unlink()
    onnx.save_model(model, file, save_as_external_data=True, location=f"{file.name}.data")


def _check_file(task: _Task, program: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Raise where shapes do not fit or results differ: torch writes a few operations wrongly without a word."""
    _import_onnx().checker.check_model(str(task.file), full_check=True)
    if find_spec("onnxruntime") is None:
        found = program(task.samples)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what matters is raised
        session = onnxruntime.InferenceSession(str(task.file), options, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {_INPUT: task.samples.numpy()})[0])
    if not task.agrees(found):
        raise ValueError("of three samples it computes something else")


def _import_onnx() -> Any:
    with named_extra("A network is written for other runtimes by the package onnx", "onnx"):
        import onnx
    return onnx
