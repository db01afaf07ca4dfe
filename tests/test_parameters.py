"""What each parameter takes and what it refuses: one table of wrong values and one of right ones, for all estimators.

A parameter without rows fails a test, so a new one brings its own.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import EpochTimer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.transforms import v2

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._messages import shown as say
from sktransfer.backbones import ImagePreprocessing

ALL = (PretrainedFeatureExtractor, FineTunedRegressor, FineTunedClassifier)
EXTRACTOR = ALL[:1]
REGRESSOR = ALL[1:2]
CLASSIFIER = ALL[2:]
NOTHING: Mapping[str, Any] = MappingProxyType({})

nan, inf = np.nan, np.inf
here = str(Path(__file__))


def small_cnn():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(8, 8))
    return network


def tiny_plain():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 2),
    )  # fmt: skip
    network.preprocessing = ImagePreprocessing(crop=(8, 8))
    return network


def tiny_scaled():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 2),
    )  # fmt: skip
    network.preprocessing = ImagePreprocessing(crop=(8, 8))
    return network


def many_images():
    return np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)


def images():
    return many_images()[:6]


def rows():
    return images().reshape(6, -1)


def vectors():
    return np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def labels(X):
    return np.arange(len(X)) % 2


# What is refused

MUST_BE = "^The '{name}' parameter of {estimator} must be "


class Wrong(NamedTuple):
    """A value, the error that it gets, and what else has to be the case: other parameters, another X."""

    value: Any
    match: str = MUST_BE
    error: type[Exception] = InvalidParameterError
    also: Mapping[str, Any] = NOTHING
    X: Callable[[], Any] = images
    of: tuple[type, ...] = ALL


class Refused(NamedTuple):
    """What one parameter refuses: values of wrong types, wrong values of right types, and what does not go together."""

    types: list[Wrong]
    values: "list[Wrong] | str"
    together: Sequence[Wrong] = ()


# Stands in place of wrong values where every value of the right type is right.
TRUE_AND_FALSE_ARE_BOTH_RIGHT = "every bool is a right value"


def wrong(*values, match=MUST_BE, error=None, **more):
    """Return a row a value; MUST_BE is scikit-learn's message, with its error, and any other is a ValueError."""
    error = error or (InvalidParameterError if match == MUST_BE else ValueError)
    return [Wrong(value, match, error, **more) for value in values]


def got(*values, expected="", **more):
    """Return a row a value, of the form: Got name=value; expected this."""
    return [
        row
        for value in values
        for row in wrong(value, match=f"^Got {{name}}={re.escape(say(value))}.*{expected}", **more)
    ]


NO_BOOL = wrong(None, 0, 1, np.int64(1), 1.0, nan, "yes", "", b"", [True], (True,), {True})
NO_WHOLE_NUMBER = wrong(b"3", [3], (3,), {3}, 3.0, nan, inf, -inf, np.float32(3), 3j)
TEXT_OR_NUMPY_BOOL = wrong("3", "", np.True_)
NO_NUMBER = wrong(None, "0.5", "", b"0.5", [0.5], (0.5,), {0.5}, 0.5j, np.array([0.5]))
NO_TEXT = wrong(None, 3, 0.5, nan, True, b"auto", b"", ["auto"], ("auto",), (), {"auto"}, np.int64(3))
EPOCHS = wrong(0, -1, np.int64(0), np.int8(-3), False)
RATES = wrong(0, 0.0, -0.0, -1e-3, nan, inf, -inf, np.float32(0), np.float64(-1), np.float32(nan), False)

REFUSED = {
    "backbone": Refused(
        wrong(
            *(None, 3, np.int64(18), nan, True, b"resnet18", [tiny_cnn], (), {"resnet18"}),
            match="^Got backbone=.* of type .*; expected a name, a torch.nn.Module, or a function that returns one",
        ),
        [
            *got("", expected="expected one of .* names"),
            *got("resnet81", np.str_("resnet81"), expected="expected one of .* names. Did you mean 'resnet18'"),
            *got("ResNet18", expected="'resnet18'"),
            *wrong(dict, match="^Got a backbone function that returns a dict; expected a torch.nn.Module"),
            *wrong(lambda: None, match="^Got a backbone function that returns a NoneType"),
            *wrong(torch.nn.Linear, match=r"^Got (a )?backbone.*in_features"),  # it cannot be called without arguments
        ],
        [
            *wrong("resnet18", match="^Got X with 4 columns.*backbone='resnet18' takes images", X=vectors),
            *wrong(tiny_vectors, match=r"^The backbone could not run samples of shape \(3, 8, 8\)"),
            *wrong(small_cnn, match=r"^The backbone could not run samples of shape \(4,\)", X=vectors),
        ],
    ),
    "weights": Refused(
        wrong(3, 1.0, nan, np.True_, b"DEFAULT", ["DEFAULT"], ("DEFAULT",), {"DEFAULT"}, {"0.weight": torch.zeros(3)}),
        [
            *got("", expected="expected .*a path, or None"),
            *got("imagenet", "ImageNet", "pretrained", "default", True, expected='Write weights="DEFAULT"'),
            *got("none", "None", "random", False, expected="Write weights=None"),
            *got("nowhere.pth", "/", "IMAGENET1K_V1", expected="which is not a file", error=FileNotFoundError),
            *wrong(Path("nowhere.pth"), match="^Got weights='nowhere.pth', which is not a", error=FileNotFoundError),
            *wrong(here, match=f"^Refused to load {here!r}.*not a weights file"),
        ],
        [
            *got("IMAGENET_V1", expected="for 'resnet18'.*'IMAGENET1K_V1'", also={"backbone": "resnet18"}),
            *got("", expected="expected .*a path, or None", also={"backbone": "resnet18"}),
            *got("default", expected='Write weights="DEFAULT"', also={"backbone": "resnet18"}),
            *got("imagenet1k_v1", expected="Did you mean 'IMAGENET1K_V1'", also={"backbone": "resnet18"}),
            *got("nowhere.pth", expected="not a file", error=FileNotFoundError, also={"backbone": "resnet18"}),
        ],
    ),
    "layer": Refused(
        [
            *wrong(1.0, nan, b"6", {"6"}, {"6": 1}, np.array([1, 2]), np.True_),
            *got(True, expected="expected None, a block's name or number"),
            *wrong([1.5], match="^Got layer=.*1.5.*; expected"),
            *wrong([True], match="^Got layer=.*True.*; expected"),
            *wrong([b"5"], match="^Got layer=.*b'5'.*; expected"),
            *wrong([["5"]], match=r"^Got layer=.*\['5'\].*; expected"),
        ],
        [
            *got("6x", expected="Did you mean '6'"),
            *got("", "fc", expected="has no block .*Its 4 blocks are '0', '4', '5', '6'"),
            *got("Stages", expected="Did you mean 'stages'"),
            *got("20", expected="Write a number without quotes: layer=20"),
            *got(0, -5, 77, expected="expected a block from 1 to 4.*or from -1, the last, to -4"),
            *wrong(np.int64(77), match="^Got layer=77; expected a block from 1 to 4"),
            *wrong([], (), match=r"^Got layer=(\[\]|\(\)); expected at least one", of=EXTRACTOR),
            *wrong(["6", "6x"], match="^Got layer='6x'.*Did you mean '6'", of=EXTRACTOR),
            *wrong((1, 0), match="^Got layer=0; expected a block from 1 to 4", of=EXTRACTOR),
        ],
        got("6", expected="'tiny_vectors' has no block '6'", also={"backbone": tiny_vectors}, X=vectors),
    ),
    "pooling": Refused(
        NO_TEXT,
        [
            *got("average", expected="'avg'"),
            *got("AVG", "", expected="'avg', 'max', 'flatten', 'cls', 'mean' or 'last'"),
        ],
        [
            *wrong("cls", match='^Got pooling="cls" for activations.*expected tokens', also={"layer": "5"}),
            *wrong("last", match='^Got pooling="last" for activations.*expected tokens', also={"layer": "5"}),
        ],
    ),
    "image_shape": Refused(
        wrong(8, 8.5, nan, True, "8x8", "", b"ab", {8}, {8: 8}, np.array([8, 8, 3]), X=rows),
        [
            *wrong((), [], match=r"^Got image_shape=(\(\)|\[\]); expected \(height, width\)", X=rows),
            *got((8,), (0, 8), (-8, -24), (8, 24, 0), (1, 1, 192), expected="expected", X=rows),
            *got((8.0, 24.0), (nan, 8), (inf, 8), ("8", "24"), (None, 24), (8, 8, 3, 1), expected="expected", X=rows),
            *got(("a",), (0, 8), expected="expected"),  # though these images need none
        ],
        [
            *wrong((8, 8), match=r"^Got rows of 192 values that do not fit image_shape=\(8, 8\).*needs 64", X=rows),
            *wrong((9, 9, 3), match=r"^Got rows of 192 values that do not fit image_shape=\(9, 9, 3\)", X=rows),
        ],
    ),
    "pixel_range": Refused(
        wrong(None, 3, 0.5, nan, True, b"auto", b"ab", {0, 255}, {0: 255}, np.array([0, 255])),
        [
            *wrong("", "Auto", "0-255"),
            *got((), [], (255,), (0, 1, 255), (255, 0), (0, 0), expected='expected "auto" or two numbers'),
            *got((0, nan), (nan, 255), (0, inf), (-inf, 255), (0, np.float32(nan)), expected="expected"),
            *got(("0", "255"), (None, 255), (0j, 255), ((0,), (255,)), expected="expected"),
            *wrong((0, 10**400), match="^Got pixel_range=.*; expected"),
            *got((-1e308, 1e308), expected="expected"),  # a span that float cannot hold
        ],
        [
            *wrong((0, 1), (200, 201), match="^Got image values from 0 to 255.*as pixel_range says"),
        ],
    ),
    "n_channels": Refused(
        [*(row for row in NO_WHOLE_NUMBER if row.value is not None), *wrong(None, "3", "", "Auto", np.True_, [3, 4])],
        [
            *wrong(0, -1, 65, np.int64(0), np.int8(-3), 10**9, False),
            *got(True, expected="expected a whole number from 1 to 64"),
        ],
        [
            *wrong(4, match="^Got X of shape .*expected .*with 4 channels, as n_channels, or", also={"n_channels": 4}),
            *wrong(2, match="^Got n_channels=2 for X that holds vectors", also={"backbone": tiny_vectors}, X=vectors),
        ],
    ),
    "channel_stats": Refused(
        wrong(None, 3, 0.5, nan, True, "Auto", "", b"auto", {"mean": [0]}, np.zeros((2, 3))),
        [
            *got((), [], ([1.0],), ([1.0], [1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0]), expected='expected "auto" or'),
            *got((0.5, 0.5), (["a"], ["b"]), ([nan], [1.0]), ([0.0], [inf]), ([0.0], [0.0]), expected="above 0"),
            *got(([0.0] * 3, [1.0, -1.0, 1.0]), ([0j], [1.0]), (None, None), expected="above 0"),
        ],
        [
            *wrong(([0.0] * 2, [1.0] * 2), match="^Got channel_stats of 2 channels for images of 3; expected a mean"),
            *wrong(
                ([0.0] * 4, [1.0] * 4),
                match="^Got channel_stats=.* for X that holds vectors",
                also={"backbone": tiny_vectors},
                X=vectors,
            ),
        ],
    ),
    "max_length": Refused([*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL], EPOCHS),
    "sampling_rate": Refused([*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL], EPOCHS),
    "tower": Refused(wrong(None, 3, True), [*wrong("images", "", "Text"), *got("image", "text", expected="'auto'")]),
    "batch_size": Refused([*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL, *wrong(None)], EPOCHS),
    "n_jobs": Refused(
        [*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL],
        wrong(0, np.int64(0), False, match="^Got n_jobs=0; expected a number of threads"),
    ),
    "device": Refused(
        [*NO_TEXT, *wrong(torch.device("cpu"))],
        [
            *got("", "gpu", "auto:0", "cuda:-1", "cuda0", expected="expected .*torch calls a GPU 'cuda'"),
            *got("CPU", "Cuda", "MPS", expected="Did you mean '(cpu|cuda|mps)'"),
            *got("cuda:99", expected='torch finds .* CUDA devices here. Use device="auto"'),
            *got("meta", "xla", "vulkan", "lazy"),  # torch knows these names, and cannot run networks there
        ],
    ),
    "precision": Refused(
        [*NO_TEXT, *wrong(torch.bfloat16, np.float32)],
        [*got("float16", "Float32", expected="'bfloat16'"), *got("", expected="'auto', 'float32' or 'bfloat16'")],
    ),
    "feature_cache": Refused(
        wrong(np.True_, 3, 0.5, nan, b"auto", ["auto"], (), {"auto"}),
        [
            *got(here, expected="which is a file; expected a folder"),
            *wrong(Path(here), match="^Got feature_cache=.*which is a file; expected a folder"),
            *got("", "a\0b", expected="expected a folder"),
            *got("none", "None", "off", expected="Write feature_cache=None. A folder of that name is"),
            *got(False, expected="Write feature_cache=None"),
            *got(True, "memory", expected='Write feature_cache="auto"'),
        ],
    ),
    "on_bad_sample": Refused(NO_TEXT, got("ignore", "", "NaN", "Raise", expected="'(raise|nan)'")),
    "store_backbone": Refused(NO_BOOL, TRUE_AND_FALSE_ARE_BOTH_RIGHT),
    "random_state": Refused(
        wrong(1.5, 1.0, nan, inf, "0", "", b"0", [0], (), {0}, np.random.default_rng(0), np.random, np.array([0, 1])),
        wrong(-1, 2**32, np.int64(-1)),
    ),
    "verbose": Refused([*NO_WHOLE_NUMBER, *wrong(None, "1", "")], wrong(-1, np.int64(-1))),
    "freeze_depth": Refused(
        [*wrong(b"all", ["all"], (1,), {1}, 1j, np.array([1]), np.True_), *got(True, False, expected="expected")],
        [
            *got("5x", expected="Did you mean '5'"),
            *got("", "fc", expected="has no block .*Its 4 blocks are '0', '4', '5', '6'"),
            *got("ALL", expected="Did you mean 'all'"),
            *got("20", "0.75", "-1", expected="Write a number without quotes: freeze_depth="),
            *got(None, "none", expected="Write freeze_depth=0 to train all blocks"),
            *got(99, -5, expected="expected a number of blocks from 0 to 4 .int; negative ones count from the end"),
            *got(1.5, -0.1, nan, inf, -inf, expected="expected .* a share of them from 0.0 to 1.0"),
            *wrong(np.int64(99), np.float32(1.5), match="^Got freeze_depth=.*(99|1.5).*; expected"),
        ],
        [
            *got("6", expected="has no block '6'", also={"layer": "4"}),  # it lies behind the last layer that is used
            *got(3, expected="expected a number of blocks from 0 to 2", also={"layer": "4"}),
        ],
    ),
    "strategy": Refused(
        NO_TEXT,
        [
            *got("finetune", "FineTune", expected="'fine_tune'"),
            *got("lpft", expected="'lp_ft'"),
            *got("", expected="'linear_probe', 'fine_tune', 'lp_ft' or 'gradual'"),
            *got("LP_FT", expected="Did you mean 'lp_ft'"),
        ],
    ),
    "hidden_layer_sizes": Refused(
        wrong(None, 256, 8.0, nan, True, "256", "", b"12", {8}, {8: 8}, np.array([8])),
        [
            *got((0,), (-1,), (8, 0), (8.0,), (nan,), expected=r"expected widths of at least 1, such as \(256,\)"),
            *got(("8",), (None,), ((8,),), (True,), [np.float32(8)], expected="expected widths"),
        ],
    ),
    "dropout": Refused(
        NO_NUMBER, wrong(-0.1, -1e-9, 1, 1.0, 1.5, nan, inf, -inf, np.float32(1), np.float64(-0.1), np.float32(nan))
    ),
    "head_C": Refused(
        wrong(None, b"auto", [1.0], (1.0,), {1.0}, 0.5j, np.array([0.5])),
        [
            *RATES,
            *wrong("", "Auto", "1.0"),
        ],
        [
            *got(1.0, expected="with head_epochs=3, where it has no effect", also={"head_epochs": 3}),
            *got(1.0, expected="with dropout=0.5, where it has no effect", also={"dropout": 0.5}),
        ],
    ),
    "loss": Refused(
        NO_TEXT,
        [
            *got("mse", "Huber", expected="'huber'"),
            *got("squared", expected="'squared_error'"),
            *got("", expected="'squared_error', 'absolute_error' or 'huber'"),
        ],
    ),
    "trainable": Refused(
        wrong(3, 0.5, nan, b"auto", b"", ["all"], ("all",), (), {"all"}, np.int64(3)),
        [
            *got("LoRA", expected="'lora'"),
            *got("biases", expected="Did you mean 'bias'"),
            *got("", expected="'all', 'norm', 'bias' or 'lora'"),
            *got(True, "full", expected='Write trainable="all"'),
            *got(False, None, "none", expected='or freeze_depth="all" to train only the head'),
            *got("BatchNorm", expected='Write trainable="norm"'),
            *got("bitfit", expected='Write trainable="bias"'),
            *got("peft", expected='Write trainable="lora"'),
        ],
        [
            *got("norm", expected="has no normalisation layers", also={"backbone": tiny_plain, "freeze_depth": 1}),
            *got("lora", expected="has no linear, attention", also={"backbone": tiny_scaled, "freeze_depth": 1}),
        ],
    ),
    "lora_rank": Refused(
        [*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL, *wrong(None, "auto"), *got(True, expected="a whole number")],
        EPOCHS,
        got(
            4096,
            np.int64(4096),
            expected="is a matrix of .* expected at most .*, its smaller side",
            also={"trainable": "lora", "freeze_depth": 2},
        ),
    ),
    "lora_alpha": Refused([*NO_NUMBER, *wrong("auto")], RATES),
    "lr_schedule": Refused(NO_TEXT, [*got("linear", "Cosine", "", expected="'cosine'")]),
    "interpolation": Refused(
        wrong(b"auto", [0.5], (0.5,), {0.5}, 0.5j, np.array([0.5])),
        wrong(-0.1, 1.1, nan, inf, -inf, np.float32(2), "", "Auto", "0.5"),
    ),
    "head_epochs": Refused(
        [*NO_WHOLE_NUMBER, *wrong(None, b"auto", np.True_)], [*EPOCHS, *wrong("", "Auto", "all", "3")]
    ),
    "max_epochs": Refused([*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL, *wrong(None, "auto")], EPOCHS),
    "head_lr": Refused([*NO_NUMBER, *wrong("auto")], RATES),
    "lr": Refused([*NO_NUMBER, *wrong("auto")], RATES),
    "layer_decay": Refused(NO_NUMBER, [*RATES, *wrong(1.1, 2, np.float32(1.5))]),
    "optimizer": Refused(
        wrong(None, 3, nan, True, b"adam", ["adam"], (), {"adam"}, torch.optim.SGD([torch.zeros(1)], lr=1.0)),
        [
            *got("adamww", "AdamW", expected="Did you mean 'adamw'"),
            *got("SGD", expected="Did you mean 'sgd'"),
            *got("", expected="'adam', 'adamw', 'nadam', 'radam', 'rmsprop' or 'sgd'"),
            *got(dict, object, torch.optim.lr_scheduler.StepLR, expected="a class of torch.optim"),
            # They take no weight_decay.
            *got(torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam, torch.optim.Rprop),
        ],
    ),
    "weight_decay": Refused(NO_NUMBER, wrong(-1, -1e-9, nan, inf, -inf, np.float32(-1), np.float32(nan))),
    "augment": Refused(
        wrong(3, 0.5, nan, True, b"light", ["light"], ("light",), (), {"light"}),
        [*got("standart", expected="'standard'"), *got("", "LIGHT", expected="'light', 'standard' or 'strong'")],
        [
            *got("light", expected="for X that holds vectors", also={"backbone": tiny_vectors}, X=vectors),
            *wrong(
                v2.Resize((4, 4)),
                lambda image: None,
                match="^Got an augment callable that returns",
                also={"freeze_depth": 0, "strategy": "fine_tune"},
            ),
            *wrong(v2.Resize((4, 4)), match="^Got an augment callable that returns", also={"freeze_depth": 0}),
        ],
    ),
    "augment_views": Refused([*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL], EPOCHS),
    "train_bn": Refused(
        NO_BOOL,
        TRUE_AND_FALSE_ARE_BOTH_RIGHT,
        got(True, expected="with batch_size=1", also={"batch_size": 1, "freeze_depth": 0}),
    ),
    "class_weight": Refused(
        wrong(3, 1.0, nan, True, b"balanced", (1, 2), {0, 1}, np.array([1, 2])),
        [
            *wrong("", "Balanced", "even"),
            *got({0: -1.0, 1: 2.0}, {0: -2.0, 1: 1.0}, {0: nan, 1: 1.0}, {0: inf, 1: 1.0}, expected="expected"),
            *got([1, 2], expected="expected one dict per label"),
            *wrong([{0: 1}, {1: 2}], match="^Got class_weight as a list for one label per sample; expected a dict"),
            *got({0: None, 1: 1.0}, {0: [1], 1: 1.0}, {0: "heavy", 1: 1.0}, expected="expected"),
        ],
        [
            *wrong({1: 2.0, 7: 2.0}, match=r"^The classes, \[0\], are not in class_weight"),
            *wrong({"a": 1.0}, match=r"^The classes, \[0, 1\], are not in class_weight"),
            *wrong({0: 0, 1: 0.0}, match="^Got.*class_weight.*sum is 0"),
        ],
    ),
    "label_smoothing": Refused(NO_NUMBER, wrong(-0.1, 1, 1.0, 1.5, nan, inf, -inf, np.float32(1), np.float32(nan))),
    "early_stopping": Refused(
        NO_BOOL,
        TRUE_AND_FALSE_ARE_BOTH_RIGHT,
        wrong(True, match="^Got .*early_stopping=True.*expected", of=CLASSIFIER),  # a tenth of 6, for 2 classes
    ),
    "validation_fraction": Refused(
        NO_NUMBER,
        wrong(0, 0.0, 1, 1.0, -0.1, 1.5, 5, nan, inf, -inf, np.int64(1), np.float32(1), True, False),
        wrong(
            0.01, 0.999, match="^Got .*validation_fraction=0.*expected", also={"early_stopping": True}, of=CLASSIFIER
        ),  # of 6 samples
    ),
    "n_iter_no_change": Refused([*NO_WHOLE_NUMBER, *TEXT_OR_NUMPY_BOOL, *wrong(None)], EPOCHS),
    "tol": Refused(NO_NUMBER, wrong(-1, -1e-9, nan, inf, -inf, np.float32(-1), np.float32(nan))),
    "warm_start": Refused(NO_BOOL, TRUE_AND_FALSE_ARE_BOTH_RIGHT),  # what it does not go with is tested by itself
    "callbacks": Refused(
        wrong(3, nan, True, "EarlyStopping", "", b"", (), (EpochTimer(),), {}, {"a": 1}, {3}, EpochTimer(), EpochTimer),
        wrong([3], ["print"], [object()], [[]], [("timer", 3)], [("timer",)], match="^Got callbacks=.*; expected"),
    ),
}

# What is taken


class Made(NamedTuple):
    """A value that needs a folder."""

    make: Callable[[Path], Any]


class Right(NamedTuple):
    """A value that is taken, with other parameters and an X for which it matters."""

    value: Any
    also: Mapping[str, Any] = NOTHING
    X: Callable[[], Any] = images
    of: tuple[type, ...] = ALL


def right(*values, X=images, of=ALL, **also):
    return [Right(value, also, X, of) for value in values]


def saved(name):
    def make(folder):
        save = save_file if name.endswith("safetensors") else torch.save
        save(small_cnn().state_dict(), folder / name)
        return folder / name

    return make


TRAINED = {"freeze_depth": 2, "strategy": "fine_tune", "max_epochs": 1}
STOPPED = {"early_stopping": True, "validation_fraction": 0.4, "head_epochs": 2}
BOOLS = (True, False, np.True_, np.False_)
WHOLE_NUMBERS = (1, 2, np.int64(2), np.int32(2), np.uint8(2))
SMALL_NUMBERS = (1e-3, np.float64(1e-3), np.float32(1e-3), np.float16(1e-3))

TAKEN = {
    "backbone": [
        *right(small_cnn, small_cnn(), functools.partial(tiny_cnn, width=4)),
        *right("squeezenet1_1", np.str_("squeezenet1_1"), weights=None),
        *right(tiny_vectors, tiny_vectors(4), X=vectors),
    ],
    "weights": [
        *right("DEFAULT", None),
        *right(*(Made(saved(f"weights.{ending}")) for ending in ("pth", "pt", "safetensors"))),
        *right(Made(lambda folder: str(saved("weights.pth")(folder)))),
    ],
    "layer": [
        *right(None, "5", np.str_("5"), "3", 1, 4, -1, np.int8(-4), np.int64(2), np.uint8(2)),
        *right(["4"], ("4", "5"), [1, "5"], (np.int64(1), 2), ["5", None, "5"], "stages", np.str_("stages")),
    ],
    "pooling": [
        *right("avg", "max", "flatten", "mean", np.str_("max"), layer="5"),
        *right("avg", "max", "flatten", "mean", "cls", "last", layer=None),
        *right("avg", "max", "flatten", "mean"),
    ],
    "image_shape": [
        *right((8, 8, 3), [8, 8, 3], (8, 24), (16, 12, 1), (np.int64(8), np.uint8(8), 3), X=rows),
        *right(None, (8, 8, 3)),
    ],
    "pixel_range": right("auto", (0, 255), [0, 255], (-1.5, 300.0), (np.uint8(0), np.float32(255)), (False, 200)),
    "n_channels": right("auto", 1, 3, np.int64(3), np.uint8(3), np.str_("auto")),
    "channel_stats": [
        *right("auto", ([100.0] * 3, [50.0] * 3), [[0, 1, 2], [1, 2, 3]], (np.zeros(3), np.float32([1, 2, 3]))),
    ],
    "max_length": right(None),  # test_idle_parameters.py has those of texts and sounds
    "sampling_rate": right(None),
    "tower": right("auto"),  # test_hub_pictures.py has the others
    "batch_size": [*right(*WHOLE_NUMBERS, 4096), *right(np.int64(200), np.uint8(200), np.int8(100), X=many_images)],
    "n_jobs": right(None, 1, 2, -1, -2, np.int64(2), np.int8(-1), batch_size=2),
    "device": right("auto", "cpu", "cpu:0", np.str_("cpu")),
    "precision": right("auto", "float32", "bfloat16", np.str_("float32")),
    "feature_cache": [
        *right("auto", None),
        *right(Made(lambda folder: folder), Made(lambda folder: str(folder / "a"))),
    ],
    "on_bad_sample": right("raise", "nan", np.str_("nan")),
    "store_backbone": right(*BOOLS),
    "random_state": [
        *right(None, 0, 2**32 - 1, np.int64(1), np.uint8(1)),
        *right(Made(lambda folder: np.random.RandomState(0))),
    ],
    "verbose": right(0, 1, 2, True, False, np.int64(1)),
    "freeze_depth": [
        *right(0, 2, -1, -4, np.int8(-2), np.int64(2), np.uint8(2), max_epochs=1),
        *right(0.0, 0.5, 1.0, np.float32(0.5), np.float64(0.5), max_epochs=1),
        *right("all", "5", "3", np.str_("5"), max_epochs=1),
    ],
    "strategy": right(
        "linear_probe", "fine_tune", "lp_ft", "gradual", np.str_("gradual"), freeze_depth=2, max_epochs=1
    ),
    "hidden_layer_sizes": right((), [], (8,), [8, 4], (np.int64(8), np.uint8(4)), head_epochs=1),
    "dropout": right(0, 0.0, 0.5, np.float32(0.5), np.float64(0.5), 0.999, head_epochs=1),
    "head_C": right("auto", np.str_("auto"), 1, 0.5, 1e-6, 1e6, np.float32(2), np.int64(3)),
    "loss": [
        *right("squared_error", "absolute_error", "huber", np.str_("huber")),
        *right("squared_error", "absolute_error", "huber", **TRAINED),
    ],
    "trainable": right("all", "norm", "bias", "lora", np.str_("norm"), lora_rank=2, **TRAINED),
    "lora_rank": right(*WHOLE_NUMBERS[:1], 2, np.int8(2), trainable="lora", **TRAINED),
    "lora_alpha": right(*SMALL_NUMBERS, 1, trainable="lora", lora_rank=2, **TRAINED),
    "lr_schedule": right("cosine", "constant", np.str_("constant"), **TRAINED),
    "interpolation": [
        *right(None, 0, 1, 0.5, np.float32(0.5), np.int64(1), "auto", np.str_("auto"), freeze_depth=2, max_epochs=1),
        *right(0.5, "auto", **TRAINED),
        *right("auto", freeze_depth=2, max_epochs=1, early_stopping=True, validation_fraction=0.4),
    ],
    "head_epochs": right("auto", np.str_("auto"), *WHOLE_NUMBERS),
    "max_epochs": right(*WHOLE_NUMBERS, freeze_depth=2, strategy="gradual"),
    "head_lr": right(*SMALL_NUMBERS, 1, head_epochs=1),
    "lr": right(*SMALL_NUMBERS, **TRAINED),
    "layer_decay": right(1, 1.0, 0.5, np.float32(0.5), np.float64(1), 1e-9, **TRAINED),
    "optimizer": [
        *right("adam", "adamw", "nadam", "radam", "rmsprop", "sgd", np.str_("sgd"), **TRAINED),
        *right(torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad, torch.optim.Adamax, **TRAINED),
    ],
    "weight_decay": right(0, *SMALL_NUMBERS, **TRAINED),
    "augment": right(None, "light", "standard", "strong", np.str_("light"), v2.RandomHorizontalFlip(), **TRAINED),
    "augment_views": right(None, *WHOLE_NUMBERS, augment="light", **TRAINED),
    "train_bn": right(*BOOLS, **TRAINED),
    "class_weight": [
        *right(None, "balanced", np.str_("balanced"), {0: 1, 1: 2.5}, {0: np.float32(1), 1: np.int64(2)}),
        *right({0: 0, 1: 1.0}, {0: 1.0, 1: 1.0, 7: 1.0}),
    ],
    "label_smoothing": right(0, 0.0, 0.1, np.float32(0.1), np.float64(0.999), head_epochs=1),
    "early_stopping": [
        *right(True, np.True_, head_epochs=2, validation_fraction=0.4),
        *right(False, np.False_, head_epochs=2),
    ],
    "validation_fraction": right(0.4, 0.5, np.float64(0.4), np.float32(0.4), **STOPPED),
    "n_iter_no_change": right(*WHOLE_NUMBERS, **STOPPED),
    "tol": right(0, 0.0, *SMALL_NUMBERS, **STOPPED),
    "warm_start": right(*BOOLS),
    "callbacks": right(None, [], [EpochTimer()], [EpochTimer], [("timer", EpochTimer())], head_epochs=1),
}


# What the tables hold


def parameters_of(estimator_class):
    return set(estimator_class().get_params())


def shown(row):
    return re.sub(r" at 0x\w+|\\x00|\s+", " ", repr(row.value))[:40]


def cases(table, rows_of, both_exhaustive=False):
    """Return a test's parameters: estimator, name of the parameter and row, for each estimator that has it.

    Of several estimators that have it, the classifier alone is usual where the others are for an exhaustive run; so it
    is of the two that share their parameters.
    """
    rare = ALL if both_exhaustive else REGRESSOR
    return [
        pytest.param(
            estimator_class,
            name,
            row,
            id=f"{estimator_class.__name__}-{name}-{number}-{shown(row)}",
            marks=[pytest.mark.exhaustive] if estimator_class in rare and estimator_class is not own[-1] else [],
        )
        for name, entry in table.items()
        for number, row in enumerate(rows_of(entry))
        for own in [[one for one in row.of if name in parameters_of(one)]]
        for estimator_class in own
    ]


def refused_rows(entry):
    return [*entry.types, *(() if isinstance(entry.values, str) else entry.values), *entry.together]


@pytest.mark.parametrize("table", [REFUSED, TAKEN], ids=["refused", "taken"])
def test_the_tables_hold_each_parameter_and_no_other(table):
    assert set(table) == set().union(*map(parameters_of, ALL))


@pytest.mark.parametrize("estimator_class", ALL)
def test_each_parameter_has_a_row_of_a_wrong_type_and_one_of_a_wrong_value(estimator_class):
    for name in parameters_of(estimator_class):
        types, values, _ = REFUSED[name]
        assert any(estimator_class in row.of for row in types), f"{name} has no row of a wrong type"
        if values == TRUE_AND_FALSE_ARE_BOTH_RIGHT:
            assert isinstance(estimator_class().get_params()[name], bool)
            taken = [row.value for row in TAKEN[name] if estimator_class in row.of]
            assert any(value is True for value in taken), f"{name}=True is not shown to be right"
            assert any(value is False for value in taken), f"{name}=False is not shown to be right"
        else:
            assert any(estimator_class in row.of for row in values), f"{name} has no row of a wrong value"


# The tests of the rows


@pytest.fixture
def work(monkeypatch):
    """What was loaded and trained meanwhile."""
    from sktransfer import _backbone_estimator
    from sktransfer._training import _solved_head, _solved_ridge

    done = {"loaded": 0, "solved": 0, "steps": 0}

    def counted(what, function):
        def count(*args, **kwargs):
            done[what] += 1
            return function(*args, **kwargs)

        return count

    monkeypatch.setattr(_backbone_estimator, "load_backbone", counted("loaded", _backbone_estimator.load_backbone))
    monkeypatch.setattr(_solved_head, "solve_head", counted("solved", _solved_head.solve_head))
    monkeypatch.setattr(_solved_ridge, "solve_ridge", counted("solved", _solved_ridge.solve_ridge))
    hook = register_optimizer_step_pre_hook(counted("steps", lambda *args: None))
    yield done
    hook.remove()


def estimator_of(estimator_class, **parameters):
    return estimator_class(**{"backbone": small_cnn, "random_state": 0, **parameters})


def test_loading_solving_and_stepping_are_seen(work):
    for number, estimator_class in enumerate((FineTunedClassifier, FineTunedRegressor), 1):
        estimator_class(small_cnn, freeze_depth=0, max_epochs=1, batch_size=6).fit(images(), labels(images()))
        assert work == {"loaded": number, "solved": number, "steps": number}


@pytest.mark.parametrize(("estimator_class", "name", "row"), cases(REFUSED, refused_rows))
def test_a_wrong_value_is_refused_by_name_before_any_training(estimator_class, name, row, work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimator = estimator_of(estimator_class, **{**row.also, name: row.value})
    before = estimator.get_params()
    written = repr(before)
    match = row.match.replace("{name}", name).replace("{estimator}", estimator_class.__name__)
    X = row.X()
    with pytest.raises(row.error, match=re.compile(match, re.DOTALL)) as caught:
        estimator.fit(X, labels(X))
    assert name in str(caught.value)
    assert "np." not in str(caught.value)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    assert set(vars(estimator)) == set(before), "something is left of the fit"
    after = estimator.get_params()
    assert all(after[parameter] is value for parameter, value in before.items())
    assert repr(after) == written
    assert work["solved"] == work["steps"] == 0, "it was trained before it was refused"
    if row.match == MUST_BE:
        assert work["loaded"] == 0, "a network was loaded for a value that no network could save"
    assert not list(tmp_path.iterdir()), "files were written"


@pytest.mark.parametrize(("estimator_class", "name", "row"), cases(TAKEN, list, both_exhaustive=True))
@pytest.mark.filterwarnings("ignore:Got image values")
def test_a_right_value_is_taken_and_stays_as_it_was_given(estimator_class, name, row, tmp_path):
    value = row.value.make(tmp_path) if isinstance(row.value, Made) else row.value
    estimator = estimator_of(estimator_class, **{**row.also, name: value})
    X = row.X()
    assert estimator.fit(X, labels(X)) is estimator
    assert estimator.get_params()[name] is value
    result = estimator.transform(X)
    assert result.shape == (len(X), len(estimator.get_feature_names_out()))
    assert np.isfinite(result).all()


def test_warm_start_is_refused_with_other_classes_or_another_depth_and_leaves_the_first_fit():
    X, y = images(), labels(images())
    fitted = FineTunedClassifier(small_cnn, random_state=0, warm_start=True).fit(X, y)
    before = fitted.predict_proba(X)
    for parameters, classes in (
        ({}, y + 5),
        ({"freeze_depth": 2}, y),
        ({"backbone": functools.partial(tiny_cnn, width=4)}, y),
    ):
        with pytest.raises(
            ValueError, match=r"^Got warm_start=True, but other .*; expected the same\. Set warm_start=False"
        ):
            fitted.set_params(**parameters).fit(X, classes)
        fitted.set_params(freeze_depth="all", backbone=small_cnn)
        np.testing.assert_array_equal(fitted.predict_proba(X), before)
        np.testing.assert_array_equal(fitted.classes_, [0, 1])
