"""A pretrained network as a regressor: a frozen part, a tuned part and a head that predicts numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._messages import check_choice
from sktransfer._training._prediction import prediction_network
from sktransfer._training.tasks._base import Task
from sktransfer._training.tasks._numbers import LOSSES, NumberTask, number_task


class FineTunedRegressor(MultiOutputMixin, RegressorMixin, FineTunedEstimator):
    """Regressor that fine-tunes a pretrained network.

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
        - a network (`nn.Module`). If it ends in a linear layer, it is treated as a classifier or regressor, and the
          features are the input of that layer;
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
        - `"norm"`: only scales and shifts of normalisation layers [6]_;
        - `"bias"`: the same, and all biases [7]_;
        - `"lora"`: low-rank updates of the weights of linear layers, attention layers and convolutions without groups
          [8]_. They are merged into the weights after training. This needs the extra `lora`.

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
    loss : {"squared_error", "absolute_error", "huber"}, default="squared_error"
        What training minimises, on numbers scaled to a standard deviation of 1. `"squared_error"`: the squared
        difference. `"absolute_error"`: the absolute difference, which outliers affect less. `"huber"`: squared up to
        one standard deviation, absolute beyond [5]_.
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
        Inverse of the regularisation strength of a solved head (see `head_epochs`), which is `1 / (2 * alpha)` for the
        `alpha` of `Ridge`. Features are scaled to a mean squared norm of 1, and numbers to a standard deviation of 1.
        `"auto"` chooses it for each output, between 0.001 and 10,000, by the leave-one-out squared error [3]_, with a
        weak pull towards 1. It also chooses the weight of the features of earlier layers.
    head_epochs : int or "auto", default="auto"
        Number of epochs in which only the head is trained. `"auto"` solves the head as ridge regression on scaled
        features where it can, and trains 30 epochs elsewhere. It can if the head is linear, without dropout. If only
        the head is trained, `early_stopping`, and `augment` without `augment_views`, also need epochs.
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
        the lowest loss on held-out samples: those of `early_stopping`, or else three parts of the training samples,
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
    early_stopping : bool, default=False
        Whether to hold out part of the training samples, stop when their loss no longer falls, and restore the weights
        of the best epoch. The part is spread over the whole range of y.
    validation_fraction : float, default=0.1
        Fraction of the training samples that `early_stopping` holds out.
    n_iter_no_change : int, default=10
        Training stops after this number of epochs without an improvement of at least `tol`.
    tol : float, default=1e-4
        Smallest decrease of the held-out loss that counts as an improvement.
    warm_start : bool, default=False
        Whether a second `fit` continues from the weights of the first. Backbone, depth, head and number of outputs must
        be the same. Numbers stay in the units of the first `fit`.
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
    backbone_ : sktransfer.backbones.Backbone
        The network as it was loaded, with its blocks, preprocessing and `summary()`.
    net_ : skorch.NeuralNetRegressor
        The trained part, from the outputs of the frozen blocks to numbers with a standard deviation of 1.
        `net_.module_` holds the weights.
    history_ : list of dict
        One entry per epoch, with `phase` ("head" or "fine_tune"), `epoch`, `train_loss` and `seconds`. With
        `early_stopping` or `X_val` there are also `valid_loss` and `valid_r2`, and a solved head has an entry as epoch
        0. Otherwise, a solved head has none, so the list is empty if nothing else was trained. Losses are computed on
        numbers with a standard deviation of 1.
    n_iter_ : int
        Number of epochs of all phases, plus the iterations of the solver.
    head_C_ : float, ndarray of shape (n_outputs,) or None
        Inverse of the regularisation strength of the head, one per output if there are several. `None` if the head was
        trained in epochs.
    earlier_weight_ : float or None
        Weight of the features of earlier layers in a solved head, relative to those of the last layer. Chosen with
        `head_C="auto"`.
    head_C_path_ : dict of ndarray or None
        What was tried for `head_C="auto"`: `"C"` and `"earlier_weight"`, of shape (n_tried,), and the leave-one-out
        `"squared_error"` with each pair, of shape (n_tried,) or (n_tried, n_outputs).
    interpolation_ : float
        How far the weights are from the start of tuning (0) to its end (1). Set it to move the weights.
    n_features_in_ : int
        Number of columns of X, if X is 2-D.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of these columns, if X has column names.

    See Also
    --------
    FineTunedClassifier : Predicts classes instead of numbers.
    PretrainedFeatureExtractor : Features of a network without training, for any regressor.

    References
    ----------
    .. [1] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    .. [3] Allen, "The relationship between variable selection and data augmentation and a method for prediction",
       Technometrics 16:125, 1974.
    .. [4] Wortsman et al., "Robust Fine-tuning of Zero-shot Models", CVPR 2022.
    .. [5] Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35:73, 1964.
    .. [6] Frankle, Schwab and Morcos, "Training BatchNorm and Only BatchNorm", ICLR 2021.
    .. [7] Zaken, Goldberg and Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning", ACL 2022.
    .. [8] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import FineTunedRegressor
    >>> X = np.random.default_rng(0).integers(0, 256, size=(6, 32, 32, 3), dtype=np.uint8)
    >>> y = X.mean(axis=(1, 2, 3))
    >>> FineTunedRegressor("squeezenet1_1", weights=None, random_state=0).fit(X, y).predict(X).shape
    (6,)
    """

    _target_mean: np.ndarray
    _target_scale: np.ndarray
    _has_flat_target: bool

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FineTunedEstimator._parameter_constraints,
        "loss": [str],
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
        loss: str = "squared_error",
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
        self.loss = loss

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> "FineTunedRegressor":
        """Train the head, and the blocks after `freeze_depth`.

        Parameters
        ----------
        X : array-like
            Images, texts, sounds, or rows of numbers, as in :meth:`PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Finite numbers, in any unit and scale. For training they are scaled to mean 0 and standard deviation 1.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Relative weights of the samples: multiplying all of them by the same number changes nothing. A weight of 0
            leaves a sample out. For a solved head, a weight of 2 is the same as giving the sample twice.
        X_val, y_val : array-like or None, default=None
            Validation samples of your own. They are not trained on. `history_` shows their loss and R2 after each
            epoch, and `early_stopping` and `interpolation="auto"` use them instead of holding out training samples.

        Returns
        -------
        FineTunedRegressor
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
        """Predict the numbers of each sample.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float64 ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions, in the units and the shape of y.
        """
        check_is_fitted(self, "backbone_")
        numbers = self._compute(X).astype(np.float64) * self._target_scale + self._target_mean
        return numbers[:, 0] if self._has_flat_target else numbers

    def _computation(self) -> tuple[nn.Module, str, np.ndarray | None]:
        return prediction_network(self.backbone_, self.net_.module_, self._in_units()), "predictions", None

    def _in_units(self) -> nn.Module:
        return _Units(self._target_scale, self._target_mean)

    def _read_targets(self, y: Any, sample_weight: Any, n_samples: int | None) -> Task:
        before = (self._target_mean, self._target_scale) if self.warm_start and hasattr(self, "net_") else None
        return number_task(y, sample_weight, self.loss, n_samples, before)

    def _continues(self, task: Task) -> bool:
        return task.n_outputs == len(self._target_mean)

    @staticmethod
    def _meaning(learned: Mapping[str, Any]) -> tuple[type[Task], int]:
        mean, scale = learned["_target_mean"], learned["_target_scale"]
        if np.ndim(mean) != 1 or np.shape(mean) != np.shape(scale):
            raise ValueError("mean and scale of the targets do not have one number per output")
        return NumberTask, len(mean)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("loss", self.loss, tuple(LOSSES))


class _Units(nn.Module):
    """Brings numbers of standard deviation 1 back to their units, in float64: they may be large and differ little."""

    scale: torch.Tensor
    mean: torch.Tensor

    def __init__(self, scale: np.ndarray, mean: np.ndarray):
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(scale).double())
        self.register_buffer("mean", torch.from_numpy(mean).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() * self.scale + self.mean
