"""Answer names from Keras, fastai, skorch, timm or torch with their names here.

Such a word is never taken: it is answered with the right one. Whoever reads the code later knows one name for a thing.
"""

import os
from collections.abc import Iterable
from typing import Any

from sktransfer._messages import listed, nearest, shown

# Names of parameters elsewhere, by what they are called here.
_PARAMETERS = {
    "augment": "augmentation augmentations data_augmentation transforms train_transform batch_tfms item_tfms",
    "backbone": "arch architecture base_model encoder estimator model model_name module net network",
    "batch_size": "batchsize bs minibatch_size per_device_train_batch_size train_batch_size",
    "class_weight": "class_weights",
    "device": "accelerator gpu gpus use_cuda use_gpu",
    "dropout": "drop dropout_rate drop_rate ps",
    "feature_cache": "cache cache_dir cache_folder memory",
    "freeze_depth": "fine_tune_at freeze freeze_at freeze_backbone freeze_layers freeze_until frozen frozen_layers "
    "n_frozen trainable_layers unfreeze",
    "head_C": "C",
    "hidden_layer_sizes": "hidden_size hidden_sizes hidden_units units",
    "label_smoothing": "smoothing",
    "lora_alpha": "alpha_lora lora_scale peft_alpha",
    "lora_rank": "lora_dim lora_r r rank",
    "loss": "criterion loss_func loss_fn",
    "lr": "base_lr eta learning_rate learning_rate_init lr_max max_lr",
    "lr_schedule": "lr_scheduler lr_scheduler_type scheduler",
    "max_epochs": "epoch epochs max_iter n_epoch n_epochs n_iter nb_epoch num_epochs num_train_epochs",
    "max_length": "max_len max_seq_length maxlen",
    "n_channels": "bands channels in_channels in_chans input_channels n_bands num_bands num_channels",
    "n_iter_no_change": "early_stopping_patience patience",
    "n_jobs": "num_workers workers",
    "optimizer": "opt opt_func optim",
    "pooling": "global_pool pool pool_type",
    "precision": "amp bf16 dtype fp16 mixed_precision",
    "random_state": "manual_seed random_seed seed",
    "sampling_rate": "sample_rate sr",
    "trainable": "adapter adapters lora lora_config peft peft_config peft_type train_bias train_norm train_only "
    "trainable_params tune_only use_lora",
    "validation_fraction": "test_size train_split val_fraction val_split valid_pct validation_split",
    "weight_decay": "decay l2 wd",
    "weights": "checkpoint checkpoint_path pretrained weights_path",
}

# Names of parameters that nothing here is like, and why there is no need of one.
_NO_PARAMETERS = {
    "The labels in y determine the number of classes. Leave it out.": "classes n_classes n_out num_classes num_labels",
    "Images may have any size, and are resized as the weights need. Leave it out.": "image_size "
    "img_size input_shape input_size target_size",
    "The network's own classification layer is always replaced by a new head. Leave it out.": "include_top top",
    "The estimator has its own loss, and scikit-learn's functions take metrics as scoring=. Leave it out.": "criterion "
    "loss loss_func loss_fn metric metrics scoring",
}

# Values that mean the same as others: those that were given, and what to write.
_PRETRAINED = {"auto", "best", "default", "imagenet", "pretrained", "true", "yes"}
_NOTHING = {"disabled", "false", "no", "none", "nothing", "null", "off"}
_MEMORY = {"memory", "on", "ram", "true", "yes"}
_VALUES = {
    "weights": (
        'expected "DEFAULT" for pretrained weights, the name of others, the path of a file, or None for random weights',
        {'weights="DEFAULT"': _PRETRAINED, "weights=None": _NOTHING | {"random", "scratch"}},
    ),
    "freeze_depth": (
        "expected a number of blocks (int), a share of them from 0.0 to 1.0 (float), a name, or \"all\"",
        {'freeze_depth=0 to train all blocks, or "all" to train only the head': _NOTHING},
    ),
    "trainable": (
        'expected "all", "norm", "bias" or "lora": which parameters to train in the blocks after freeze_depth',
        {
            'trainable="all", or freeze_depth="all" to train only the head': _NOTHING,
            'trainable="all"': {"everything", "full", "true", "yes"},
            'trainable="norm"': {"batch_norm", "batchnorm", "bn", "layer_norm", "layernorm", "ln"},
            'trainable="bias"': {"bitfit"},
            'trainable="lora"': {"adapter", "adapters", "low_rank", "peft"},
        },
    ),
    "feature_cache": (
        'expected a folder, "auto" for this process\'s memory, or None to cache nothing',
        {"feature_cache=None": _NOTHING, 'feature_cache="auto"': _MEMORY},
    ),
}  # fmt: skip


def refuse_words(parameter: str, value: Any) -> None:
    """Raise if a value is another word for one that a parameter takes, or `True`, `False` or `None` in place of it.

    Parameters
    ----------
    parameter : {"weights", "freeze_depth", "trainable", "feature_cache"}
        Its name.
    value : object
        What was given.

    Raises
    ------
    ValueError
        With what to write.
    """
    expected, words = _VALUES[parameter]
    if not (isinstance(value, str) or value is True or value is False or value is None):
        return
    word = str(value).casefold()
    meant = next((right for right, known in words.items() if word in known), None)
    right_already = value is None and f"{parameter}=None" in words
    if meant is None or right_already or (parameter == "weights" and value == "DEFAULT"):
        return
    if isinstance(value, str) and parameter == "weights" and os.path.isfile(value):
        return
    if isinstance(value, bool) and parameter == "freeze_depth":
        return  # a depth is a number too, and told so
    folder = f" A folder of that name is {shown('./' + str(value))}." if _may_be_folder(parameter, value) else ""
    raise ValueError(f"Got {parameter}={shown(value)}; {expected}. Write {meant}.{folder}")


def _may_be_folder(parameter: str, value: Any) -> bool:
    return parameter == "feature_cache" and isinstance(value, str)


def right_name(name: str, parameters: Iterable[str]) -> str:
    """Say what an unknown parameter is called here.

    Parameters
    ----------
    name : str
        That was given.
    parameters : iterable of str
        Those of the estimator.

    Returns
    -------
    str
        A sentence.
    """
    known = list(parameters)
    plain = name.casefold()
    words = {name, plain}
    here = [ours for ours, theirs in _PARAMETERS.items() if ours in known and words & set(theirs.split())]
    if here:
        return f"Here it is called {here[0]}."
    for sentence, theirs in _NO_PARAMETERS.items():
        if plain in theirs.split():
            return sentence
    near = nearest(name, known)
    return f"Did you mean {listed(near)}?" if near else "get_params() lists all parameters."
