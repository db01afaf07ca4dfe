"""What a person gets to know of an ONNX file: how large it is, how fast it runs here, and what it changes."""

import html
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OnnxExport:
    """What `to_onnx` wrote. It prints as a table, and shows as one in notebooks.

    Attributes
    ----------
    path : Path
        The file.
    precision : str
        `"float32"`, `"float16"` or `"int8"`.
    megabytes : float
        Size of the file, with that of the weights where they are in a file of their own, in millions of bytes.
    milliseconds : float or None
        Time for one sample on this machine, one at a time, the fastest of several. It is measured with onnxruntime and
        as many threads as that takes by itself; `None` where it is not installed.
    timed_shape : tuple of int
        Shape of the batch that was timed: of pictures `(1, 375, 500, channels)`, where the file prepares them.
    n_samples : int
        Samples of `calibration` that the file was tried with, spread evenly; 0 without calibration. What follows is
        `None` then.
    largest_difference, mean_difference : float or None
        Between the outputs of the file and of the estimator in float32: of probabilities, of features, or in the units
        of y. Both are given the same prepared samples.
    agreement : float or None
        Share of these samples for which the prediction is the estimator's. Accuracy on them cannot change by more than
        the rest. For a regressor and an extractor, R² of the file's outputs with the estimator's as truth.
    """

    path: Path
    precision: str
    megabytes: float
    milliseconds: float | None = None
    timed_shape: tuple[int, ...] = ()
    n_samples: int = 0
    largest_difference: float | None = None
    mean_difference: float | None = None
    agreement: float | None = None

    def _table(self) -> list[tuple[str, str]]:
        speed = "not measured: onnxruntime is not installed"
        if self.milliseconds is not None:
            speed = f"{self.milliseconds:.2f}, for an input of {' x '.join(map(str, self.timed_shape))}"
        rows = [
            ("file", str(self.path)),
            ("precision", self.precision),
            ("MB", f"{self.megabytes:.2f}"),
            ("ms per sample here", speed),
        ]
        if self.n_samples:
            rows += [
                ("samples compared", f"{self.n_samples}"),
                ("agreement", f"{self.agreement:.3f}"),
                ("largest difference", f"{self.largest_difference:.2g}"),
                ("mean difference", f"{self.mean_difference:.2g}"),
            ]
        return rows

    def __str__(self) -> str:
        rows = self._table()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._table())
        return f"<table><tbody>{''.join(rows)}</tbody></table>"
