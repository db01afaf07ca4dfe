"""A pretrained network as a classifier: a frozen part, a tuned part and a head of one's own classes."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._process._private_names import Interval, StrOptions
from sktransfer._training._prediction import prediction_network
from sktransfer._training.tasks._base import Task
from sktransfer._training.tasks._classes import ClassTask
from sktransfer._training.tasks._indicator_matrix import read_indicators
from sktransfer._training.tasks._indicators import IndicatorTask, indicator_task
from sktransfer._training.tasks._labels import check_class_weight, read_labels, weigh
from sktransfer._training.tasks._weights import check_lengths


class FineTunedClassifier(ClassifierMixin, FineTunedEstimator):
    """Classifier that tunes a pretrained network, from a head on frozen features to all of its layers.

    Frozen means frozen: the blocks up to `freeze_depth` run in eval mode, and every parameter and buffer of theirs is
    after `fit`, bit for bit, what was loaded.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="resnet18"
        A name from :func:`sktransfer.backbones.list_backbones`; `"timm:"` and a name of timm's, such as
        `"timm:convnext_tiny.fb_in22k"`; `"hf:"` and a name on the Hugging Face Hub, or a folder, such as
        `"hf:distilbert-base-uncased"` or `"hf:OWNER/NAME@REVISION"`, for texts, sounds and pictures; a network; or an
        importable function that returns one (it is given `n_features=`, the width of a 2-D X, where it takes that
        keyword). A network of one's own that ends in a linear layer is taken for a classifier, and the
        features are what enters that layer.
    weights : str, path-like or None, default="DEFAULT"
        `"DEFAULT"` or another of torchvision's weight names; a path to a `.pth` or `.safetensors` file, such as
        one that `save_backbone` wrote; `None` for random weights. In a file, names may have a prefix, and there may be
        a head: both are left out, with a warning. The size, crop and normalisation of images come with the weights.
    freeze_depth : int, float or str, default="all"
        How much of the backbone stays frozen, from the input: a number of blocks (int), a share of them (float in
        [0, 1], to the nearest block), a name (a block's, or the path of any module at whose end the network can be
        cut: frozen up to and including it), or `"all"`. 0 trains everything. Negative numbers count from the end, as
        in a slice: with -2, all blocks are frozen but the last two of those that `layer` leaves.
    trainable : {"all", "norm", "bias", "lora"}, default="all"
        Which parameters of the blocks behind `freeze_depth` learn. `"all"`: every parameter. `"norm"`: only scales and
        shifts of normalisation layers [5]_. `"bias"`: those, and all biases [6]_. `"lora"`: low-rank updates of the
        weights of linear layers, attention layers and convolutions without groups; they are merged into the weights
        after training [7]_, and need the extra `lora`. All other parameters keep the bits that were loaded. Files and
        pickles with `store_backbone=False` hold only what changed. `"norm"`, `"bias"` and `"lora"` need a higher `lr`
        than `"all"`: 1e-3 to 3e-3.
    lora_rank : int, default=8
        Rank of low-rank updates. It may be at most the smaller side of each weight that gets one.
    lora_alpha : float, default=16
        Low-rank updates are multiplied by `lora_alpha / lora_rank`.
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
    head_lr : float, default=1e-3
        Greatest learning rate of the head.
    lr : float, default=3e-5
        Greatest learning rate of the last block.
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
    class_weight : dict, list of dict, "balanced" or None, default=None
        As in scikit-learn. Where y has several columns: weights of 0 and 1, in one dict for all columns or a list with
        one for each, or `"balanced"`, each column by itself.
    label_smoothing : float, default=0.0
        As in torch's `CrossEntropyLoss`.
    early_stopping : bool, default=False
        Whether to hold out a stratified part of the training samples (with several labels per sample, a random part),
        to stop when its loss no longer falls, and to restore the weights of the best epoch.
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
        Callbacks of skorch, called in each phase; those of scikit-learn (1.9 and later) are set with `set_callbacks`.
    image_shape : tuple of int or None, default=None
        (height, width) or (height, width, channels): how to read flat rows.
    pixel_range : "auto" or tuple of float, default="auto"
        Values of arrays, and of pictures and files of more than 8 bits, that stand for black and white; `"auto"` learns
        it in `fit`.
    n_channels : "auto" or int, default="auto"
        Channels of each image, from 1 to 64. `"auto"` counts the channels of X. Grey and colour images are read as the
        network takes them. Arrays and TIFF files of other numbers keep all their channels. In an array of 4 channels,
        the fourth is taken for transparency and dropped, with a warning; `n_channels=4` keeps it, in PNG and TIFF files
        too. If the network takes another number, the filters of its first convolution are repeated and scaled, as timm
        does it.
    channel_stats : "auto" or tuple of two sequences of float, default="auto"
        Means and deviations, with one number per channel, in the units of X. `"auto"` takes those of the network. For
        channels that the network was not pretrained with, it learns them in `fit`. Then each fold of a search has other
        values, and its images pass the network again.
    max_length : int or None, default=None
        Tokens of a text that are read, special ones included; what follows is cut off. `None` is as many as the network
        was made for.
    sampling_rate : int or None, default=None
        Samples a second of sounds that are given as arrays; files say their own.
    tower : {"auto", "image", "text"}, default="auto"
        Which network to use of a model such as CLIP, which has one for pictures and one for texts. `"auto"` looks at X:
        arrays, pictures and strings that end like names of pictures are pictures; other strings are texts. Features are
        the network's own pooled vector, in front of a projection into the space that both networks share.
    batch_size : int, default=32
        Samples a step, at most. On the CPU a step is divided among threads; where CUDA's memory does not suffice, it is
        halved, with one warning.
    n_jobs : int or None, default=None
        Threads that load and decode. `None` leaves that, on the CPU, to the threads that compute: as many as torch has,
        which is their share in processes that joblib starts. -1 is all processors.
    device : str, default="auto"
        `"auto"` is CUDA where there is one, else the CPU; or torch's name of a device, such as `"cuda:1"`. `"mps"` is
        the GPU of a Mac; it was tried on no Mac yet, and `"auto"` does not take it.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the blocks, frozen and trained. `"auto"` is bfloat16 where the hardware is faster at it: CUDA devices
        of compute capability 8 and above, processors with AMX, or AVX512-BF16 that is not Intel's; else float32.
        Weights that are trained, and the head, are float32 always.
    feature_cache : "auto", path-like or None, default="auto"
        Where activations of frozen blocks are kept, so that no image is computed again in another fold, candidate,
        estimator or process: by content, never by position. `"auto"` is this process's memory, up to 1 GiB, which the
        worker processes of one search share; a path is a folder that processes and sessions share, up to 10 GiB
        (:func:`sktransfer.set_cache_limit`); the least recently used leave first, and what would not fit as a whole is
        computed each time. `None` keeps nothing.
        Results agree to rounding: a kept activation has the bits of the batch that it was computed in.
    store_backbone : bool, default=True
        Whether a pickle holds the backbone's weights. Without them it holds their name and fingerprint; they are found
        again when first needed, and others are refused. What was trained is always in it.
    random_state : int, RandomState instance or None, default=None
        Seeds random weights, the order of samples, dropout, augmentation and the held-out part. An int gives, on the
        CPU, the same bits in each process with the same number of threads.
    verbose : int, default=0
        1 shows a bar for what takes more than two seconds, a line per epoch, and how long solving the head took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; with several labels per sample, the numbers of their columns in y.
    backbone_ : sktransfer.backbones.Backbone
        The network as it was loaded: blocks, preprocessing, `summary()`.
    net_ : skorch.NeuralNet
        What was trained, from activations at the cut to logits; `net_.module_` holds the weights.
    history_ : list of dict
        An entry per epoch: `phase` ("head" or "fine_tune"), `epoch`, `train_loss`, `seconds`, and with
        `early_stopping` or `X_val` also `valid_loss` and `valid_accuracy`; then a solved head is an entry of epoch 0.
        Else empty where the head was solved and nothing else trained. With several labels per sample, the accuracy is
        the share of samples of which all labels are right.
    n_iter_ : int
        Epochs of all phases, and the solver's iterations.
    head_C_ : float, ndarray of shape (n_labels,) or None
        Inverse strength of the head's penalty, with several labels per sample of each; `None` where the head was
        trained in epochs.
    earlier_weight_ : float, ndarray of shape (n_labels,) or None
        What features of earlier layers weigh in a solved head beside the last one's; chosen with `head_C="auto"`.
    head_C_path_ : dict of ndarray, list of these or None
        What was tried for `head_C="auto"`: `"C"`, `"earlier_weight"`, and `"log_loss"` of held-out samples with each
        pair, of shape (n_tried,). Empty where nothing could be held out: with one sample of each class. With
        several labels per sample, a list with one for each label.
    interpolation_ : float
        How far the weights are from where tuning started, 0, to where it ended, 1. It can be set.
    n_features_in_ : int
        Number of columns of X, where it is 2-D.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of those columns, where X has names.

    See Also
    --------
    FineTunedRegressor : The same for numbers.
    PretrainedFeatureExtractor : The features of a backbone as it is, for any classifier.

    References
    ----------
    .. [1] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    .. [3] Kornblith, Shlens and Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019, choose it likewise.
    .. [4] Wortsman et al., "Robust Fine-tuning of Zero-shot Models", CVPR 2022.
    .. [5] Frankle, Schwab and Morcos, "Training BatchNorm and Only BatchNorm", ICLR 2021.
    .. [6] Zaken, Goldberg and Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning", ACL 2022.
    .. [7] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.

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
    _has_several_labels: bool

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FineTunedEstimator._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
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
        super().__init__(
            backbone,
            weights=weights,
            freeze_depth=freeze_depth,
            trainable=trainable,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            strategy=strategy,
            layer=layer,
            pooling=pooling,
            hidden_layer_sizes=hidden_layer_sizes,
            dropout=dropout,
            head_C=head_C,
            head_epochs=head_epochs,
            max_epochs=max_epochs,
            head_lr=head_lr,
            lr=lr,
            layer_decay=layer_decay,
            lr_schedule=lr_schedule,
            interpolation=interpolation,
            optimizer=optimizer,
            weight_decay=weight_decay,
            augment=augment,
            augment_views=augment_views,
            train_bn=train_bn,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            callbacks=callbacks,
            image_shape=image_shape,
            pixel_range=pixel_range,
            n_channels=n_channels,
            channel_stats=channel_stats,
            max_length=max_length,
            sampling_rate=sampling_rate,
            tower=tower,
            batch_size=batch_size,
            n_jobs=n_jobs,
            device=device,
            precision=precision,
            feature_cache=feature_cache,
            store_backbone=store_backbone,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> "FineTunedClassifier":
        """Train the head, and the blocks behind `freeze_depth`.

        Parameters
        ----------
        X : array-like
            Images, texts, sounds, or rows of numbers, as in :meth:`PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_samples,), or array-like or sparse matrix of shape (n_samples, n_labels)
            Labels: strings, integers or booleans, of at least two classes. Or several labels a sample: 0 and 1, a
            column for each label, as scikit-learn's `MultiLabelBinarizer` makes them.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of samples, relative to each other: multiplying all of them by a number changes nothing. A weight of
            0 leaves a sample out; of a solved head, a weight of 2 is the same as giving the sample twice.
        X_val, y_val : array-like or None, default=None
            Samples of your own that are not trained on: `history_` shows their loss and accuracy after each epoch, and
            `early_stopping` and `interpolation="auto"` look at them in place of a part that is held out.

        Returns
        -------
        FineTunedClassifier
            Fitted.

        Raises
        ------
        ValueError
            If a parameter, X or y is not as described, or the loss turns into no number.
        FileNotFoundError
            If a path in X, or the path of the weights, leads to no file.
        """
        self._check_parameters()
        with self._all_or_nothing():
            self._fit(X, y, sample_weight, X_val, y_val)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample, or which labels it has.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels from `classes_`; or, where y had several columns, 1 for labels that are more probable than not, else
            0.
        """
        check_is_fitted(self, "backbone_")
        probabilities = self.predict_proba(X)
        if self._several:
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, or of each label.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float64 ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Columns in the order of `classes_`; rows sum to 1. Or, where y had several columns, a probability for each
            of them.
        """
        check_is_fitted(self, "backbone_")
        kind, _ = self._meaning(vars(self))
        return kind.results(torch.from_numpy(self._compute(X)).double()).numpy()

    def _computation(self) -> tuple[nn.Module, str, np.ndarray | None]:
        results = nn.Sigmoid() if self._several else nn.Softmax(dim=1)
        return prediction_network(self.backbone_, self.net_.module_, results), "probabilities", self.classes_

    def _read_targets(self, y: Any, sample_weight: Any, n_samples: int | None) -> Task:
        indicators = read_indicators(y)
        if indicators is not None:
            check_lengths(n_samples, len(indicators))
            return indicator_task(indicators, sample_weight, self.class_weight, self.label_smoothing)
        if isinstance(self.class_weight, list):
            raise ValueError(
                "Got class_weight as a list for one label per sample; expected a dict by label. A list has a dict for "
                "each column of a y that says by 0 and 1 which labels a sample has."
            )
        classes, labels = read_labels(y)
        check_lengths(n_samples, len(labels))
        return ClassTask(
            classes, labels, weigh(sample_weight, self.class_weight, classes, labels), self.label_smoothing
        )

    def _continues(self, task: Task) -> bool:
        return type(task) is self._meaning(vars(self))[0] and np.array_equal(task.learned()["classes_"], self.classes_)

    @property
    def _several(self) -> bool:
        return self._meaning(vars(self))[0] is IndicatorTask

    @staticmethod
    def _meaning(learned: Mapping[str, Any]) -> tuple[type[Task], int]:
        several = learned.get("_has_several_labels", False)
        return IndicatorTask if several else ClassTask, len(learned["classes_"])

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_class_weight(self.class_weight)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
