"""What both estimators owe the person who calls them: a checked X, a loaded backbone, an answer to "auto".

An estimator holds the backbone (what runs), the reader (how X is read) and nothing of X itself.
"""

import inspect
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sktransfer._names import check_choice
from sktransfer._onnx_export import export
from sktransfer._run import PRECISIONS, Run
from sktransfer.backbones import POOLINGS, Backbone, kind_of_input, load_backbone
from sktransfer.inputs import Reader, Samples, check_image_shape, is_table, make_reader, modality


def _is_span(bounds: Sequence[Any]) -> bool:
    try:
        low, high = (float(bound) for bound in bounds if isinstance(bound, Real))
    except (ValueError, OverflowError):
        return False
    return len(bounds) == 2 and low < high and isfinite(high - low)


class BackboneEstimator(BaseEstimator):
    """Base of estimators that hold a pretrained network."""

    backbone: Any
    weights: Any
    layer: Any
    pooling: str
    image_shape: Any
    pixel_range: Any
    max_length: int | None
    sampling_rate: int | None
    batch_size: int
    n_jobs: int | None
    device: str
    precision: str
    feature_cache: Any
    store_backbone: bool
    random_state: Any
    verbose: int

    backbone_: Backbone
    _reader: Reader

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, nn.Module, Callable],
        "weights": [str, os.PathLike, None],
        "layer": [str, Integral, list, tuple, None],
        "pooling": [str],
        "image_shape": [tuple, list, None],
        "pixel_range": [StrOptions({"auto"}), tuple, list],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "sampling_rate": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [str],
        "precision": [str],
        "feature_cache": [str, os.PathLike, None],
        "store_backbone": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def to_onnx(self, path: "str | os.PathLike[str]") -> None:
        """Write what this estimator computes of prepared samples as an ONNX file, for runtimes without torch.

        Beside it, at `path` + `".json"`, stands what has to be known to use it: how images are prepared, the range of
        pixel values, the names of input and output, the classes. Above 2 GB the weights are at `path` + `".data"`. The
        arithmetic is that of `precision="float32"`, and the operations those of opset 18.

        Parameters
        ----------
        path : path-like
            The file, such as `"model.onnx"`. Its input `prepared` is float32 of shape (n, channels, height, width) or
            (n, n_features), for any n. Its output is float32: `features` of shape (n, n_features_out_), or, of a
            classifier, `probabilities` of shape (n, n_classes), in the order of `classes_`.

        Raises
        ------
        ImportError
            If onnx is not installed: `pip install "sktransfer[onnx]"`.
        FileNotFoundError
            If there is no such folder.
        IsADirectoryError
            If the path is a folder.
        ValueError
            If ONNX has no operation for one of the network's, or the network depends on the size of the batch.
        """
        check_is_fitted(self, "backbone_")
        network, output, classes = self._computation()
        export(network, self._reader, self.backbone_.sample_shape, path, output, classes)

    @abstractmethod
    def _computation(self) -> tuple[nn.Module, str, np.ndarray | None]:
        """Return the network from prepared samples to results, the name of these, and what their columns stand for."""

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Leave the estimator as it was, unfitted or with the fit before, if anything goes wrong inside.

        One assignment puts it back: a second Ctrl-C comes before it or after it, and finds all parameters either way.
        """
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _check_parameters(self) -> None:
        """Raise before anything is loaded."""
        self._validate_params()
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("precision", self.precision, PRECISIONS)
        if self.n_jobs == 0:
            raise ValueError("Got n_jobs=0; expected a number of threads, -1 for all processors, or None for 1.")
        if not (isinstance(self.pixel_range, str) or _is_span(self.pixel_range)):
            raise ValueError(
                f'Got pixel_range={self.pixel_range!r}; expected "auto" or two numbers (low, high), low < high.'
            )
        if self.image_shape is not None:
            check_image_shape(self.image_shape)
        folder = str(self.feature_cache)
        if not folder or "\0" in folder or (folder.lower() == "auto" and folder != "auto"):
            raise ValueError(
                f'Got feature_cache={self.feature_cache!r}; expected a folder, "auto" for this process\'s memory, or '
                "None."
            )

    def _learn(self, X: Any) -> tuple[Samples, Backbone, Reader]:
        """Load the backbone and learn what X looks like; the caller keeps them once all else is well."""
        look = modality(X, self.image_shape)
        checked = self._check_x(X, look, reset=True)
        n_features = checked.shape[1] if look == "vectors" else None
        self._check_takes_vectors(n_features, kind_of_input(self.backbone))
        backbone = load_backbone(self.backbone, self.weights, seed=self._seed(), n_features=n_features)
        takes = backbone.preprocessing.kind
        kind = modality(X, self.image_shape, takes)
        self._check_takes_vectors(n_features, takes if kind == "vectors" else None)
        given = {name: getattr(self, name) for name in ("image_shape", "pixel_range", "max_length", "sampling_rate")}
        reader = make_reader(kind, backbone.preprocessing, **given)
        if look == "vectors" and kind == "sounds":
            # Such rows keep their type, which says what full scale is, and others may be longer.
            del self.n_features_in_
            checked = X
        return reader.learn(checked), backbone, reader

    def _check_takes_vectors(self, n_features: int | None, takes: str | None) -> None:
        if n_features is None or not isinstance(self.backbone, str) or takes not in ("images", "texts"):
            return
        advice = {
            "images": "Say how to read a row as an image: image_shape=(height, width) or (height, width, channels).",
            "texts": "Give one column of strings.",
        }
        raise ValueError(
            f"Got X with {n_features} columns of numbers, and backbone={self.backbone!r} takes {takes}. {advice[takes]}"
        )

    def _read(self, X: Any, tolerant: bool = False) -> Samples:
        """Check X against what `fit` saw and return its samples; unreadable ones among them where that is tolerated."""
        learned = self._reader.kind
        if learned != "vectors" and is_table(X):
            validate_data(self, X, reset=False, skip_check_array=True)
        kind = modality(X, self.image_shape, "images" if learned == "vectors" else learned)
        if kind == "vectors" != learned:
            raise ValueError(f"Got X that holds vectors; expected {learned}, as in fit.")
        return self._reader.read(self._check_x(X, learned, reset=False), tolerant)

    def _check_x(self, X: Any, kind: str, reset: bool) -> Any:
        if kind == "vectors":
            return validate_data(self, X, reset=reset, dtype=np.float32)
        if is_table(X):
            numbers = getattr(X, "dtype", None) is not None and np.asarray(X).dtype.kind not in "OUST"
            if numbers and kind != "sounds":
                return validate_data(self, X, reset=reset, dtype="numeric")
            validate_data(self, X, reset=reset, skip_check_array=True)
        return X

    def _seed(self) -> int:
        """Draw the seed of whatever is random in `fit`, the same in each place that asks with a fixed state."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _run(self, reader: Reader) -> Run:
        precision = "float32" if self.precision == "auto" and reader.kind == "vectors" else self.precision
        return Run.plan(self.batch_size, self.n_jobs, self.device, precision, self.verbose, self.feature_cache)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Give parameters that came after the pickle was written their defaults."""
        super().__setstate__(state)
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if parameter.default is not parameter.empty:
                self.__dict__.setdefault(name, parameter.default)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags
