"""Save and load estimators as data: loading a file runs no code, whoever wrote it.

An estimator is written as its parameters and what `fit` learned; whatever of scikit-learn is around it, beside it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sktransfer._backbone_estimator import BackboneEstimator, below
from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._fine_tuned_classifier import FineTunedClassifier
from sktransfer._fine_tuned_regressor import FineTunedRegressor
from sktransfer._messages import shortened, shown
from sktransfer._network_files import Tensors
from sktransfer._process._versions import installed

_OURS: dict[str, type[BackboneEstimator]] = {
    one.__name__: one for one in (PretrainedFeatureExtractor, FineTunedClassifier, FineTunedRegressor)
}
# Name of the tensor that holds what skops has written.
_AROUND = "around"
# Libraries whose versions a file tells, for the case that it cannot be loaded.
_TOLD = ("sktransfer", "torch", "torchvision", "scikit-learn", "skorch", "numpy")

Custom = nn.Module | Callable[..., nn.Module]


def save(estimator: Any, path: "str | os.PathLike[str]") -> None:
    """Save an estimator, fitted or not, to a file that contains data but no code.

    The file holds JSON and tensors in the safetensors format. It is written whole or not at all: if saving is
    interrupted, a model that was there before is still there.

    Parameters
    ----------
    estimator : PretrainedFeatureExtractor, FineTunedClassifier, FineTunedRegressor or scikit-learn estimator
        An estimator of this package; or a Pipeline, search or other scikit-learn estimator that contains one, which
        needs skops.
    path : path-like
        File to write.

    Raises
    ------
    TypeError
        If a parameter or attribute is code (a function, a callback), or `estimator` is not an estimator.
    ImportError
        If skops is needed and not installed.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : Load the estimator again.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import sktransfer
    >>> X = np.random.default_rng(0).integers(0, 256, size=(6, 32, 32, 3), dtype=np.uint8)
    >>> model = sktransfer.FineTunedClassifier("squeezenet1_1", weights=None).fit(X, ["ant", "bee"] * 3)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> sktransfer.save(model, path)
    >>> sktransfer.load(path).predict(X).shape
    (6,)
    """
    from sktransfer._files._model_file import write_model

    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"Got {shown(estimator)}; expected a scikit-learn estimator, fitted or not.")
    tensors: Tensors = {}
    if type(estimator) in _OURS.values():
        ours = [estimator]
    else:
        from sktransfer._files._sklearn_composites import write_composite  # which few need

        ours, around = write_composite(estimator, tuple(_OURS.values()))
        tensors[_AROUND] = torch.from_numpy(np.frombuffer(around, dtype=np.uint8).copy())
    models = []
    for number, one in enumerate(ours):
        description, held = _describe(one)
        models.append(description)
        tensors |= {f"{number}.{name}": tensor for name, tensor in held.items()}
    write_model(path, {"models": models, "versions": installed(*_TOLD)}, tensors)


def load(path: "str | os.PathLike[str]", *, backbone: "Custom | Mapping[str, Custom] | None" = None) -> Any:
    """Load an estimator that `save` wrote.

    No code in the file is run, and nothing is downloaded.

    Parameters
    ----------
    path : path-like
        File to read.
    backbone : nn.Module, callable or mapping of str to these, default=None
        Your own network, or the function that returns it, if the estimator was fitted with one: the file contains no
        code, so it cannot hold it. The weights come from the file. If there are several networks, give a dict with the
        names that the error message shows.

    Returns
    -------
    estimator
        The same parameters and, if it was fitted, the same predictions.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If `save` did not write the file, if a newer version wrote it, or if it is damaged. The message says where.
    ImportError
        If skops is needed and not installed.

    See Also
    --------
    save : Save an estimator.
    """
    from sktransfer._files._model_file import read_model

    description, tensors = read_model(path)
    try:
        ours = [
            _restore(model, below(f"{number}.", tensors), backbone)
            for number, model in enumerate(description["models"])
        ]
        if _AROUND not in tensors:
            (estimator,) = ours
            return estimator
        from sktransfer._files._sklearn_composites import read_composite

        return read_composite(tensors[_AROUND].numpy().tobytes(), ours)
    except ImportError:
        raise
    except Exception as error:  # what others made up may stop anywhere
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        others = _differing(description.get("versions"))
        raise ValueError(f"Could not load {shown(path)}: {shortened(reason, 300).rstrip('.')}.{others}") from error


# One of our estimators


def _describe(estimator: BackboneEstimator) -> tuple[dict[str, Any], Tensors]:
    parameters = estimator.get_params(deep=False)
    custom = None
    if not isinstance(parameters["backbone"], str):
        custom = _name(parameters.pop("backbone"))
    plain = {name: _plain(name, value, estimator) for name, value in parameters.items()}
    record, tensors = estimator._to_record()
    attributes = {name: _plain(name, value, estimator) for name, value in record.items()}
    return {"class": type(estimator).__name__, "custom": custom, "parameters": plain, "attributes": attributes}, tensors


def _plain(name: str, value: Any, estimator: BackboneEstimator) -> Any:
    if isinstance(value, type) and value in vars(torch.optim).values():
        return {"type": "optimizer", "value": value.__name__}
    from sktransfer._files._json_values import to_plain

    try:
        return to_plain(value)
    except TypeError as error:
        raise TypeError(
            f"Got a {type(estimator).__name__} whose {name} holds {error}; expected numbers, text, and lists and "
            "dicts of them, because the file contains no code. Set a parameter that only training needs "
            "(callbacks, augment, optimizer) to its default with set_params before saving, or use joblib.dump, whose "
            "files run code."
        ) from error


def _restore(
    model: Mapping[str, Any], tensors: Tensors, backbone: "Custom | Mapping[str, Custom] | None"
) -> BackboneEstimator:
    from sktransfer._files._json_values import from_plain

    if model["class"] not in _OURS:
        raise ValueError(f"an estimator of unknown class {model['class']!r}")
    custom = None
    parameters = {name: _value(name, plain) for name, plain in model["parameters"].items()}
    named = model["custom"] if "custom" in model else model["own"]  # as earlier versions wrote it
    if named is not None:
        custom = backbone.get(named) if isinstance(backbone, Mapping) else backbone
        if custom is None:
            raise ValueError(
                f"its backbone is your own network, {shown(named)}, and the file contains no code. Give the network, "
                "or the function that returns it: sktransfer.load(path, backbone=...)"
            )
        parameters["backbone"] = custom
    estimator = _OURS[model["class"]](**parameters)
    record = {name: from_plain(plain) for name, plain in model["attributes"].items()}
    strange = [name for name in record if name in parameters or hasattr(type(estimator), name)]
    if strange:
        raise ValueError(f"{strange[:5]} are not learned attributes")
    estimator.__dict__.update(estimator._learned_from_record(record, tensors, custom))
    return estimator


def _value(name: str, plain: Any) -> Any:
    if name == "optimizer" and isinstance(plain, dict) and plain.get("type") == "optimizer":
        optimizer = getattr(torch.optim, str(plain["value"]), None)
        if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
            raise ValueError(f"this version of torch has no optimizer {plain['value']!r}")
        return optimizer
    from sktransfer._files._json_values import from_plain

    return from_plain(plain)


def _name(backbone: Custom) -> str:
    return type(backbone).__name__ if isinstance(backbone, nn.Module) else str(getattr(backbone, "__name__", backbone))


def _differing(written: Any) -> str:
    """Say which versions of packages differ from those that wrote a file, where that may be why it cannot be loaded."""
    here = installed(*_TOLD)
    known = written if isinstance(written, dict) else {}
    others = [f"{name} {known[name]}, here {there}" for name, there in here.items() if known.get(name, there) != there]
    return f" (Written with {shortened('; '.join(others), 120)}.)" if others else ""
