"""A pretrained network as a classifier: a frozen part, a tuned part and a head for your own classes."""

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
    """Classifier that fine-tunes a pretrained network.

    You choose how much of the network is trained: only a new head on frozen features, which is the default, or also the
    last blocks, or all of it. The blocks up to `freeze_depth` stay frozen: they run in eval mode, and `fit` does
    not change a single bit of their parameters and buffers.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="resnet18"
        The pretrained network, as one of:

        - a name from :func:`sktransfer.backbones.list_backbones`, such as `"resnet18"`;
        - `"timm:"` followed by a name from timm, such as `"timm:convnext_tiny.fb_in22k"`;
        - `"hf:"` followed by a folder or a name on the Hugging Face Hub, for texts, sounds or images, such as
          `"hf:distilbert-base-uncased"` or `"hf:OWNER/NAME@REVISION"`;
        - a network (`nn.Module`). If it ends in a linear layer, it is treated as a classifier, and the features are the
          input of that layer;
        - an importable function that returns a network. If X is 2-D and the function takes the keyword `n_features`, it
          receives the number of columns of X.
    weights : str, path-like or None, default="DEFAULT"
        `"DEFAULT"` or another of torchvision's weight names; the path of a `.pth` or `.safetensors` file, such as one
        that `save_backbone` wrote; or `None` for random weights. Names in a file may have a common prefix, and a file
        may contain a classification head: both are dropped, with a warning. The weights determine the size, crop and
        normalisation of images.
    freeze_depth : int, float or str, default="all"
        How much of the backbone to freeze, counted from the input:

        - `"all"`: every block;
        - an int: this number of blocks. 0 trains everything. Negative numbers count from the end, as in a slice: -2
          freezes all blocks except the last two, where blocks after the deepest `layer` do not count;
        - a float in [0, 1]: this share of the blocks, rounded to the nearest block;
        - a name: everything up to and including this block, or this module if the network can be cut after it.
    trainable : {"all", "norm", "bias", "lora"}, default="all"
        Which parameters to train in the blocks after `freeze_depth`:

        - `"all"`: every parameter;
        - `"norm"`: only scales and shifts of normalisation layers [5]_;
        - `"bias"`: the same, and all biases [6]_;
        - `"lora"`: low-rank updates of the weights of linear layers, attention layers and convolutions without groups
          [7]_. They are merged into the weights after training. This needs the extra `lora`.

        All other parameters keep their loaded values, bit for bit. With `store_backbone=False`, files and pickles hold
        only what changed. `"norm"`, `"bias"` and `"lora"` need a higher `lr` than `"all"`: 1e-3 to 3e-3.
    lora_rank : int, default=8
        Rank of the low-rank updates. It cannot exceed the smaller dimension of any weight that is updated.
    lora_alpha : float, default=16
        Low-rank updates are multiplied by `lora_alpha / lora_rank`.
    strategy : {"linear_probe", "fine_tune", "lp_ft", "gradual"}, default="lp_ft"
        What to train, and in which order:

        - `"linear_probe"`: only the head;
        - `"fine_tune"`: the head and the blocks together, from the first epoch;
        - `"lp_ft"`: first the head, then both together [1]_;
        - `"gradual"`: first the head. Then one block after another is unfrozen, from the last one down to
          `freeze_depth`, spread evenly over `max_epochs` [2]_.
    layer : str, int, list or None, default="stages"
        Which layers of the network provide the features for the head, as in :class:`PretrainedFeatureExtractor`.
        `"stages"` takes the input of the classification layer and, before it, the outputs of the last four stages.
        `None` takes only the input of the classification layer. A list takes these layers, in the order in which the
        network computes them. Blocks after the deepest layer are not used.
    pooling : {"avg", "max", "flatten", "cls", "mean", "last"}, default="avg"
        How to turn feature maps and tokens into one vector, as in :class:`PretrainedFeatureExtractor`.
    hidden_layer_sizes : tuple of int, default=()
        Widths of the hidden layers of the head. Without hidden layers, the head is linear.
    dropout : float, default=0.0
        Dropout probability after each hidden layer, or before a linear head.
    head_C : float or "auto", default="auto"
        Inverse of the regularisation strength of a solved head (see `head_epochs`), as `C` in `LogisticRegression`, for
        features that are scaled to a mean squared norm of 1. `"auto"` chooses it between 0.3 and 1000 by the log loss
        in 5-fold cross-validation, with a weak pull towards 32 [3]_. It also chooses the weight of the features of
        earlier layers, and multiplies the logits by the number that suits the held-out samples best (temperature
        scaling). A number given here turns all of this off.
    head_epochs : int or "auto", default="auto"
        Number of epochs in which only the head is trained. `"auto"` solves the head as logistic regression on scaled
        features where it can, and trains 30 epochs elsewhere. It can if the head is linear, without dropout and label
        smoothing. If only the head is trained, `early_stopping`, and `augment` without `augment_views`, also need
        epochs.
    max_epochs : int, default=10
        Number of epochs in which the blocks are trained together with the head.
    head_lr : float, default=1e-3
        Maximum learning rate of the head.
    lr : float, default=3e-5
        Maximum learning rate of the last block.
    layer_decay : float, default=1.0
        Factor by which `lr` shrinks from one block to the block before it.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How learning rates change within a phase. `"cosine"`: they rise during the first tenth of the steps, then fall
        to 0 along half a cosine. `"constant"`: they stay the same. A skorch scheduler in `callbacks` replaces the
        schedule.
    interpolation : float, "auto" or None, default=None
        How far to move the weights from the start of tuning (0) to its end (1) [4]_. The start is the pretrained blocks
        with the head that was solved or trained on their features. `None` keeps the end. `"auto"` takes the value with
        the lowest log loss on held-out samples: those of `early_stopping`, or else three parts of the training samples,
        each held out from a training of its own, which takes three times as long. After `fit`, set `interpolation_` to
        move the weights without training.
    optimizer : str or type, default="adamw"
        `"adam"`, `"adamw"`, `"nadam"`, `"radam"`, `"rmsprop"`, `"sgd"`, or a class from `torch.optim`.
    weight_decay : float, default=0.01
        Weight decay of the optimiser.
    augment : {"light", "standard", "strong"}, callable or None, default=None
        Random changes to training images or sounds: a level, or a transform. They are never applied in `predict`. A
        transform takes one uint8 tensor of shape (channels, height, width), as torchvision's transforms v2 do, or, for
        sounds, one float tensor of shape (windows, n_samples). Texts cannot be augmented.
    augment_views : int or None, default=None
        Number of augmented views of each training image; each epoch draws one of them. The views pass the frozen part
        only once. For an augmentation level, other folds and candidates with the same `random_state` reuse them. `None`
        augments anew in each epoch, so every epoch passes every image through the whole network.
    train_bn : bool, default=False
        Whether BatchNorm layers of trained blocks update their statistics. Those of frozen blocks never do.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. If y has several columns: one dict with the weights of 0 and 1 for
        all columns, a list with one such dict per column, or `"balanced"`, which balances each column by itself.
    label_smoothing : float, default=0.0
        Label smoothing, as in torch's `CrossEntropyLoss`.
    early_stopping : bool, default=False
        Whether to hold out part of the training samples, stop when their loss no longer falls, and restore the weights
        of the best epoch. The part is stratified; with several labels per sample, it is random.
    validation_fraction : float, default=0.1
        Fraction of the training samples that `early_stopping` holds out.
    n_iter_no_change : int, default=10
        Training stops after this number of epochs without an improvement of at least `tol`.
    tol : float, default=1e-4
        Smallest decrease of the held-out loss that counts as an improvement.
    warm_start : bool, default=False
        Whether a second `fit` continues from the weights of the first. Backbone, depth, head and classes must be the
        same.
    callbacks : list or None, default=None
        Callbacks of skorch, called in each phase. Set scikit-learn's callbacks (scikit-learn 1.9 and later) with
        `set_callbacks`.
    image_shape : tuple of int or None, default=None
        How to read flat rows as images: (height, width) or (height, width, channels).
    pixel_range : "auto" or tuple of float, default="auto"
        The values that stand for black and white in arrays, and in images and files with more than 8 bits. `"auto"`
        learns them in `fit`.
    n_channels : "auto" or int, default="auto"
        Number of channels per image, from 1 to 64. `"auto"` counts the channels of X. Grey and colour images are
        converted to what the network takes. Arrays and TIFF files with other numbers of channels keep all of them. In
        an array with 4 channels, the fourth is treated as transparency and dropped, with a warning. `n_channels=4`
        keeps it, also in PNG and TIFF files. If the network takes another number of channels, the filters of its first
        convolution are repeated and scaled, as timm does.
    channel_stats : "auto" or tuple of two sequences of float, default="auto"
        Mean and standard deviation of each channel, in the units of X: two sequences with one number per channel.
        `"auto"` takes those of the network. For channels that the network was not pretrained with, `fit` learns them.
        Then each fold of a search has its own values, and its images pass the network again.
    max_length : int or None, default=None
        Maximum number of tokens per text, including special tokens. Longer texts are cut off. `None` takes the maximum
        of the network.
    sampling_rate : int or None, default=None
        Samples per second of sounds that are given as arrays. Files contain their own rate.
    tower : {"auto", "image", "text"}, default="auto"
        Which network to use if the model has one for images and one for texts, as CLIP does. `"auto"` looks at X:
        arrays, images, and strings that end like names of image files are images. Other strings are texts. Features are
        the network's own pooled vector, before any projection into the space that both networks share.
    batch_size : int, default=32
        Maximum number of samples per step. On the CPU, a step is divided among threads. If CUDA runs out of memory, the
        batch size is halved, with one warning.
    n_jobs : int or None, default=None
        Number of threads that load and decode samples; -1 is one per processor. `None` leaves this, on the CPU, to the
        threads that compute. There are as many of them as torch has, which in processes that joblib starts is their
        share of the processors.
    device : str, default="auto"
        `"auto"` is CUDA if available, otherwise the CPU. You can also give a torch device, such as `"cuda:1"`. `"mps"`
        is the GPU of a Mac. It has not been tested on a Mac yet, and `"auto"` does not choose it.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the blocks, frozen and trained. `"auto"` is bfloat16 where the hardware is faster with it: on CUDA
        devices of compute capability 8 and above, on processors with AMX, and on processors with AVX512-BF16 that are
        not Intel's. Elsewhere it is float32. Trained weights and the head are always float32.
    feature_cache : "auto", path-like or None, default="auto"
        Where to cache the outputs of frozen blocks, so that another fold, candidate, estimator or process need not
        compute them again. Entries are found by the content of the samples, never by their position.

        - `"auto"`: the memory of this process, up to 1 GiB. The worker processes of one search share theirs.
        - a path: a folder that processes and sessions share, up to 10 GiB.
        - `None`: nothing is cached.

        The least recently used entries are dropped first. Outputs that would not fit as a whole are computed each time.
        Change the limits with :func:`sktransfer.set_cache_limit`. Results may differ by rounding: a cached output keeps
        the rounding of the batch that produced it.
    store_backbone : bool, default=True
        Whether a pickle holds the backbone's weights. If not, it holds their name and fingerprint: the weights are
        loaded again when they are first needed, and other weights are refused. What was trained is always stored.
    random_state : int, RandomState instance or None, default=None
        Seed of random weights, of the order of samples, dropout and augmentation, and of the held-out part. On the CPU,
        an int gives the same bits in every process with the same number of threads.
    verbose : int, default=0
        1 shows a progress bar for work that takes more than two seconds, one line per epoch, and the time that solving
        the head took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels. With several labels per sample, the column indices of y.
    backbone_ : sktransfer.backbones.Backbone
        The network as it was loaded, with its blocks, preprocessing and `summary()`.
    net_ : skorch.NeuralNet
        The trained part, from the outputs of the frozen blocks to logits. `net_.module_` holds the weights.
    history_ : list of dict
        One entry per epoch, with `phase` ("head" or "fine_tune"), `epoch`, `train_loss` and `seconds`. With
        `early_stopping` or `X_val` there are also `valid_loss` and `valid_accuracy`, and a solved head has an entry as
        epoch 0. Otherwise, a solved head has none, so the list is empty if nothing else was trained. With several
        labels per sample, the accuracy is the share of samples with all labels right.
    n_iter_ : int
        Number of epochs of all phases, plus the iterations of the solver.
    head_C_ : float, ndarray of shape (n_labels,) or None
        Inverse of the regularisation strength of the head, one per label if there are several labels per sample. `None`
        if the head was trained in epochs.
    earlier_weight_ : float, ndarray of shape (n_labels,) or None
        Weight of the features of earlier layers in a solved head, relative to those of the last layer. Chosen with
        `head_C="auto"`.
    head_C_path_ : dict of ndarray, list of these or None
        What was tried for `head_C="auto"`: `"C"`, `"earlier_weight"`, and the `"log_loss"` of held-out samples with
        each pair, of shape (n_tried,). Empty if nothing could be held out, because each class has one sample. With
        several labels per sample, a list with one dict per label.
    interpolation_ : float
        How far the weights are from the start of tuning (0) to its end (1). Set it to move the weights.
    n_features_in_ : int
        Number of columns of X, if X is 2-D.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of these columns, if X has column names.

    See Also
    --------
    FineTunedRegressor : Predicts numbers instead of classes.
    PretrainedFeatureExtractor : Features of a network without training, for any classifier.

    References
    ----------
    .. [1] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    .. [3] Kornblith, Shlens and Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019, make a similar choice.
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
        """Train the head, and the blocks after `freeze_depth`.

        Parameters
        ----------
        X : array-like
            Images, texts, sounds, or rows of numbers, as in :meth:`PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_samples,), or array-like or sparse matrix of shape (n_samples, n_labels)
            Strings, integers or booleans, with at least two classes. Or several labels per sample: 0 and 1, with one
            column per label, as scikit-learn's `MultiLabelBinarizer` returns them.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Relative weights of the samples: multiplying all of them by the same number changes nothing. A weight of 0
            leaves a sample out. For a solved head, a weight of 2 is the same as giving the sample twice.
        X_val, y_val : array-like or None, default=None
            Validation samples of your own. They are not trained on. `history_` shows their loss and accuracy after each
            epoch, and `early_stopping` and `interpolation="auto"` use them instead of holding out training samples.

        Returns
        -------
        FineTunedClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, X or y is not as described, or if the loss becomes NaN or infinite.
        FileNotFoundError
            If a file in X, or the file of weights, does not exist.
        """
        self._check_parameters()
        with self._all_or_nothing():
            self._fit(X, y, sample_weight, X_val, y_val)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class of each sample, or its labels.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels from `classes_`. If y had several columns, 1 for labels with a probability above 0.5, and 0 for
            others.
        """
        check_is_fitted(self, "backbone_")
        probabilities = self.predict_proba(X)
        if self._several:
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each class, or of each label.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float64 ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Columns are in the order of `classes_`, and rows sum to 1. If y had several columns, one probability per
            column.
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
                "Got class_weight as a list for one label per sample; expected a dict by label. A list is for "
                "several labels per sample: one dict per column of y."
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
