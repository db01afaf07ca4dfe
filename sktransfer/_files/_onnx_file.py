"""A fitted network as an ONNX file, for runtimes without torch: one tensor in, one tensor out, any number of samples.

Decoding, resizing and normalising stay outside it, so a JSON file beside it says how its input is prepared.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._files._whole_files import check_target
from sktransfer._messages import first_line, named_extra
from sktransfer._process._locks import Lock

# The version of ONNX's operators: torch from 2.6 to 2.15 writes it, and runtimes have known it since 2023.
OPSET = 18
_INPUT = "prepared"
# The exporter keeps its state in globals of torch.
_ONE_AT_A_TIME = Lock()


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
        _write_network(network, samples, expected, Path(folder, place.name), output_name, varying)
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


def _write_network(
    network: nn.Module,
    samples: torch.Tensor,
    expected: torch.Tensor,
    file: Path,
    output_name: str,
    varying: str | None,
) -> None:
    some = samples[1:] if varying is None else samples[1:, :-1]
    axes = {0: "batch"} if varying is None else {0: "batch", 1: varying}
    try:
        with _ONE_AT_A_TIME, _exporting(), torch.no_grad():
            any_size = _takes_any_batch(network, some, samples, expected)
            if any_size:
                # dynamo=False is the older of torch's two exporters. It is the one that works in every torch from 2.6
                # on, it writes every network of torchvision that was tried, several times faster, and needs onnx alone.
                torch.onnx.export(
                    network,
                    (some,),
                    str(file),
                    input_names=[_INPUT],
                    output_names=[output_name],
                    dynamic_axes={_INPUT: axes, output_name: {0: "batch"}},
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
    if not any_size:
        raise ValueError(
            "Got a network whose operations depend on how many samples a batch has; expected the same for any number. "
            "In the network's forward, write x.flatten(1) or x.shape[0] instead of len(x) and int(x.shape[0])."
        )
    _gather_weights(file)
    _check_file(file)


def _takes_any_batch(network: nn.Module, some: torch.Tensor, samples: torch.Tensor, expected: torch.Tensor) -> bool:
    """Tell whether the operations that two samples are traced with compute of three, or longer, what the network does.

    The exporter traces too, and a number that Python took from the batch would stand in the file for good.
    """
    traced = torch.jit.trace(lambda x: network(x), (some,), check_trace=False)  # type: ignore[no-untyped-call]
    try:
        found = traced(samples)
    except RuntimeError:  # shapes that do not fit
        return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-5, equal_nan=True)


@contextmanager
def _exporting() -> Iterator[None]:
    """Set torch so that it writes each attention as operations that ONNX has, and neither warns nor prints."""
    fast = torch.backends.mha.get_fastpath_enabled()
    switch: Any = getattr(torch._C, "_jit_set_onnx_log_enabled", None)
    torch.backends.mha.set_fastpath_enabled(False)
    # Newer versions of torch turn this log on in each export, for good, and it prints the graph wherever one fails.
    torch._C._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_set_onnx_log_enabled = switch
        torch.backends.mha.set_fastpath_enabled(fast)


def _gather_weights(file: Path) -> None:
    """Put weights of more than 2 GB, of which torch writes each to a file of its own, into one."""
    scattered = [one for one in file.parent.iterdir() if one != file]
    if not scattered:
        return
    onnx = _import_onnx()
    model = onnx.load(file)
    for one in scattered:
        one.unlink()
    onnx.save_model(model, file, save_as_external_data=True, location=f"{file.name}.data")


def _check_file(file: Path) -> None:
    """Refuse what torch has written where shapes do not fit: it gets a few operations wrong without a word."""
    onnx = _import_onnx()
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(
            f"Got a network that torch writes as ONNX wrongly ({first_line(error)}); expected operations whose shapes "
            "fit. Write the operation with others in the network's forward, and fit again."
        ) from error


def _import_onnx() -> Any:
    with named_extra("A network is written for other runtimes by the package onnx", "onnx"):
        import onnx
    return onnx
