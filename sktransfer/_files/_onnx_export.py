"""torch's two ways to write a network as ONNX, and the check that the file computes what the network does.

The newer exporter, built on torch.export, is tried first. The older one, built on TorchScript, writes what the newer
one cannot, and everything where the newer one is not installed; torch plans to remove it.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer._messages import first_line, named_extra
from sktransfer._process._locks import Lock

# The version of ONNX's operators: torch from 2.6 to 2.15 writes it, and runtimes have known it since 2023.
OPSET = 18
NEWER, OLDER = "torch.export", "TorchScript"
# The first version of torch that prefers the newer exporter, and warns where somebody calls the older one.
_PREFERRED_SINCE = (2, 9)
# Both exporters keep their state in globals of torch.
_ONE_AT_A_TIME = Lock()
# What torch says of TorchScript, and of its own calls to it. We say instead what that means for the file.
_ABOUT_THE_OLDER = "|".join(
    (
        "You are using the legacy TorchScript-based ONNX export",
        r"`torch\.jit\.trace` is (deprecated|not supported)",
        "The feature will be removed",
        "Setting `operator_export_type` to something other than default is deprecated",
    )
)


@dataclass(frozen=True)
class ExportTask:
    """A network to write, and three samples with its results, by which the file is checked.

    Parameters
    ----------
    network : nn.Module
        On the CPU, in eval mode. While it is written, no other thread may compute with these modules.
    samples : Tensor of shape (3, ...)
        Prepared samples.
    expected : Tensor of shape (3, ...)
        The network's results for them.
    varying : str or None
        The name of the second axis of samples, if its length varies.
    input_name, output_name : str
        Names in the file.
    file : Path
        In an empty folder.
    """

    network: nn.Module
    samples: torch.Tensor
    expected: torch.Tensor
    varying: str | None
    input_name: str
    output_name: str
    file: Path

    @property
    def trial(self) -> torch.Tensor:
        """Two samples for the exporter to run, shorter than the others if the length varies."""
        return self.samples[1:] if self.varying is None else self.samples[1:, :-1]

    @property
    def axes(self) -> dict[int, str]:
        """Names of the axes of the input that may have any length."""
        return {0: "batch"} if self.varying is None else {0: "batch", 1: self.varying}

    def agrees(self, found: torch.Tensor) -> bool:
        """Tell whether results for the first samples are the network's, up to rounding."""
        expected = self.expected[: len(found)]
        rounding = 1e-4 * float(self.expected.nan_to_num(0, 0, 0).abs().max())
        same_shape = found.shape == expected.shape
        return same_shape and torch.allclose(found, expected, rtol=1e-3, atol=rounding, equal_nan=True)


def write_network(task: ExportTask) -> tuple[str, str]:
    """Write the file with the newer exporter if possible, and otherwise with the older one.

    Parameters
    ----------
    task : ExportTask
        What to write, and where.

    Returns
    -------
    exporter : str
        `NEWER` or `OLDER`.
    why_older : str
        Why the newer one did not write the file, to follow "because"; empty if it did, or if this version of torch
        prefers the older one.

    Raises
    ------
    ValueError
        If neither can write the network.
    """
    prefers_newer = tuple(map(int, torch.__version__.split(".")[:2])) >= _PREFERRED_SINCE
    with _ONE_AT_A_TIME, _plain_attention(), torch.no_grad():
        why_older = _try_newer(task) if prefers_newer else ""
        if prefers_newer and not why_older:
            return NEWER, ""
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", _ABOUT_THE_OLDER, category)
            # It tells of numbers that Python took from a tensor; whether they do harm is found by comparing results.
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            _write_by_tracing(task)
    return OLDER, why_older


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Switch off torch's fused attention, which ONNX has no operation for."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


# The newer exporter


def _try_newer(task: ExportTask) -> str:
    """Write the file, or return why that failed and leave nothing behind."""
    try:
        import onnxscript  # noqa: F401 (torch imports it too, and says less where it is missing)
    except ImportError:
        return 'the newer one needs the package onnxscript (pip install "sktransfer[onnx]")'
    try:
        _write_by_export(task)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds
        for half_written in task.file.parent.iterdir():
            half_written.unlink()
        return f"the newer one failed ({first_line(_first_cause(error))})"
    return ""


def _write_by_export(task: ExportTask) -> None:
    """Raise also where the network works for one size of batch alone."""
    program = torch.onnx.export(
        task.network,
        (task.trial,),
        input_names=[task.input_name],
        output_names=[task.output_name],
        dynamic_shapes=(task.axes,),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    assert program.exported_program is not None
    # torch notes for each operation the lines of Python that it came from, with the folders of this machine.
    model: Any = program.model
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
    program.save(str(task.file))
    _check_file(task, program.exported_program.module())


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


# The older exporter


def _write_by_tracing(task: ExportTask) -> None:
    try:
        traced = _trace(task)
        if traced is not None:
            _write_traced(task)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds
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


def _trace(task: ExportTask) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the operations that torch noted for the trial, or `None` if they are wrong for all three samples.

    The exporter notes the same: a number that Python took from the trial, such as its length, is a constant there.
    """
    traced = torch.jit.trace(lambda x: task.network(x), (task.trial,), check_trace=False)  # type: ignore[no-untyped-call]
    try:
        return traced if task.agrees(traced(task.samples)) else None
    except RuntimeError:  # shapes that do not fit
        return None


def _write_traced(task: ExportTask) -> None:
    """Write the file, and raise for operations that ONNX lacks.

    An option lets such operations pass: where the exporter raises for them itself, it prints the graph to stdout.
    Where torch has removed that option, as it plans to, it is left out.
    """
    option = "operator_export_type"
    known = option in inspect.signature(torch.onnx.export).parameters
    lenient: dict[str, Any] = {option: torch.onnx.OperatorExportTypes.ONNX_FALLTHROUGH} if known else {}
    torch.onnx.export(
        task.network,
        (task.trial,),
        str(task.file),
        input_names=[task.input_name],
        output_names=[task.output_name],
        dynamic_axes={task.input_name: task.axes, task.output_name: {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
        **lenient,
    )
    nodes = import_onnx().load(task.file, load_external_data=False).graph.node
    missing = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain}
    if missing:
        raise LookupError(", ".join(sorted(missing)))


def _gather_weights(file: Path) -> None:
    """Put weights of more than 2 GB into one file: the older exporter writes each to its own file."""
    scattered = [one for one in file.parent.iterdir() if one != file]
    if not scattered:
        return
    onnx = import_onnx()
    model = onnx.load(file)
    for one in scattered:
        one.unlink()
    onnx.save_model(model, file, save_as_external_data=True, location=f"{file.name}.data")


# What both need


def _check_file(task: ExportTask, program: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Raise if the file is not valid, or computes something else: torch writes a few operations wrongly.

    Without onnxruntime, the results are those of the program that the file was written from.
    """
    import_onnx().checker.check_model(str(task.file), full_check=True)
    in_runtime = _in_onnxruntime(task)
    for n in (3,) if in_runtime is None else (3, 1):
        if not task.agrees((in_runtime or program)(task.samples[:n])):
            raise ValueError(f"the file computes something else than the network for n_samples={n}")


def _in_onnxruntime(task: ExportTask) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what the file computes there, or `None` where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    session = onnxruntime.InferenceSession(str(task.file), options, providers=["CPUExecutionProvider"])
    return lambda samples: torch.from_numpy(session.run(None, {task.input_name: samples.numpy()})[0])


def import_onnx() -> Any:
    """Return the package onnx.

    Returns
    -------
    module
        Imported where it is needed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    with named_extra("A network is written for other runtimes by the package onnx", "onnx"):
        import onnx
    return onnx
