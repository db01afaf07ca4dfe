"""The files that a fitted estimator writes of its network: ONNX for other runtimes, weights for other estimators.

What the network is, and how samples are read, the estimator says; what a file looks like, `_files` says.
"""

import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._messages import check_choice, shown
from sktransfer.backbones import Backbone
from sktransfer.backbones.graphs._layer_calls import twin
from sktransfer.backbones.sources._weights_file import RECIPE
from sktransfer.inputs._base import Reader, Samples, prepared_batches

if TYPE_CHECKING:
    from sktransfer._files._onnx_export_result import OnnxExport

Tensors = dict[str, torch.Tensor]

# Samples that an ONNX file of fewer bits is calibrated with.
_MOST_CALIBRATED = 500


class NetworkFiles:
    """Part of an estimator that writes files of its network."""

    backbone_: Backbone
    _reader: Reader

    def to_onnx(
        self,
        path: "str | os.PathLike[str]",
        *,
        preprocessing: bool = False,
        precision: str = "float32",
        calibration: Any = None,
    ) -> "OnnxExport":
        """Write what this estimator computes as an ONNX file, for runtimes without torch.

        A JSON file beside it, `path` + `".json"`, says how to use it: names, types and shapes of input and output, how
        samples are prepared, the range of pixel values, the classes, and which of torch's exporters wrote the file.
        Weights of more than 1.5 GB are in `path` + `".data"`. The operations are those of opset 18.

        Parameters
        ----------
        path : path-like
            The file, such as `"model.onnx"`. Without `preprocessing`, its input is `prepared`: float32 of shape (n,
            channels, height, width) or (n, n_features), for any n. Its output is

            - of an extractor, `features`: float32 of shape (n, `n_features_out_`);
            - of a classifier, `probabilities`: float32 of shape (n, n_classes), in the order of `classes_`, or
              (n, n_labels);
            - of a regressor, `predictions`: float64 of shape (n, n_outputs), in the units of y.
        preprocessing : bool, default=False
            Whether the file also prepares the samples.

            - images: the input is `pictures`, uint8 of shape (n, height, width, channels), RGB for 3 channels, for any
              n, height and width: one size per call. The file resizes, crops and normalises them as `predict_proba`
              does with pictures. In onnxruntime, the values are bit for bit those of Pillow.
            - texts: the tokenizer is written to `path` + `".tokenizer.json"`, in the format of the package tokenizers.

            By default you prepare the samples. This works for all kinds of samples, and for compilers for small
            devices, which need inputs of one shape.
        precision : {"float32", "float16", "int8"}, default="float32"
            Type of the weights and of the arithmetic; input and output keep theirs. `"float16"` is for GPUs and phones:
            on most CPUs it is slower than float32. `"int8"` is for CPUs. It takes `calibration`, and is made by
            onnxruntime's own quantisation.
        calibration : array-like or None, default=None
            Samples like the X of `fit`, without labels. Up to 500 of them, spread evenly, show which values occur. With
            any precision, they are also used to measure what the file changes.

        Returns
        -------
        OnnxExport
            `path`, `megabytes`, `milliseconds` per sample here and, with calibration, `n_samples`, `agreement`,
            `largest_difference` and `mean_difference`. It prints as a table.

        Raises
        ------
        ImportError
            If onnx, or for fewer bits onnxruntime, is not installed: `pip install "sktransfer[onnx]"`.
        FileNotFoundError
            If there is no such folder.
        IsADirectoryError
            If the path is a folder.
        ValueError
            If ONNX has no operation for one of the network's, or the network depends on the size of the batch. If
            `preprocessing` is wanted where ONNX cannot do it, as for sounds. If the precision is unknown, its
            calibration is missing or not like the X of `fit`, or the network does not allow it.

        Warns
        -----
        UserWarning
            If torch's older exporter wrote the file, because the newer one failed or onnxscript is not installed. If
            the file's results are far from the estimator's: less than 95 % of the predictions agree.

        Examples
        --------
        >>> model.to_onnx("model.onnx", preprocessing=True)  # doctest: +SKIP
        >>> model.to_onnx("small.onnx", preprocessing=True, precision="int8", calibration=X)  # doctest: +SKIP
        """
        from sktransfer._files._onnx_file import Wishes, export  # which few need
        from sktransfer._files._onnx_precision import PRECISIONS as OF_FILES

        check_is_fitted(self, "backbone_")
        check_choice("precision", precision, OF_FILES)
        if not isinstance(preprocessing, bool | np.bool_):
            raise ValueError(f"Got preprocessing={shown(preprocessing)}; expected True or False.")
        network, output, classes = self._computation()
        reader = self._reader
        batches = None if calibration is None else prepared_batches(self._read(calibration), _MOST_CALIBRATED)
        several = "several" if getattr(self, "_several", False) else "one"
        wishes = Wishes(bool(preprocessing), precision, batches, None if classes is None else several)
        samples = reader.example(3, getattr(self, "n_features_in_", None))
        # The exporters change modules while they run; other threads may predict with this estimator's meanwhile.
        return export(twin(network), samples, reader.varying, reader.description, path, output, classes, wishes)

    def save_backbone(self, path: "str | os.PathLike[str]") -> None:
        """Write the weights of the network, tuned or not, as a plain `state_dict`.

        Use the file as `weights=` of other estimators: you can tune a network on one task, and use it for the next with
        `FineTunedClassifier(backbone, weights=path)` and the same `backbone`. The file holds all parameters and buffers
        that the features depend on, including those of frozen blocks and of blocks after `layer`. It holds neither the
        head that `fit` trained nor the network's own classification layer. The names are those of the network, so torch
        reads the file too: `network.load_state_dict(safetensors.torch.load_file(path), strict=False)`.

        Parameters
        ----------
        path : path-like
            File to write, such as `"backbone.safetensors"`. It is written whole or not at all.

        Raises
        ------
        ValueError
            If the path does not end in `.safetensors`.
        FileNotFoundError
            If the folder does not exist.
        IsADirectoryError
            If the path is a folder.
        OSError
            If the file cannot be written.

        See Also
        --------
        sktransfer.save : Save the whole estimator.
        """
        from sktransfer._files._network_file import write_network  # which few need

        check_is_fitted(self, "backbone_")
        recipe = self.backbone_.recipe_name  # where the weights alone do not say how images are prepared for them
        header = {"format": "pt"} if recipe is None else {RECIPE: recipe}
        write_network(path, self.backbone_.feature_state(self._tuned_tensors()), header)

    def _tuned_tensors(self) -> Tensors:
        """Return parameters and buffers that differ from the backbone's, by the network's names."""
        return {}

    @abstractmethod
    def _read(self, X: Any, tolerant: bool = False) -> Samples:
        """Return samples, prepared as in `fit`."""

    @abstractmethod
    def _computation(self) -> tuple[nn.Module, str, np.ndarray | None]:
        """Return the network from prepared samples to results, the name of these, and what their columns stand for."""
