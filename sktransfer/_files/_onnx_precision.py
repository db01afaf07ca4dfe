"""ONNX files of fewer bits, by onnxruntime's own tools, and what that changes.

Convolutions are quantised with ranges of values that are learned from samples, and with weights scaled by channel.
Networks that mostly multiply matrices, as transformers do, find the range of each batch while they run: one range for
all samples is too coarse for them. Of MiniLM's predictions on film reviews, 0.99 stay the same, and 0.88 with one.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._files._onnx_export import import_onnx
from sktransfer._messages import first_line, named_extra
from sktransfer._process._locks import Lock

PRECISIONS = ("float32", "float16", "int8")
# From so many bytes on, weights are in a file of their own: a file of protobuf holds 2 GB.
_MOST_BYTES = 1_500_000_000
# onnxruntime's converters set switches of the whole process while they work.
_ONE_AT_A_TIME = Lock()


def check_precision(precision: str, has_samples: bool) -> None:
    """Raise if a file of that precision cannot be written here.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`.
    has_samples : bool
        Whether there are samples to calibrate with.

    Raises
    ------
    ValueError
        If int8 is asked for without samples.
    ImportError
        If onnxruntime is needed and not installed.
    """
    if precision == "int8" and not has_samples:
        raise ValueError(
            'Got precision="int8" without calibration; expected calibration=X, some samples like those of fit: they '
            "show which values occur, and what int8 changes. A hundred suffice."
        )
    if precision != "float32":
        import_onnxruntime()


def import_onnxruntime() -> Any:
    """Return the package onnxruntime.

    Returns
    -------
    module
        Imported where it is needed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    with named_extra("Files of float16 and int8 are written by the package onnxruntime", "onnx"):
        import onnxruntime
    return onnxruntime


def convert(file: Path, precision: str, samples: torch.Tensor, batches: Iterable[torch.Tensor], name: str) -> None:
    """Write a float32 file anew, with fewer bits.

    Parameters
    ----------
    file : Path
        The file, in a folder of its own. Input and output stay float32.
    precision : str
        `"float16"` or `"int8"`.
    samples : Tensor of shape (n, ...)
        Prepared samples to try the file with.
    batches : iterable of Tensor
        Prepared samples to calibrate int8 with.
    name : str
        Of the input.

    Raises
    ------
    ValueError
        If onnxruntime cannot convert this network, or float16 does not hold its values.
    """
    with _ONE_AT_A_TIME, TemporaryDirectory(dir=file.parent) as folder:
        try:
            if precision == "float16":
                _to_float16(file, name)
            else:
                _to_int8(file, Path(folder), batches, name)
            (found,) = open_session(file).run(None, {name: samples.numpy()})
        except (OSError, MemoryError):
            raise
        except Exception as error:  # onnxruntime raises many kinds
            raise ValueError(
                f"Got a network that onnxruntime cannot write in {precision} ({first_line(error)}); expected "
                'operations that it converts. Write the file with precision="float32".'
            ) from error
    if not np.isfinite(found).all():
        raise ValueError(
            f"Got a network whose values are beyond what {precision} holds: its results are NaN or infinite. Write the "
            'file with precision="float32".'
        )


def open_session(file: Path, threads: int = 0) -> Any:
    """Open a file with onnxruntime, on the CPU.

    Parameters
    ----------
    file : Path
        The file.
    threads : int, default=0
        Threads that compute; 0 leaves it to onnxruntime.

    Returns
    -------
    onnxruntime.InferenceSession
        Quiet: errors are raised.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def measure_change(
    file: Path, network: nn.Module, batches: Iterable[torch.Tensor], name: str, classes: str | None
) -> dict[str, Any]:
    """Compare what a file computes with what the network does.

    Parameters
    ----------
    file : Path
        The file.
    network : nn.Module
        On the CPU, in eval mode.
    batches : iterable of Tensor
        Prepared samples, one or more.
    name : str
        Of the input.
    classes : {"one", "several"} or None
        Whether outputs are probabilities of classes (one is predicted), of labels (several may be), or neither.

    Returns
    -------
    dict
        Fields of an `OnnxExport`, by name.
    """
    session, found, expected = open_session(file), [], []
    for batch in batches:
        found.append(session.run(None, {name: batch.numpy()})[0])
        with torch.no_grad():
            expected.append(network(batch).numpy())
    ours, theirs = np.concatenate(expected).astype(np.float64), np.concatenate(found).astype(np.float64)
    apart = np.abs(theirs - ours)
    if classes == "one":
        agreement = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    elif classes == "several":
        agreement = float(((ours > 0.5) == (theirs > 0.5)).all(axis=1).mean())
    else:
        spread = float(np.square(ours - ours.mean(axis=0)).sum())
        agreement = 1 - float(np.square(apart).sum()) / spread if spread else float(not apart.any())
    return {
        "n_samples": len(ours),
        "largest_difference": float(apart.max()),
        "mean_difference": float(apart.mean()),
        "agreement": agreement,
    }


# The two ways


def _to_float16(file: Path, name: str) -> None:
    onnx = import_onnx()
    with _folder_on_path():
        from onnxruntime.transformers.float16 import convert_float_to_float16
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the float32 number")  # of numbers that become 0 or infinite
        model = convert_float_to_float16(onnx.load(file), keep_io_types=True)
    # The conversion of the input is written last, behind what takes it.
    nodes = sorted(model.graph.node, key=lambda node: node.op_type != "Cast" or node.input[0] != name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    weights = file.with_name(f"{file.name}.data")
    weights.unlink(missing_ok=True)
    file.unlink()
    large = {"save_as_external_data": True, "location": weights.name} if model.ByteSize() > _MOST_BYTES else {}
    onnx.save_model(model, file, **large)


@contextmanager
def _folder_on_path() -> Iterator[None]:
    """Let onnxruntime's tools import each other by short names, and leave the path of imports as it was.

    They add their folder to it themselves, for good: a program's `import optimizer` would find theirs.
    """
    path = list(sys.path)
    try:
        import onnxruntime.transformers as tools

        sys.path.extend(tools.__path__)
        yield
    finally:
        sys.path[:] = path


def _to_int8(file: Path, folder: Path, batches: Iterable[torch.Tensor], name: str) -> None:
    with _folder_on_path():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

    weights = file.with_name(f"{file.name}.data")
    how: dict[str, Any] = {"weight_type": QuantType.QInt8, "per_channel": True}
    how["use_external_data_format"] = large = weights.exists()
    fused, done = folder / "fused.onnx", folder / file.name
    with _quiet():
        quant_pre_process(
            str(file), str(fused), skip_symbolic_shape=True, save_as_external_data=large, all_tensors_to_one_file=large
        )
        if _mostly_multiplies_matrices(fused):
            quantize_dynamic(str(fused), str(done), op_types_to_quantize=["MatMul", "Gemm", "Gather"], **how)
        else:
            reader = _calibration(batches, name)
            quantize_static(
                str(fused), str(done), reader, quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, **how
            )
    _name_used_domains_alone(done)
    weights.unlink(missing_ok=True)
    for made in folder.glob(f"{file.name}*"):
        made.replace(file.with_name(made.name))


def _name_used_domains_alone(file: Path) -> None:
    """Leave out the sets of operations that onnxruntime's optimiser names and the file does not use."""
    onnx = import_onnx()
    model = onnx.load(file, load_external_data=False)
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save_model(model, file)


def _mostly_multiplies_matrices(file: Path) -> bool:
    graph = import_onnx().load(file, load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    kinds = [node.op_type for node in graph.node if len(node.input) > 1 and node.input[1] in weights]
    return kinds.count("Conv") < kinds.count("MatMul") + kinds.count("Gemm")


def _calibration(batches: Iterable[torch.Tensor], name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):
        """Hands out prepared batches, one after another."""

        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._rest, None)
            return None if batch is None else {name: batch.numpy()}

    return Batches()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's tools from telling of their progress."""
    import logging

    root, before = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers
