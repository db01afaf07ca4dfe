"""Base of the estimators that tune a network, whatever they predict: how they are fitted and stored."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._backbone_estimator import BackboneEstimator, below
from sktransfer._messages import shown
from sktransfer._network_files import Tensors
from sktransfer._process._fit_tasks import FitTask, run_as_task
from sktransfer._process._private_names import Interval, StrOptions
from sktransfer._training._idle_parameters import warn_of_frozen_blocks, warn_of_idle_rank
from sktransfer._training._net_record import net_from_record, net_to_record
from sktransfer._training._parameter_checks import check_settings, check_trainable
from sktransfer._training._prediction import predict
from sktransfer._training._settings import TrainingSettings
from sktransfer._training._suffix_network import SuffixNetwork
from sktransfer._training.tasks._base import Task
from sktransfer._training.tasks._weights import check_lengths
from sktransfer._words_of_others import refuse_words
from sktransfer.backbones import Backbone
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.inputs._base import Reader, Samples
from sktransfer.inputs._refusals import check_order
from sktransfer.inputs._rows import Rows

if TYPE_CHECKING:
    from sktransfer._training._held_out import Validation
    from sktransfer._training._phases import Trained


class FineTunedEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BackboneEstimator):
    """Base of estimators with a frozen part, a tuned part and a head."""

    _shown_first = ("backbone", "freeze_depth", "lr", "max_epochs")

    freeze_depth: Any
    trainable: str
    lora_rank: int
    strategy: str
    head_C: Any  # noqa: N815
    warm_start: bool

    net_: Any
    history_: list[dict[str, Any]]
    n_iter_: int
    head_C_: Any  # noqa: N815
    earlier_weight_: Any
    head_C_path_: Any  # noqa: N815

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BackboneEstimator._parameter_constraints,
        "freeze_depth": [Real, str],
        "trainable": [str],
        "lora_rank": [Interval(Integral, 1, None, closed="left")],
        "lora_alpha": [Interval(Real, 0, None, closed="neither")],
        "strategy": [str],
        "hidden_layer_sizes": [tuple, list],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "head_C": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "head_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "head_lr": [Interval(Real, 0, None, closed="neither")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "lr_schedule": [str],
        "interpolation": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"}), None],
        "optimizer": [str, type],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "augment": [str, callable, None],
        "augment_views": [Interval(Integral, 1, None, closed="left"), None],
        "train_bn": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
    }

    def __init__(
        self,
        backbone: Any = "resnet18",
        *,
        weights: Any = "DEFAULT",
        freeze_depth: Any = "all",
        trainable: str = "all",
        lora_rank: int = 8,
        lora_alpha: float = 16,
        strategy: str = "lp_ft",
        layer: Any = "stages",
        pooling: str = "avg",
        hidden_layer_sizes: Sequence[int] = (),
        dropout: float = 0.0,
        head_C: Any = "auto",
        head_epochs: Any = "auto",
        max_epochs: int = 10,
        head_lr: float = 1e-3,
        lr: float = 3e-5,
        layer_decay: float = 1.0,
        lr_schedule: str = "cosine",
        interpolation: Any = None,
        optimizer: Any = "adamw",
        weight_decay: float = 0.01,
        augment: Any = None,
        augment_views: int | None = None,
        train_bn: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        callbacks: Any = None,
        image_shape: Any = None,
        pixel_range: Any = "auto",
        n_channels: Any = "auto",
        channel_stats: Any = "auto",
        max_length: int | None = None,
        sampling_rate: int | None = None,
        tower: str = "auto",
        batch_size: int = 32,
        n_jobs: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        feature_cache: Any = "auto",
        store_backbone: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.freeze_depth = freeze_depth
        self.trainable = trainable
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.strategy = strategy
        self.layer = layer
        self.pooling = pooling
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.head_C = head_C
        self.head_epochs = head_epochs
        self.max_epochs = max_epochs
        self.head_lr = head_lr
        self.lr = lr
        self.layer_decay = layer_decay
        self.lr_schedule = lr_schedule
        self.interpolation = interpolation
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.augment = augment
        self.augment_views = augment_views
        self.train_bn = train_bn
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.n_channels = n_channels
        self.channel_stats = channel_stats
        self.max_length = max_length
        self.sampling_rate = sampling_rate
        self.tower = tower
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.precision = precision
        self.feature_cache = feature_cache
        self.store_backbone = store_backbone
        self.random_state = random_state
        self.verbose = verbose

    def transform(self, X: Any) -> np.ndarray:
        """Compute the tuned features, which are the input of the head.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_features)
            One row per sample.
        """
        check_is_fitted(self, "backbone_")
        return self._compute(X, features=True)

    @property
    def interpolation_(self) -> float:
        """How far the weights are from the start of tuning (0) to its end (1).

        Set it to move the weights, without training.
        """
        check_is_fitted(self, "backbone_")
        return self.net_.module_.interpolation

    @interpolation_.setter
    def interpolation_(self, factor: float) -> None:
        check_is_fitted(self, "backbone_")
        if isinstance(factor, bool) or not isinstance(factor, Real) or not 0 <= float(factor) <= 1:
            raise ValueError(f"Got interpolation_={shown(factor)}; expected a number from 0 to 1.")
        module = self.net_.module_
        if not self.backbone_.trained_blocks(module.freeze_depth):
            raise ValueError(
                f"Got interpolation_={shown(factor)} for a network with only a trained head; expected one with tuned "
                "blocks. Set a freeze_depth below 'all', such as 0.75, and fit again."
            )
        module.interpolate(float(factor), self.backbone_)

    @abstractmethod
    def _read_targets(self, y: Any, sample_weight: Any, n_samples: int | None) -> Task:
        """Return what is to be learned, or say what is wrong with it; the number of samples may not be known yet."""

    @abstractmethod
    def _continues(self, task: Task) -> bool:
        """Tell whether outputs mean in a task what they meant in the fit before."""

    @staticmethod
    @abstractmethod
    def _meaning(learned: Mapping[str, Any]) -> tuple[type[Task], int]:
        """Return the kind of what was learned, and the number of outputs."""

    def _fit(self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any) -> None:
        from sktransfer._training._phases import Trained, list_phases  # as all of training, which few processes need
        from sktransfer._training._strategies import train

        check_order(X, y)
        rows = Rows(X, self.image_shape)
        rows.kind()  # which refuses a single row
        # Of what may be one picture, its reader says so.
        task = self._read_targets(y, sample_weight, None if rows.may_be_one_picture else len(rows))
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise ValueError(f"Got {given} without {missing}; expected both, or neither.")
        samples, backbone, reader = self._learn(rows)
        check_lengths(len(samples), len(task))
        views_seed = 0 if self.random_state is None else self._seed()
        backbone, layers = self._layers(backbone, reader)
        settings = TrainingSettings.of(self, views_seed, layers)
        depth = settings.freeze_depth
        if not backbone.trained_blocks(depth):
            warn_of_frozen_blocks(self)
        else:
            warn_of_idle_rank(self)
            check_trainable(backbone, settings)
        earlier = self._earlier(backbone, task, settings)
        part = backbone.frozen_part(depth, self.pooling, layers)
        validation = None if X_val is None else self._validation(X_val, y_val, task, reader, part, backbone)
        way, seed = self._way_through(part, samples, backbone), self._seed()

        def learn(fit: FitTask) -> Trained:
            return train(backbone, way, task, settings, seed, earlier, validation, fit)

        def learned(trained: Trained) -> dict[str, Any]:
            return {**task.learned(), "backbone_": backbone, "_reader": reader, **_of_training(trained)}

        phases = list_phases(settings, bool(backbone.trained_blocks(depth)), earlier is not None)
        trained = run_as_task(self, learn, learned, len(phases), X, y, sample_weight)
        solution = trained.solution
        if solution and self.head_C == "auto" and not solution.was_chosen:
            C = float(np.max(solution.C))
            warnings.warn(f"{task.nothing_to_choose_by} head_C={C:.3g} is used.", UserWarning, stacklevel=3)
        self.__dict__.update(learned(trained))  # in one step: nothing can interrupt it half-way

    def _validation(
        self, X: Any, y: Any, task: Task, reader: Reader, part: FrozenPart, backbone: Backbone
    ) -> "Validation":
        """Return a person's own held-out samples, read as the others were."""
        try:
            samples = self._read_by(reader, X)
        except ValueError as error:
            raise ValueError(f"Got X_val that cannot be read as X is: {error}") from error
        held_out = task.like(y, len(samples))
        from sktransfer._training._held_out import Validation

        return Validation(self._way_through(part, samples, backbone), held_out)

    def _layers(self, backbone: Backbone, reader: Reader) -> tuple[Backbone, tuple[Any, ...]]:
        """Return the backbone up to the deepest layer that is asked for, and the others."""
        depth = "all" if self.strategy == "linear_probe" else self.freeze_depth
        layers = self._shown(backbone, "all", reader).layers(self.layer, self.pooling)
        self._tell_of_vectors(backbone, layers, 5)
        last = backbone.deepest(layers)
        before = tuple(layer for layer in layers if layer != last)
        shown_so = self._shown(backbone.ending_at(last), depth, reader)
        return shown_so.learning(self.trainable, self.lora_rank), before

    def _compute(self, X: Any, features: bool = False) -> np.ndarray:
        if self._has_no_rows(X):
            width = self._n_features_out if features else self._meaning(vars(self))[1]
            return np.empty((0, width), dtype=np.float32)
        return self._compute_samples(self._read(X), features)

    def _compute_samples(self, samples: Samples, features: bool = False) -> np.ndarray:
        """Return outputs of the head, or features, of samples that were read."""
        module = self.net_.module_
        part = self.backbone_.frozen_part(module.freeze_depth, module.pooling, module.layers)
        work = self._way_through(part, samples, self.backbone_)
        return predict(self.backbone_, module, work, features)

    def _in_units(self) -> nn.Module:
        """Return what outputs of the head become in the units of y, as a module."""
        return nn.Identity()

    def _check_parameters(self) -> None:
        refuse_words("freeze_depth", self.freeze_depth)
        refuse_words("trainable", self.trainable)
        super()._check_parameters()
        check_settings(self)

    def _tuned_tensors(self) -> Tensors:
        module = self.net_.module_
        module.attach(self.backbone_)
        return {} if module.tail is None else module.tail.state_dict()

    def _earlier(self, backbone: Backbone, task: Task, settings: TrainingSettings) -> SuffixNetwork | None:
        """Return what to continue, or say why it cannot be continued."""
        if not self.warm_start or not hasattr(self, "net_"):
            return None
        same = self._continues(task) and backbone.fingerprint == self.backbone_.fingerprint
        module = self.net_.module_
        if not same or (settings.freeze_depth, list(settings.layers)) != (module.freeze_depth, list(module.layers)):
            raise ValueError(
                "Got warm_start=True, but other classes, outputs, backbone, freeze_depth, layer or channels than in "
                "the previous fit; expected the same. Set warm_start=False to start again."
            )
        self.net_.module_.attach(self.backbone_)
        return self.net_.module_

    def _to_record(self) -> tuple[dict[str, Any], Tensors]:
        record, tensors = super()._to_record()
        if "net_" in record:
            record["net_"], held = net_to_record(self.net_)
            tensors |= {f"net_.{name}": tensor for name, tensor in held.items()}
        return record, tensors

    @classmethod
    def _learned_from_record(cls, record: Mapping[str, Any], tensors: Tensors, custom: Any) -> dict[str, Any]:
        learned = super()._learned_from_record(record, tensors, custom)
        if "net_" in learned:
            cut = {"freeze_depth": record["backbone_"]["freeze_depth"]}  # where earlier versions wrote it
            kind, n_outputs = cls._meaning(learned)
            if learned["net_"]["n_classes"] != n_outputs:
                raise ValueError(f"the head has {learned['net_']['n_classes']} outputs, and {n_outputs} are expected")
            learned["net_"] = net_from_record(cut | learned["net_"], below("net_.", tensors), kind, learned)
        return learned

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        net = self.__dict__.get("net_")
        if net is None:
            return
        depth = TrainingSettings.of(self, 0).freeze_depth  # which earlier versions did not write with the net
        if isinstance(net, tuple):
            kind, _ = self._meaning(vars(self))
            self.net_ = net_from_record({"freeze_depth": depth} | net[0], net[1], kind, vars(self))
        vars(self.net_.module_).setdefault("freeze_depth", depth)

    @property
    def _n_features_out(self) -> int:
        return next(int(layer.in_features) for layer in self.net_.module_.head if isinstance(layer, nn.Linear))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _of_training(trained: "Trained") -> dict[str, Any]:
    """Return the attributes that say what training came to."""
    solution = trained.solution
    return {
        "net_": trained.net,
        "history_": trained.history,
        "n_iter_": trained.n_iter,
        "head_C_": solution.C if solution else None,
        "earlier_weight_": solution.earlier_weight if solution else None,
        "head_C_path_": solution.path if solution else None,
    }
