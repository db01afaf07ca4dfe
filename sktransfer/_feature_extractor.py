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
    """Features of images, texts or sounds from a pretrained network.

    `fit` trains nothing: it loads the network, checks X and learns what X looks like. `transform` runs the network in
    eval mode, without gradients, in batches, with decoding in threads ahead of it. Pictures are resized and cropped as
    torchvision does for these weights, to a few of 255 levels; JPEGs of four times that size and more are decoded at a
    half, a quarter or an eighth of theirs. Texts of one length are computed together, so that no padding is. Sounds are
    resampled, made mono, and heard in windows where they are longer than the network's.

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
        `"DEFAULT"` or another of torchvision's weight names, such as `"IMAGENET1K_V1"`; a path to a `.pth` or
        `.safetensors` file; `None` for random weights, drawn from `random_state`. In a file, names may have a prefix,
        and there may be a head: both are left out, with a warning. The size, crop and normalisation of images come with
        the weights, so small images are resized up (to 224 x 224 for most networks).
    layer : str, int, list or None, default=None
        Block, by name or number (1 is the first, -1 the last), or module at whose end the network can be cut; a list
        takes several and concatenates them. `None` takes the input of the classification layer. `"stages"` takes that
        and, before it, the ends of the last four stages: the last blocks before the map changes its size, or, where it
        does not change twice, blocks that are spread evenly. All come from one pass. With `pooling="flatten"`,
        `"stages"` is the same as `None`. `["stages"]` is a module of that name.
    pooling : {"avg", "max", "flatten", "cls", "mean", "last"}, default="avg"
        How maps and tokens become one vector. `"avg"` and `"mean"` are the same, over a text's own tokens alone;
        `"cls"` is the first token, `"last"` the last, for causal networks. Features that are vectors already, such as
        those of a folder of sentence-transformers, which pools and normalises as it was trained, stay as they are.
    image_shape : tuple of int or None, default=None
        (height, width) or (height, width, channels): how to read flat rows.
    pixel_range : "auto" or tuple of float, default="auto"
        Values of arrays, and of pictures and files of more than 8 bits, that stand for black and white. `"auto"` learns
        it in `fit`, once for all of them: uint8 is 0 to 255, uint16 is 0 to 65535, floats within [0, 1] are 0 to 1;
        anything else is taken from least to greatest, with a warning. Pictures and files of 8 bits are 0 to 255.
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
        `"auto"` is bfloat16 where the hardware is faster at it: CUDA devices of compute capability 8 and above,
        processors with AMX, or AVX512-BF16 that is not Intel's; else float32. Plain rows of numbers stay float32.
    feature_cache : "auto", path-like or None, default="auto"
        Where activations of frozen blocks are kept, so that no image is computed again in another fold, candidate,
        estimator or process: by content, never by position. `"auto"` is this process's memory, up to 1 GiB, which the
        worker processes of one search share; a path is a folder that processes and sessions share, up to 10 GiB
        (:func:`sktransfer.set_cache_limit`); the least recently used leave first, and what would not fit as a whole is
        computed each time. `None` keeps nothing.
        Results agree to rounding: a kept activation has the bits of the batch that it was computed in.
    on_bad_sample : {"raise", "nan"}, default="raise"
        What happens to a row that cannot be read: a file that is missing, damaged, too large or of another kind, `None`
        or NaN in place of a sample, a picture or sound that holds NaN. `"raise"` stops with its row and path. `"nan"`
        gives a row of NaN: `transform` and `fit_transform` warn once, count such rows and name the first; `fit`, which
        loads no more than the first batch, leaves them out without a word, and raises only if no row can be read. Rows
        of plain numbers, for a network that takes vectors, have to be finite in either case.
    store_backbone : bool, default=True
        Whether a pickle holds the weights. Without them it holds their name and fingerprint; they are found again when
        first needed, and others are refused.
    random_state : int, RandomState instance or None, default=None
        Seeds random weights.
    verbose : int, default=0
        1 shows a bar for a pass of more than two seconds, and then says how long it took.

    Attributes
    ----------
    backbone_ : sktransfer.backbones.Backbone
        The network: blocks, preprocessing, `summary()`.
    layers_ : list of str, int or None
        The layers whose features are joined, in this order; `None` is the input of the classification layer.
    n_features_out_ : int
        Number of features.
    n_features_in_ : int
        Number of columns of X, where it is 2-D.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of those columns, where X has names.

    See Also
    --------
    FineTunedClassifier : Trains a head, and part of the network.
    sktransfer.load_image_folder : Paths and labels of a folder of class folders.

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
        """Load the backbone and learn what X looks like.

        Parameters
        ----------
        X : array-like
            Images: uint8 or float ndarray of shape (n, height, width), (n, height, width, channels) or (n, channels,
            height, width); flat rows with `image_shape`; a list of arrays or PIL images of any sizes; a list, array,
            Series or one-column DataFrame of files: paths, bytes, open binary files, or dicts with `"bytes"` or
            `"path"`. Texts: the same of strings. Sounds: the same of files, or arrays of shape (n_samples,) or
            (n_samples, n_channels) with `sampling_rate`, or dicts with `"array"` and `"sampling_rate"`. Or rows of
            numbers, for a network that takes vectors.
        y : None
            Ignored.

        Returns
        -------
        PretrainedFeatureExtractor
            Fitted.

        Raises
        ------
        ValueError
            If a parameter or X is not as described.
        FileNotFoundError
            If a path in X, or the path of the weights, leads to no file.
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
            One row per sample, which depends on that sample alone; NaN where it could not be read and
            `on_bad_sample="nan"`. None where X has no rows.

        Raises
        ------
        ValueError
            If X is not as in `fit`, or a file is no image.
        FileNotFoundError
            If a path in X leads to no file.
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
