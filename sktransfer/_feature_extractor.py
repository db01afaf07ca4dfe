"""A pretrained network as a transformer: features out of images, texts or sounds, with nothing to train."""

import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._computing._reuse import Pass
from sktransfer._process._fit_tasks import FitTask, run_as_task
from sktransfer._training._prediction import count_features, extract
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.inputs._rows import Rows

ON_BAD_SAMPLE = ("raise", "nan")


class PretrainedFeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BackboneEstimator):
    """Transformer that computes features of images, texts or sounds with a pretrained network.

    `fit` trains nothing. It loads the network, checks X, and learns what is needed to read X, such as the range of
    pixel values. `transform` runs the network in eval mode and without gradients, in batches, while threads decode the
    next samples.

    Images are resized and cropped as torchvision does for the same weights, up to differences of a few of 255 levels.
    JPEGs of at least four times the size needed are decoded at a half, a quarter or an eighth of their size. Texts of
    the same length are computed together, so that no padding is needed. Sounds are resampled and mixed to mono, and
    split into windows if they are longer than the network takes.

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
        `"DEFAULT"` or another of torchvision's weight names, such as `"IMAGENET1K_V1"`; the path of a `.pth` or
        `.safetensors` file; or `None` for random weights, drawn with `random_state`. Names in a file may have a common
        prefix, and a file may contain a classification head: both are dropped, with a warning. The weights determine
        the size, crop and normalisation of images, so small images are enlarged (to 224 x 224 for most networks).
    layer : str, int, list or None, default=None
        The layer whose output becomes the features: a block, by name or number (1 is the first, -1 the last), or a
        module, by name, if the network can be cut after it.

        - `None`: the input of the classification layer.
        - a list: several layers, computed in one pass and concatenated.
        - `"stages"`: the input of the classification layer and, before it, the outputs of the last four stages, in one
          pass. A stage ends where the feature map changes its size. If the size changes fewer than two times, evenly
          spread blocks are taken. With `pooling="flatten"`, `"stages"` is the same as `None`. For a module
          that is called "stages", give `["stages"]`.
    pooling : {"avg", "max", "flatten", "cls", "mean", "last"}, default="avg"
        How to turn feature maps and tokens into one vector per sample. `"avg"` and `"mean"` are the same; in texts,
        they leave out padding. `"cls"` takes the first token, `"last"` the last one, for causal networks. Features that
        are vectors already stay as they are. For example, folders of sentence-transformers keep the pooling and
        normalisation that they were trained with.
    image_shape : tuple of int or None, default=None
        How to read flat rows as images: (height, width) or (height, width, channels).
    pixel_range : "auto" or tuple of float, default="auto"
        The values that stand for black and white in arrays, and in images and files with more than 8 bits. `"auto"`
        learns them in `fit`, once for all images: uint8 is 0 to 255, uint16 is 0 to 65535, floats within [0, 1] are 0
        to 1. Anything else is scaled from its minimum to its maximum, with a warning. Images and files with 8 bits are
        always 0 to 255.
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
        Precision of the network. `"auto"` is bfloat16 where the hardware is faster with it: on CUDA devices of compute
        capability 8 and above, on processors with AMX, and on processors with AVX512-BF16 that are not Intel's.
        Elsewhere it is float32. With `"auto"`, plain rows of numbers stay in float32.
    feature_cache : "auto", path-like or None, default="auto"
        Where to cache the outputs of frozen blocks, so that another fold, candidate, estimator or process need not
        compute them again. Entries are found by the content of the samples, never by their position.

        - `"auto"`: the memory of this process, up to 1 GiB. The worker processes of one search share theirs.
        - a path: a folder that processes and sessions share, up to 10 GiB.
        - `None`: nothing is cached.

        The least recently used entries are dropped first. Outputs that would not fit as a whole are computed each time.
        Change the limits with :func:`sktransfer.set_cache_limit`. Results may differ by rounding: a cached output keeps
        the rounding of the batch that produced it.
    on_bad_sample : {"raise", "nan"}, default="raise"
        What to do with a sample that cannot be read: a file that is missing, damaged, too large or of another kind,
        `None` or NaN in place of a sample, or an image or sound that contains NaN. Rows of plain numbers, for a network
        that takes vectors, must be finite in either case.

        - `"raise"`: raise an error that names the row and the path.
        - `"nan"`: return a row of NaN. `transform` and `fit_transform` warn once, with the number of such rows and the
          reason for the first. `fit`, which loads only the first batch, skips them silently, and raises an error only
          if no row can be read.
    store_backbone : bool, default=True
        Whether a pickle holds the backbone's weights. If not, it holds their name and fingerprint: the weights are
        loaded again when they are first needed, and other weights are refused.
    random_state : int, RandomState instance or None, default=None
        Seed of random weights.
    verbose : int, default=0
        1 shows a progress bar for work that takes more than two seconds, and then how long it took.

    Attributes
    ----------
    backbone_ : sktransfer.backbones.Backbone
        The network, with its blocks, preprocessing and `summary()`.
    layers_ : list of str, int or None
        The layers whose features are concatenated, in this order. `None` is the input of the classification layer.
    n_features_out_ : int
        Number of features.
    n_features_in_ : int
        Number of columns of X, if X is 2-D.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of these columns, if X has column names.

    See Also
    --------
    FineTunedClassifier : Trains a head, and if you like, part of the network.
    sktransfer.load_image_folder : Lists images and labels of a folder with one folder per class.

    References
    ----------
    Donahue et al., "DeCAF: A Deep Convolutional Activation Feature for Generic Visual Recognition", ICML 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import PretrainedFeatureExtractor
    >>> X = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0)
    >>> extractor.fit_transform(X).shape
    (3, 512)
    """

    _shown_first = ("backbone", "weights", "layer", "pooling")

    n_features_out_: int
    layers_: list[Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BackboneEstimator._parameter_constraints,
        "on_bad_sample": [str],
    }

    def __init__(
        self,
        backbone: Any = "resnet18",
        *,
        weights: Any = "DEFAULT",
        layer: Any = None,
        pooling: str = "avg",
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
        on_bad_sample: str = "raise",
        store_backbone: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
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
        self.on_bad_sample = on_bad_sample
        self.store_backbone = store_backbone
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "PretrainedFeatureExtractor":
        """Load the network, and learn what is needed to read X.

        Parameters
        ----------
        X : array-like
            Samples, as one of:

            - images: uint8 or float ndarray of shape (n, height, width), (n, height, width, channels) or (n, channels,
              height, width); flat rows with `image_shape`; a list of arrays or PIL images of any sizes; or files;
            - texts: a list, array, Series or one-column DataFrame of strings;
            - sounds: files; arrays of shape (n_samples,) or (n_samples, n_channels) with `sampling_rate`; or dicts with
              `"array"` and `"sampling_rate"`;
            - rows of numbers, for a network that takes vectors.

            Files are a list, array, Series or one-column DataFrame of paths, bytes, open binary files, or dicts with
            `"bytes"` or `"path"`.
        y : None
            Ignored.

        Returns
        -------
        PretrainedFeatureExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or X is not as described.
        FileNotFoundError
            If a file in X, or the file of weights, does not exist.
        """
        with self._all_or_nothing():
            learned, work = self._prepare(X, stacklevel=4)

            def learn(fit: FitTask) -> dict[str, Any]:
                n_features = count_features(work, self.on_bad_sample == "nan")
                return {**learned, "n_features_out_": n_features}

            found = run_as_task(self, learn, dict, 0, X)
            self.__dict__.update(found)  # in one step: nothing can interrupt it half-way
        return self

    def _prepare(self, X: Any, stacklevel: int) -> tuple[dict[str, Any], Pass]:
        """Load the backbone and look at X; return both with the pass, which has not begun."""
        self._check_parameters()
        samples, backbone, reader = self._learn(Rows(X, self.image_shape), tolerant=self.on_bad_sample == "nan")
        layers = self._shown(backbone, "all", reader).layers(self.layer, self.pooling)
        self._tell_of_vectors(backbone, layers, stacklevel)
        work = self._way_through(backbone.feature_part(list(layers), self.pooling), samples)
        backbone = self._shown(backbone, "all", reader)
        return {"backbone_": backbone, "_reader": reader, "layers_": list(layers)}, work

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of X.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        float32 ndarray of shape (n_samples, `n_features_out_`)
            One row per sample. Each row depends only on its own sample. It is NaN if the sample could not be read and
            `on_bad_sample="nan"`. If X has no rows, neither has the result.

        Raises
        ------
        ValueError
            If X is not as in `fit`, or a file is not an image.
        FileNotFoundError
            If a file in X does not exist.
        """
        check_is_fitted(self, "backbone_")
        self._check_on_bad_sample()
        if self._has_no_rows(X):
            return np.empty((0, self.n_features_out_), dtype=np.float32)
        part = self._part()
        tolerant = self.on_bad_sample == "nan"
        samples = self._read(X, tolerant)
        features, problems = extract(self._way_through(part, samples), tolerant)
        if problems:
            rows = ", ".join(map(str, list(problems)[:20])) + (", ..." if len(problems) > 20 else "")
            warnings.warn(
                f"{len(problems)} of {len(samples)} samples could not be read; their rows are NaN. The first: "
                f"{next(iter(problems.values()))} Rows: {rows}.",
                UserWarning,
                stacklevel=3,  # scikit-learn wraps transform
            )
        return features

    def _computation(self) -> tuple[nn.Module, str, np.ndarray | None]:
        return self._part().network(), "features", None

    def _part(self) -> FrozenPart:
        layers = vars(self).get("layers_", self.layer)  # which earlier versions did not write down
        return self.backbone_.feature_part(layers, self.pooling)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_on_bad_sample()

    def _check_on_bad_sample(self) -> None:
        self._check_choice("on_bad_sample", ON_BAD_SAMPLE)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.requires_fit = True
        return tags
