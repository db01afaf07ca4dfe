"""A pretrained network as a classifier: a frozen part, a tuned part and a head of one's own classes."""

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._backbone_estimator import BackboneEstimator, Tensors, below
from sktransfer._process._private_names import Interval, StrOptions
from sktransfer._training._idle_parameters import warn_of_frozen_blocks
from sktransfer._training._labels import check_lengths, read_labels, weigh
from sktransfer._training._net_record import net_from_record, net_to_record
from sktransfer._training._prediction import predict, probability_network
from sktransfer._training._settings import TrainingSettings
from sktransfer._training._strategies import Task, check_settings, train
from sktransfer._training._suffix_network import SuffixNetwork
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Reader
from sktransfer.inputs._rows import Rows


class FineTunedClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BackboneEstimator):
    """Classifier that tunes a pretrained network, from a head on frozen features to all of its layers.

    Frozen means frozen: the blocks up to `freeze_depth` run in eval mode, and every parameter and buffer of theirs is
    after `fit`, bit for bit, what was loaded.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="resnet18"
        A name from :func:`sktransfer.backbones.list_backbones`; `"timm:"` and a name of timm's, such as
        `"timm:convnext_tiny.fb_in22k"`; `"hf:"` and a name on transformers' hub, or a folder, for texts and sounds,
        such as `"hf:distilbert-base-uncased"`; a network; or an importable function that returns one (it is given
        `n_features=`, the width of a 2-D X, where it takes that keyword). A network of one's own that ends in a linear
        layer is taken for a classifier, and the features are what enters that layer.
    weights : str, path-like or None, default="DEFAULT"
        `"DEFAULT"` or another of torchvision's weight names; a path to a `.pth` or `.safetensors` file; `None` for
        random weights. The size, crop and normalisation of images come with the weights.
    freeze_depth : int, float or str, default="all"
        How much of the backbone stays frozen, from the input: a number of blocks (int), a share of them (float in
        [0, 1], to the nearest block), a name (a block's, or the path of any module at whose end the network can be
        cut: frozen up to and including it), or `"all"`. 0 trains everything.
    strategy : {"linear_probe", "fine_tune", "lp_ft", "gradual"}, default="lp_ft"
        `"linear_probe"` trains the head alone; `"fine_tune"` head and blocks together from the first epoch; `"lp_ft"`
        the head first, then both [1]_; `"gradual"` the head first, then blocks that thaw one after another, from the
        head down to `freeze_depth`, spread evenly over `max_epochs` [2]_.
    layer : str, int, list or None, default="stages"
        What the head sees of the network, as in :class:`PretrainedFeatureExtractor`: `"stages"` is the features in
        front of the classification layer and the ends of the last four stages before it, `None` the features alone, a
        list those layers, in the order in which the network computes them. The blocks behind the deepest layer are
        not used.
    pooling : {"avg", "max", "flatten", "cls", "mean", "last"}, default="avg"
        How maps and tokens become features, as in :class:`PretrainedFeatureExtractor`.
    hidden_layer_sizes : tuple of int, default=()
        Widths of the head's hidden layers; without any, the head is linear.
    dropout : float, default=0.0
        Dropout behind each hidden layer, or in front of a linear head.
    head_C : float or "auto", default="auto"
        Inverse strength of the L2 penalty of a head that is solved, as `C` of `LogisticRegression`, for features that
        are scaled to a mean squared norm of 1. `"auto"` chooses it, between 0.3 and 1000, by the log loss of samples
        that are held out in turn (five folds), with a weak pull to 32 [3]_; and with it what earlier layers weigh.
        Logits are then multiplied by the number that serves these samples best (temperature scaling). A number given
        here leaves all of that out.
    head_epochs : int or "auto", default="auto"
        Epochs in which the head alone is trained. `"auto"` solves the head where that is a convex problem: where it is
        linear, without dropout and label smoothing, and neither `early_stopping` nor `augment` without `augment_views`
        asks for epochs of a head that is all there is to train. Then it is logistic regression on scaled features.
        Elsewhere it is 30 epochs.
    max_epochs : int, default=10
        Epochs in which blocks are trained with the head.
    head_lr, lr : float, default=1e-3, 3e-5
        Greatest learning rates of the head and of the last block.
    layer_decay : float, default=1.0
        Factor by which `lr` falls from one block to the one before it.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How learning rates change within a phase: `"cosine"` lets them rise in the first tenth of the steps, and then
        fall to 0 along half a cosine. A scheduler of skorch's among `callbacks` takes its place.
    interpolation : float, "auto" or None, default=None
        How far the weights go from where tuning started (the backbone's own blocks and the head that was solved or
        trained on their features), 0, to where it ended, 1 [4]_. `None` is the end. `"auto"` takes the value with the
        least log loss of held-out samples: those of `early_stopping`, else of three parts, each held out from a
        training of its own, which takes three times as long. Once fitted, set `interpolation_` to move the weights
        without training.
    optimizer : str or type, default="adamw"
        `"adam"`, `"adamw"`, `"nadam"`, `"radam"`, `"rmsprop"`, `"sgd"`, or a class of `torch.optim`.
    weight_decay : float, default=0.01
        Decay of weights, as the optimiser has it.
    augment : {"light", "standard", "strong"}, callable or None, default=None
        Random changes to training images or sounds, never in `predict`: a level, or a transform of one uint8 tensor of
        shape (channels, height, width), as torchvision's transforms v2 are, or of one float tensor of shape (windows,
        n_samples). Texts have none.
    augment_views : int or None, default=None
        Number of augmented views of each training image, from which every epoch draws one; they pass the frozen part
        once, and a level's views are found again in other folds and candidates of the same `random_state`. `None`
        augments anew in each epoch, so that each epoch passes every image.
    train_bn : bool, default=False
        Whether BatchNorm layers of trained blocks update their statistics; those of frozen blocks never do.
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn.
    label_smoothing : float, default=0.0
        As in torch's `CrossEntropyLoss`.
    early_stopping : bool, default=False
        Whether to hold out a stratified part of the training samples, to stop when its loss no longer falls, and to
        restore the weights of the best epoch.
    validation_fraction : float, default=0.1
        Part that is held out.
    n_iter_no_change : int, default=10
        Epochs without improvement by at least `tol` after which training stops.
    tol : float, default=1e-4
        What counts as improvement of the held-out loss.
    warm_start : bool, default=False
        Whether a second `fit` continues with the weights of the first. The same backbone, depth, head and classes are
        needed.
    callbacks : list or None, default=None
        Callbacks of skorch, called in each phase.
    image_shape : tuple of int or None, default=None
        (height, width) or (height, width, channels): how to read flat rows.
    pixel_range : "auto" or tuple of float, default="auto"
        Values of arrays, and of pictures and files of more than 8 bits, that stand for black and white; `"auto"` learns
        it in `fit`.
    max_length : int or None, default=None
        Tokens of a text that are read, special ones included; what follows is cut off. `None` is as many as the network
        was made for.
    sampling_rate : int or None, default=None
        Samples a second of sounds that are given as arrays; files say their own.
    batch_size : int, default=32
        Samples a step, at most. On the CPU a step is divided among threads; where CUDA's memory does not suffice, it is
        halved, with one warning.
    n_jobs : int or None, default=None
        Threads that load and decode. `None` leaves that, on the CPU, to the threads that compute: as many as torch has,
        which is their share in processes that joblib starts. -1 is all processors.
    device : str, default="auto"
        `"auto"` is CUDA where there is one, else the CPU; or torch's name of a device.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the blocks, frozen and trained. `"auto"` is bfloat16 where the hardware multiplies it: CUDA devices of
        compute capability 8 and above, processors with AVX512-BF16 or AMX; else float32. Weights that are trained, and
        the head, are float32 always.
    feature_cache : "auto", path-like or None, default="auto"
        Where activations of frozen blocks are kept, so that no image is computed again in another fold, candidate,
        estimator or process: by content, never by position. `"auto"` is this process's memory, up to 1 GiB; a path is
        a folder that processes and sessions share, up to 10 GiB (:func:`sktransfer.set_cache_limit`); the least
        recently used leave first, and what would not fit as a whole is computed each time. `None` keeps nothing.
        Results agree to rounding: a kept activation has the bits of the batch that it was computed in.
    store_backbone : bool, default=True
        Whether a pickle holds the backbone's weights. Without them it holds their name and fingerprint; they are found
        again when first needed, and others are refused. What was trained is always in it.
    random_state : int, RandomState instance or None, default=None
        Seeds random weights, the order of samples, dropout, augmentation and the held-out part. An int gives, on the
        CPU, the same bits in each process with the same number of threads.
    verbose : int, default=0
        1 shows progress, and a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    backbone_ : sktransfer.backbones.Backbone
        The network as it was loaded: blocks, preprocessing, `summary()`.
    net_ : skorch.NeuralNetClassifier
        What was trained, from activations at the cut to logits; `net_.module_` holds the weights.
    history_ : list of dict
        An entry an epoch: `phase` ("head" or "fine_tune"), `epoch`, `train_loss`, `seconds`, and with
        `early_stopping` also `valid_loss` and `valid_accuracy`. Empty where the head was solved and nothing else
        trained.
    n_iter_ : int
        Epochs of all phases, and the solver's iterations.
    head_C_ : float or None
        Inverse strength of the head's penalty; `None` where the head was trained in epochs.
    earlier_weight_ : float or None
        What features of earlier layers weigh in a solved head beside the last one's; chosen with `head_C="auto"`.
    head_C_path_ : dict of ndarray or None
        What was tried for `head_C="auto"`: `"C"`, `"earlier_weight"`, and `"log_loss"` of held-out samples with each
        pair, of shape (n_tried,). Empty where nothing could be held out: with one sample of each class.
    interpolation_ : float
        How far the weights are from where tuning started, 0, to where it ended, 1. It can be set.
    n_features_in_ : int
        Number of columns of X, where it is 2-D.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of those columns, where X has names.

    See Also
    --------
    PretrainedFeatureExtractor : The features of a backbone as it is, for any classifier.

    References
    ----------
    .. [1] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    .. [3] Kornblith, Shlens and Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019, choose it likewise.
    .. [4] Wortsman et al., "Robust Fine-tuning of Zero-shot Models", CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import FineTunedClassifier
    >>> X = np.random.default_rng(0).integers(0, 256, size=(6, 32, 32, 3), dtype=np.uint8)
    >>> y = ["ant", "bee"] * 3
    >>> classifier = FineTunedClassifier("squeezenet1_1", weights=None, random_state=0).fit(X, y)
    >>> classifier.predict_proba(X).shape
    (6, 2)
    """

    classes_: np.ndarray
    net_: Any
    history_: list[dict[str, Any]]
    n_iter_: int
    head_C_: float | None  # noqa: N815
    earlier_weight_: float | None
    head_C_path_: dict[str, np.ndarray] | None  # noqa: N815

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BackboneEstimator._parameter_constraints,
        "freeze_depth": [Real, str],
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
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
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
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        callbacks: Any = None,
        image_shape: Any = None,
        pixel_range: Any = "auto",
        max_length: int | None = None,
        sampling_rate: int | None = None,
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
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.max_length = max_length
        self.sampling_rate = sampling_rate
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.precision = precision
        self.feature_cache = feature_cache
        self.store_backbone = store_backbone
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FineTunedClassifier":
        """Train the head, and the blocks behind `freeze_depth`.

        Parameters
        ----------
        X : array-like
            Images, texts, sounds, or rows of numbers, as in :meth:`PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_samples,)
            Labels: strings, integers or booleans, of at least two classes.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of samples, relative to each other: multiplying all of them by a number changes nothing. A weight of
            0 leaves a sample out; of a solved head, a weight of 2 is the same as giving the sample twice.

        Returns
        -------
        FineTunedClassifier
            Fitted.

        Raises
        ------
        ValueError
            If a parameter, X or y is not as described, or the loss turns into no number.
        FileNotFoundError
            If paths in X, or the weights, are no files.
        """
        self._check_parameters()
        with self._all_or_nothing():
            self._fit(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        check_is_fitted(self, "backbone_")
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float64 ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`; rows sum to 1.
        """
        check_is_fitted(self, "backbone_")
        logits = self._compute(X)
        return torch.from_numpy(logits).double().softmax(dim=1).numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the tuned features of all layers, which enter the head.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_features)
            One row a sample.
        """
        check_is_fitted(self, "backbone_")
        return self._compute(X, features=True)

    @property
    def interpolation_(self) -> float:
        """How far the weights are from where tuning started, 0, to where it ended, 1.

        Set it to move them, without training.
        """
        check_is_fitted(self, "backbone_")
        return self.net_.module_.interpolation

    @interpolation_.setter
    def interpolation_(self, factor: float) -> None:
        check_is_fitted(self, "backbone_")
        if isinstance(factor, bool) or not isinstance(factor, Real) or not 0 <= float(factor) <= 1:
            raise ValueError(f"Got interpolation_={factor!r}; expected a number from 0 to 1.")
        module = self.net_.module_
        if not self.backbone_.trained_blocks(module.freeze_depth):
            raise ValueError(
                f"Got interpolation_={factor!r} for a network of which only the head was trained; expected one whose "
                "blocks were tuned too. Set a freeze_depth below 'all', such as 0.75, and fit again."
            )
        module.interpolate(float(factor), self.backbone_)

    def _computation(self) -> tuple[nn.Module, str, np.ndarray | None]:
        return probability_network(self.backbone_, self.net_.module_), "probabilities", self.classes_

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        rows = Rows(X, self.image_shape)
        rows.kind()  # which refuses a single row
        classes, labels = read_labels(y)
        if not rows.may_be_one_picture:  # of which its reader says so
            check_lengths(len(rows), labels)
        weights = weigh(sample_weight, self.class_weight, classes, labels)
        samples, backbone, reader = self._learn(rows)
        check_lengths(len(samples), labels)
        views_seed = 0 if self.random_state is None else self._seed()
        backbone, layers = self._layers(backbone, reader)
        settings = TrainingSettings.of(self, views_seed, layers)
        depth = settings.freeze_depth
        if not backbone.trained_blocks(depth):
            warn_of_frozen_blocks(self)
        earlier = self._earlier(backbone, classes, settings)
        work = self._way_through(backbone.frozen_part(depth, self.pooling, layers), samples)
        trained = train(backbone, work, Task(classes, labels, weights), settings, self._seed(), earlier)
        solution = trained.solution
        if solution and self.head_C == "auto" and not len(solution.path["C"]):
            warnings.warn(
                'Got head_C="auto" and one sample of each class; expected two of one class at least, to choose the '
                f"penalty by samples that are held out. head_C={solution.C:.3g} is taken.",
                UserWarning,
                stacklevel=3,
            )
        learned = {
            "classes_": classes,
            "backbone_": backbone,
            "_reader": reader,
            "net_": trained.net,
            "history_": trained.history,
            "n_iter_": trained.n_iter,
            "head_C_": solution.C if solution else None,
            "earlier_weight_": solution.earlier_weight if solution else None,
            "head_C_path_": solution.path if solution else None,
        }
        self.__dict__.update(learned)  # in one step: nothing can interrupt it half-way

    def _layers(self, backbone: Backbone, reader: Reader) -> tuple[Backbone, tuple[Any, ...]]:
        """Return the backbone up to the deepest layer that is asked for, and the others."""
        depth = "all" if self.strategy == "linear_probe" else self.freeze_depth
        layers = self._shown(backbone, "all", reader).layers(self.layer, self.pooling)
        self._tell_of_vectors(backbone, layers, 5)
        last = backbone.deepest(layers)
        before = tuple(layer for layer in layers if layer != last)
        return self._shown(backbone.ending_at(last), depth, reader), before

    def _compute(self, X: Any, features: bool = False) -> np.ndarray:
        module = self.net_.module_
        part = self.backbone_.frozen_part(module.freeze_depth, module.pooling, module.layers)
        return predict(self.backbone_, module, self._way_through(part, self._read(X)), features)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_settings(self)

    def _earlier(self, backbone: Backbone, classes: np.ndarray, settings: TrainingSettings) -> SuffixNetwork | None:
        """Return what to continue, or say why it cannot be continued."""
        if not self.warm_start or not hasattr(self, "net_"):
            return None
        same = np.array_equal(classes, self.classes_) and backbone.fingerprint == self.backbone_.fingerprint
        module = self.net_.module_
        if not same or (settings.freeze_depth, list(settings.layers)) != (module.freeze_depth, list(module.layers)):
            raise ValueError(
                "Got warm_start=True with other classes, another backbone, freeze_depth or layer than in the fit "
                "before; expected the same. Set warm_start=False to start anew."
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
            learned["net_"] = net_from_record(cut | learned["net_"], below("net_.", tensors), learned["classes_"])
        return learned

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        net = self.__dict__.get("net_")
        if net is None:
            return
        depth = TrainingSettings.of(self, 0).freeze_depth  # which earlier versions did not write with the net
        if isinstance(net, tuple):
            self.net_ = net_from_record({"freeze_depth": depth} | net[0], net[1], self.classes_)
        vars(self.net_.module_).setdefault("freeze_depth", depth)

    @property
    def _n_features_out(self) -> int:
        return next(int(layer.in_features) for layer in self.net_.module_.head if isinstance(layer, nn.Linear))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
