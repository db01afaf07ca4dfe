"""Private names of other libraries: each with the version in which it was seen, and a way without it.

Classes and functions of that kind are imported here, and from here. Attributes stay where they are used. A test looks
for each name, and compares this list with the sources of the package.
"""

import sys
from dataclasses import dataclass

from sklearn.utils._param_validation import Interval as Interval  # the same name twice: others import it from here
from sklearn.utils._param_validation import InvalidParameterError as InvalidParameterError
from sklearn.utils._param_validation import StrOptions as StrOptions
from torch import nn

ConvNd = nn.modules.conv._ConvNd
NormBase = nn.modules.batchnorm._NormBase


def scorers_and_calibrators() -> list[type]:
    """Return the classes in which scikit-learn keeps a metric or a calibration curve.

    Returns
    -------
    list of type
        Those that the installed version has.
    """
    from sklearn import calibration
    from sklearn.metrics import _scorer

    scorers = [one for one in vars(_scorer).values() if isinstance(one, type) and one.__module__ == _scorer.__name__]
    known = [getattr(calibration, name, None) for name in ("_CalibratedClassifier", "_SigmoidCalibration")]
    return scorers + [one for one in known if one is not None]


def hub_is_asked_otherwise() -> bool:
    """Tell whether somebody has set how huggingface_hub asks the hub, as by a proxy that is named nowhere else.

    Returns
    -------
    bool
        False where that cannot be seen.
    """
    import huggingface_hub

    asks = sys.modules.get(huggingface_hub.get_session.__module__)
    usual = getattr(asks, "default_client_factory", None)
    return getattr(asks, "_GLOBAL_CLIENT_FACTORY", usual) is not usual


@dataclass(frozen=True)
class PrivateNames:
    """Names of one owner that its library does not promise to keep.

    Parameters
    ----------
    owner : str
        The module or class that has them, as a dotted path.
    names : tuple of str
        Its attributes. Where the owner has no such attribute, its source mentions it.
    seen : str
        The library, and the newest version in which they were seen.
    without : str
        What to do when they go.
    only : str, default=""
        The versions that have them, where others do without, such as "<1.7".
    """

    owner: str
    names: tuple[str, ...]
    seen: str
    without: str
    only: str = ""


_TORCH, _SKLEARN, _TRANSFORMERS = "torch 2.14.1", "scikit-learn 1.9.1", "transformers 5.24.0"

PRIVATE_NAMES = (
    # torch
    PrivateNames(
        "torch.nn.modules.conv", ("_ConvNd",), _TORCH,
        "A tuple of the public classes Conv1d to ConvTranspose3d. It misses classes that derive from _ConvNd alone.",
    ),
    PrivateNames(
        "torch.nn.modules.batchnorm", ("_NormBase",), _TORCH,
        "A tuple of BatchNorm1d to 3d, SyncBatchNorm and InstanceNorm1d to 3d. It misses classes that derive from "
        "_BatchNorm alone, as many projects' own do.",
    ),
    PrivateNames(
        "torch.nn.modules.module",
        (
            "register_module_buffer_registration_hook", "register_module_module_registration_hook",
            "register_module_parameter_registration_hook",
        ),
        _TORCH,
        "They are documented, under this path. Without them, count after the network is built.",
    ),
    PrivateNames(
        "torch.nn.Module", ("_modules", "_parameters", "_buffers"), _TORCH,
        "named_children, named_parameters(recurse=False) and named_buffers(recurse=False) to read, add_module to "
        "replace. They leave out None, and named_children also a module that stands in two places.",
    ),
    PrivateNames(
        "torch.nn.Module",
        (
            "_forward_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs", "_forward_pre_hooks",
            "_forward_pre_hooks_with_kwargs",
        ),
        _TORCH,
        "No public way to see hooks. A custom network would have no identity: nothing of it is cached or shared.",
    ),
    PrivateNames(
        "torch.nn.Module", ("_compiled_call_impl", "_load_from_state_dict", "_save_to_state_dict"), _TORCH,
        "Leave it out of the set that names it. A network that has it then gets another identity: it is computed anew.",
    ),
    PrivateNames(
        "torch.nn.Module", ("_metadata",), _TORCH,
        "state_dict without it: torch then takes the weights for those of the oldest version of each layer.",
    ),
    PrivateNames(
        "torch.nn.MultiheadAttention", ("_reset_parameters",), _TORCH,
        "Leave it out of the set that names it.",
    ),
    PrivateNames(
        "torch.autograd.function.FunctionMeta", ("_backward_cls",), _TORCH,
        "Leave it out of the set that names it.",
    ),
    PrivateNames(
        "torch.Tensor", ("_version",), _TORCH,
        "Compare the bits of all tensors each time, which takes as long as reading them.",
    ),
    PrivateNames(
        "torch.fx.graph_module", ("_loader",), _TORCH,
        "Leave the source texts where they are: each part of a network keeps some kilobytes for good.",
    ),
    PrivateNames(
        "torch.fx.proxy.TracerBase", ("nn_module_stack",), _TORCH,
        "Note the path in call_module of our own tracer, which is public.",
    ),
    PrivateNames(
        "torch.cpu", ("_is_avx512_bf16_supported", "_is_amx_tile_supported"), _TORCH,
        "torch.cpu.get_capabilities, which is asked first. Versions before it do not change any more.",
    ),
    PrivateNames(
        "torch._C", ("_nn",), _TORCH,
        "Leave it out of the tuple that names it. Custom networks that call functional.gelu and its like then have no "
        "identity, until the new home of these functions stands there.",
    ),
    PrivateNames(
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper",
        ("_checkpoint_wrapped_module",), _TORCH,
        "Files that were written with it hold it all the same. Keep it, and take this row out.",
    ),
    PrivateNames(
        "torch.distributed.fsdp.FullyShardedDataParallel", ("_fsdp_wrapped_module",), _TORCH,
        "Files that were written with it hold it all the same. Keep it, and take this row out.",
    ),
    PrivateNames(
        "torch._dynamo.eval_frame.OptimizedModule", ("_orig_mod",), _TORCH,
        "Refuse what torch.compile returns, and ask for the network itself.",
    ),
    # torchvision
    PrivateNames(
        "torchvision.transforms._presets.ImageClassification",
        ("crop_size", "interpolation", "mean", "resize_size", "std"), "torchvision 0.29.1",
        "What weights.transforms() returns has no public attributes. Read its repr, or keep a table of our own.",
    ),
    # scikit-learn
    PrivateNames(
        "sklearn.utils._param_validation", ("Interval", "InvalidParameterError", "StrOptions"), _SKLEARN,
        "Check the parameters in our own _check_parameters, with scikit-learn's words.",
    ),
    PrivateNames(
        "sklearn.base.BaseEstimator", ("_parameter_constraints", "_validate_params"), _SKLEARN,
        "As for Interval.",
    ),
    PrivateNames(
        "sklearn.base.BaseEstimator", ("_doc_link_module", "_doc_link_template"), _SKLEARN,
        "They are documented. Without them a notebook shows no link to the documentation.",
    ),
    PrivateNames(
        "sklearn.base.BaseEstimator", ("_get_params_html", "_html_repr", "_repr_html_inner"), _SKLEARN,
        "Take _get_params_html out of the estimators: a notebook then shows all parameters in one table.",
        only=">=1.7",
    ),
    PrivateNames(
        "sklearn.base.BaseEstimator", ("_get_fitted_attr_html",), _SKLEARN,
        "Take it out of the estimators: a notebook then shows the beginning of each network's repr.", only=">=1.9",
    ),
    PrivateNames(
        "sklearn.base.ClassNamePrefixFeaturesOutMixin", ("_n_features_out",), _SKLEARN,
        "It is documented that the mixin reads it. Without it, define get_feature_names_out.",
    ),
    PrivateNames(
        "sklearn.metrics", ("_scorer",), _SKLEARN,
        "type(make_scorer(...)), and the types of what check_scoring returns for None and for a list.",
    ),
    PrivateNames(
        "sklearn.calibration", ("_CalibratedClassifier", "_SigmoidCalibration"), _SKLEARN,
        "Fit a CalibratedClassifierCV on four samples, and take the types of calibrated_classifiers_[0] and of its "
        "calibrators.",
    ),
    PrivateNames(
        "sklearn.callback.CallbackSupportMixin",
        ("_callback_fit_ctx", "_init_callback_context", "_parent_callback_ctx", "_skl_callbacks_to_teardown"), _SKLEARN,
        "_init_callback_context is documented. Without it, take CallbackSupportMixin out of the estimators: there are "
        "no callbacks then, as before 1.9. The others are left out of what is written; without them, nothing is.",
        only=">=1.9",
    ),
    PrivateNames(
        "sklearn.callback.CallbackSupportMixin", ("_skl_callbacks",), _SKLEARN,
        "Compare vars(estimator) before and after set_callbacks.", only=">=1.9",
    ),
    PrivateNames(
        "sklearn.compose._column_transformer", ("_RemainderColsList",), "scikit-learn 1.6.1",
        "Only the name is used, to load what earlier versions wrote.", only="<1.7",
    ),
    # transformers
    PrivateNames(
        "transformers", ("CONFIG_MAPPING", "FEATURE_EXTRACTOR_MAPPING", "MODEL_MAPPING"), _TRANSFORMERS,
        "They are exported and not documented. AutoConfig.for_model, and AutoModel.from_config with its errors.",
    ),
    PrivateNames(
        "transformers.PreTrainedConfig", ("_commit_hash", "_name_or_path"), _TRANSFORMERS,
        "Leave it out of the set that names it.",
    ),
    PrivateNames(
        "transformers.PreTrainedModel",
        ("_init_weights", "_is_hf_initialized", "_use_kernels"), _TRANSFORMERS,
        "Leave it out of the set that names it.",
    ),
    PrivateNames(
        "transformers.core_model_loading.revert_weight_conversion", ("_weight_conversions",), _TRANSFORMERS,
        "Leave it out of the set that names it.",
    ),
    PrivateNames(
        "transformers.OPTConfig", ("_remove_final_layer_norm",), _TRANSFORMERS,
        "Leave it out of the tuple that names it: no description has it then.",
    ),
    # huggingface_hub
    PrivateNames(
        "huggingface_hub.utils._http", ("_GLOBAL_CLIENT_FACTORY", "default_client_factory"), "huggingface_hub 2.4.0",
        "Take it for unset. Behind a proxy that set_client_factory alone names, the hub then counts as out of reach.",
    ),
    # timm
    PrivateNames(
        "timm.models", ("get_notrace_functions", "get_notrace_modules"), "timm 1.0.31",
        "They are exported and not documented. Name the classes and functions in our own list.",
    ),
    # Pillow
    PrivateNames(
        "PIL.Image.Image", ("_exif",), "Pillow 13.0.0",
        "getexif, which warns of damaged tags and reads all of them.",
    ),
    PrivateNames(
        "PIL.Image", ("OPEN",), "Pillow 13.0.0",
        "It is not documented. Image.registered_extensions, which lacks formats without an ending.",
    ),
    PrivateNames(
        "PIL.ImageFile.ImageFile", ("filename", "fp", "tile"), "Pillow 13.0.0",
        "They are named in Pillow's guide for plugins only. Decode from bytes, and give up colours of 16 bits.",
    ),
)  # fmt: skip
