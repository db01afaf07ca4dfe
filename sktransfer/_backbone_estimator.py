"""Base of all estimators: check X and the parameters, load the backbone, and resolve "auto".

An estimator holds the backbone (what runs), the reader (how X is read) and nothing of X itself.
"""

import inspect
import operator
import os
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import validate_data
from torch import nn

from sktransfer._cache._folders import store_for
from sktransfer._computing._execution import PRECISIONS, Execution
from sktransfer._computing._progress import say
from sktransfer._computing._reuse import Pass, tell_nobody
from sktransfer._messages import check_choice, shown, without_numpy
from sktransfer._network_files import NetworkFiles, Tensors
from sktransfer._notebook_table import NotebookTable
from sktransfer._process._fit_tasks import CALLBACKS, OF_A_RUNNING_FIT, CallbackSupport
from sktransfer._process._private_names import Interval, InvalidParameterError, StrOptions
from sktransfer._words_of_others import refuse_words, right_name
from sktransfer.backbones import Backbone, kind_of_input, load_backbone, restore_backbone
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.backbones.graphs._pooling import POOLINGS
from sktransfer.backbones.sources._base import TowerError
from sktransfer.backbones.sources._wrapped_networks import refuse_other
from sktransfer.inputs import ImagePreprocessing, channels_wanted, make_reader, restore_reader
from sktransfer.inputs._base import Reader, Samples
from sktransfer.inputs._containers import is_empty
from sktransfer.inputs._rows import Rows
from sktransfer.inputs.images._channel_stats import check_stats
from sktransfer.inputs.images._shapes import MOST_CHANNELS, check_image_shape


def _is_span(bounds: Sequence[Any]) -> bool:
    try:
        low, high = (float(bound) for bound in bounds if isinstance(bound, Real))
    except (ValueError, OverflowError):
        return False
    return len(bounds) == 2 and low < high and isfinite(high - low)


# Pairs of a network and a pooling without effect on its features: the warning was given.
_TOLD: set[tuple[str, str]] = set()

# Parameters that say how X is read.
_OF_READERS = ("image_shape", "pixel_range", "n_channels", "channel_stats", "max_length", "sampling_rate")

# Names in the state of an estimator that its attributes do not have.
_TENSORS, _CUSTOM = "tensors", "custom"


def below(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class _Code:
    """Code without a name in the state of an estimator: pickle and copy take it as it is, and skops gets an error."""

    def __init__(self, code: Any):
        self.code = code

    @classmethod
    def wrap(cls, value: Any) -> Any:
        nameless = isinstance(value, nn.Module) or "<" in str(getattr(value, "__qualname__", ""))
        return cls(value) if nameless else value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return operator.getitem, ([self.code], 0)

    def __reduce__(self) -> tuple[Any, ...]:  # what skops asks, which keeps data, and functions by their names
        named = f"a {type(self.code).__name__}" if isinstance(self.code, nn.Module) else reprlib.repr(self.code)
        raise TypeError(
            f"Got {named} in an estimator; expected data, or a function that can be imported, because files of skops "
            "contain no code. Give backbone=FUNCTION, or save the model with sktransfer.save, which asks for the "
            "network when you load it, or with joblib.dump, whose files run code."
        )


class BackboneEstimator(NetworkFiles, NotebookTable, CallbackSupport, BaseEstimator):
    """Base of estimators that hold a pretrained network."""

    backbone: Any
    weights: Any
    layer: Any
    pooling: str
    image_shape: Any
    pixel_range: Any
    n_channels: Any
    channel_stats: Any
    max_length: int | None
    sampling_rate: int | None
    tower: str
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
        "n_channels": [Interval(Integral, 1, MOST_CHANNELS, closed="both"), StrOptions({"auto"})],
        "channel_stats": [StrOptions({"auto"}), tuple, list],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "sampling_rate": [Interval(Integral, 1, None, closed="left"), None],
        "tower": [StrOptions({"auto", "image", "text"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [str],
        "precision": [str],
        "feature_cache": [str, os.PathLike, None],
        "store_backbone": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __new__(cls, *args: Any, **parameters: Any) -> Self:
        """Answer an unknown parameter with what it is called here, before Python refuses it without a word of that."""
        takes = inspect.signature(cls.__init__).parameters if parameters else {}
        unknown = [name for name in parameters if name not in takes]
        if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
            raise TypeError(
                f"{cls.__name__} got an unexpected keyword argument {unknown[0]!r}. {right_name(unknown[0], takes)}"
            )
        return super().__new__(cls)

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        BackboneEstimator
            The same estimator.

        Raises
        ------
        ValueError
            If a parameter does not exist.
        """
        names = self.get_params(deep=False)
        for name in (name for name in params if name.partition("__")[0] not in names):
            raise ValueError(
                f"Invalid parameter {name!r} for estimator {type(self).__name__}(). {right_name(name, names)} "
                f"Valid parameters are: {sorted(names)}."
            )
        return super().set_params(**params)

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
        refuse_other(self.backbone)
        for name in ("weights", "feature_cache"):
            refuse_words(name, getattr(self, name))
        try:
            self._validate_params()
        except InvalidParameterError as error:
            raise InvalidParameterError(without_numpy(str(error))) from None
        self._check_choice("pooling", POOLINGS)
        self._check_choice("precision", PRECISIONS)
        if self.n_jobs == 0:
            raise ValueError("Got n_jobs=0; expected a number of threads, -1 for all processors, or None for 1.")
        if not (isinstance(self.pixel_range, str) or _is_span(self.pixel_range)):
            raise ValueError(
                f'Got pixel_range={shown(self.pixel_range)}; expected "auto" or two numbers (low, high), low < high.'
            )
        if self.image_shape is not None:
            check_image_shape(self.image_shape)
        check_stats(self.channel_stats)
        folder = str(self.feature_cache)
        if not folder or "\0" in folder or (folder.lower() == "auto" and folder != "auto"):
            raise ValueError(
                f'Got feature_cache={shown(self.feature_cache)}; expected a folder, "auto" for the memory of this '
                "process, or None."
            )

    def _check_choice(self, name: str, known: Sequence[str]) -> None:
        check_choice(name, getattr(self, name), known)

    def _learn(self, rows: Rows, tolerant: bool = False) -> tuple[Samples, Backbone, Reader]:
        """Load the backbone and learn what X looks like; the caller keeps them once all else is well."""
        look, named = rows.kind(), isinstance(self.backbone, str) and not issparse(rows.values)
        n_features = rows.values.shape[1] if look == "vectors" else None
        # Named networks do not take rows of numbers, except networks for sounds, whose reader checks them.
        unknown = look == "vectors" and named
        checked = rows.values if unknown else self._checked(rows, look, reset=True, tolerant=tolerant)
        self._check_takes_vectors(n_features, kind_of_input(self.backbone))
        try:
            backbone = self._load_backbone(n_features, self.tower)
        except TowerError:
            if self.tower != "auto" or (held := rows.tower()) is None:
                raise
            backbone = self._load_backbone(n_features, held)
        except ValueError:  # a file of weights may be of a network that was adapted to the channels that X has
            if self.n_channels != "auto" or self.weights in (None, "DEFAULT") or look != "images":
                raise
            plain = ImagePreprocessing()
            wanted = channels_wanted(checked, plain, self.n_channels, self.image_shape)
            if wanted == plain.channels:
                raise
            backbone = self._load_backbone(n_features, self.tower, wanted)
        takes = backbone.preprocessing.kind
        kind = rows.kind(takes)
        self._check_takes_vectors(n_features, takes if kind == "vectors" else None)
        given = {name: getattr(self, name) for name in _OF_READERS}
        if takes == kind == "images":
            wanted = channels_wanted(checked, backbone.preprocessing, self.n_channels, self.image_shape)
            backbone = backbone.with_channels(wanted)
            given["n_own_channels"] = backbone.n_own_channels
        reader = make_reader(kind, backbone.preprocessing, **given)
        return reader.learn(checked, tolerant), backbone, reader

    def _load_backbone(self, n_features: int | None, tower: str, wanted: int | None = None) -> Backbone:
        images = n_features is None and self.n_channels != "auto"
        n_channels = self.n_channels if images else wanted
        how: dict[str, Any] = {"n_features": n_features, "n_channels": n_channels, "tower": tower}
        return load_backbone(self.backbone, self.weights, seed=self._seed(), **how)

    def _check_takes_vectors(self, n_features: int | None, takes: str | None) -> None:
        if n_features is None or not isinstance(self.backbone, str) or takes not in ("images", "texts"):
            return
        advice = {
            "images": "To read a row as an image, give image_shape=(height, width) or (height, width, channels).",
            "texts": "Give one column of strings.",
        }
        raise ValueError(
            f"Got X with {n_features} columns of numbers, but backbone={shown(self.backbone)} takes {takes}. "
            f"{advice[takes]}"
        )

    def _read(self, X: Any, tolerant: bool = False) -> Samples:
        """Check X against what `fit` saw and return its samples; unreadable ones among them where that is tolerated."""
        return self._read_by(self._reader, X, tolerant)

    def _read_by(self, reader: Reader, X: Any, tolerant: bool = False) -> Samples:
        rows, learned = Rows(X, self.image_shape), reader.kind
        if learned == "vectors":
            rows.kind()  # which refuses what holds no numbers in plainer words
        checked = self._checked(rows, learned, reset=False, tolerant=tolerant)
        if rows.kind(learned) == "vectors" != learned:
            raise ValueError(f"Got X that holds vectors; expected {learned}, as in fit.")
        return reader.read(checked, tolerant)

    def _has_no_rows(self, X: Any) -> bool:
        """Tell whether X is an empty part of a table, whose columns are checked: it has results, of no rows."""
        if not is_empty(X):
            return False
        rows = Rows(X, self.image_shape, least=0)
        if rows.have_columns:
            validate_data(self, rows.given, reset=False, skip_check_array=True)
        return True

    def _checked(self, rows: Rows, kind: str, reset: bool, tolerant: bool = False) -> Any:
        """Let scikit-learn look at columns and their names, and at numbers; return what a reader reads."""
        if kind == "vectors":
            return validate_data(self, rows.given, reset=reset, dtype=np.float32)
        if rows.are_numbers and kind != "sounds":
            return validate_data(self, rows.given, reset=reset, dtype="numeric", ensure_all_finite=not tolerant)
        if rows.have_columns:
            validate_data(self, rows.given, reset=reset, skip_check_array=True)
        return rows.values

    def _seed(self) -> int:
        """Draw the seed of whatever is random in `fit`, the same in each place that asks with a fixed state."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _shown(self, backbone: Backbone, freeze_depth: Any, reader: Reader) -> Backbone:
        """Return a backbone whose summary shows what this estimator makes of it."""
        example = reader.example(1, getattr(self, "n_features_in_", None))
        return backbone.showing(freeze_depth, tuple(example.shape[1:]))

    def _tell_of_vectors(self, backbone: Backbone, layers: Sequence[Any], stacklevel: int) -> None:
        """Warn, once per network, of a pooling of features that are vectors already; where `fit` was called."""
        name, usual = backbone.name, self.pooling in ("avg", "mean")
        if usual or None not in layers or (name, self.pooling) in _TOLD or not backbone.features_are_vectors:
            return
        _TOLD.add((name, self.pooling))
        map_layer = backbone.last_map
        advice = f" To pool maps, choose a layer that has one, such as layer={shown(map_layer)}." if map_layer else ""
        warnings.warn(
            f"Got pooling={shown(self.pooling)}, which has no effect on the features of {name!r}: the network itself "
            f"returns vectors.{advice}",
            UserWarning,
            stacklevel=stacklevel,
        )

    def _way_through(self, part: FrozenPart, samples: Samples, backbone: Backbone | None = None) -> Pass:
        """Return the way of samples through a part; of one whose end is searched for, its backbone tells of others."""
        precision = "float32" if self.precision == "auto" and samples.kind == "vectors" else self.precision
        execution = Execution.plan(self.batch_size, self.n_jobs, self.device, precision, self.verbose)
        report = say if self.verbose else tell_nobody
        store = store_for(self.feature_cache)
        stops = () if store is None or backbone is None else backbone.stops(part, store.largest_stop)
        return Pass(part, samples, execution, store, stops=stops, report=report)

    # Written down: what was learned is records, whoever asks for them

    def _to_record(self) -> tuple[dict[str, Any], Tensors]:
        """Return what was learned, as data from which `_learned_from_record` makes it again.

        Returns
        -------
        record : dict
            By attribute: plain values, and of the backbone and the reader their own records.
        tensors : dict of str to Tensor
            Named after the attribute that they are of.
        """
        left_out = {*self.get_params(deep=False), CALLBACKS, *OF_A_RUNNING_FIT}
        record = {name: value for name, value in vars(self).items() if name not in left_out}
        tensors: Tensors = {}
        if "backbone_" in record:
            record["backbone_"], held = self.backbone_.to_record(self.store_backbone)
            record["_reader"] = {"kind": self._reader.kind, **self._reader.record}
            tensors = {f"backbone_.{name}": tensor for name, tensor in held.items()}
        return record, tensors

    @classmethod
    def _learned_from_record(cls, record: Mapping[str, Any], tensors: Tensors, custom: Any) -> dict[str, Any]:
        """Return, by attribute, what `_to_record` was written of.

        Parameters
        ----------
        record : mapping
            From anyone.
        tensors : dict of str to Tensor
            From anyone.
        custom : nn.Module, callable or None
            The network that a person brought, or the function that returns it: a record holds no code.

        Returns
        -------
        dict
            Attributes of a fitted estimator.
        """
        learned = dict(record)
        if "backbone_" in learned:
            learned["backbone_"] = restore_backbone(learned["backbone_"], below("backbone_.", tensors), custom)
            reader = dict(learned["_reader"])
            learned["_reader"] = restore_reader(reader.pop("kind"), reader)
            if learned["_reader"].kind not in (learned["backbone_"].preprocessing.kind, "vectors"):
                raise ValueError(f"a backbone that does not take {learned['_reader'].kind}")
        return learned

    def __getstate__(self) -> dict[str, Any]:
        """Hold parameters, and what was learned as words, numbers and arrays; graph, optimiser and data never stay.

        The backbone's weights stay unless `store_backbone=False`. A network that a person brought is code: a function
        stays as its name, a module as it is. Callbacks of scikit-learn stay; what they note of a running fit does not.
        """
        state = {name: value for name, value in super().__getstate__().items() if name not in OF_A_RUNNING_FIT}
        record, tensors = self._to_record()
        if "backbone_" in record:
            from sktransfer._files._json_values import to_arrays

            custom, inside = self.backbone_.custom, self.backbone_.custom_holds_weights
            held = {name: one for name, one in tensors.items() if not (inside and name.startswith("backbone_."))}
            state |= {**record, _TENSORS: to_arrays(held), _CUSTOM: custom}
        return {name: _Code.wrap(value) for name, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make what was learned of its records, and give parameters that came after the pickle their defaults."""
        state = {name: value.code if isinstance(value, _Code) else value for name, value in state.items()}
        takes = inspect.signature(type(self)).parameters
        if _TENSORS in state and "own" in state:  # as earlier versions called it
            state[_CUSTOM] = state.pop("own")
        if _TENSORS in state:  # else it is not fitted, or an earlier version wrote it
            from sktransfer._files._json_values import from_arrays

            tensors, custom = from_arrays(state.pop(_TENSORS)), state.pop(_CUSTOM)
            parameters = {name: state.pop(name) for name in takes if name in state}
            state = parameters | self._learned_from_record(state, tensors, custom)
        super().__setstate__(state)
        for name, parameter in takes.items():
            if parameter.default is not parameter.empty:
                self.__dict__.setdefault(name, parameter.default)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags
