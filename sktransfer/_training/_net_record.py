"""A trained skorch net as words, numbers and tensors: what models are kept as, pickled or in a file without code.

skorch's own pickles hold what its version and torch's make of them, and others may refuse that.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sktransfer._training._suffix_network import restore_suffix


def net_to_record(net: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what it takes to build a resting net again.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        As `train` returns it.

    Returns
    -------
    record : dict
        Words and numbers.
    tensors : dict of str to Tensor
        On the CPU.
    """
    record, tensors = net.module_.to_record()
    return {**record, "history": list(net.history)}, tensors


def net_from_record(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], classes: np.ndarray) -> Any:
    """Build a net again from what `net_to_record` returned.

    Parameters
    ----------
    record : mapping
        Words and numbers.
    tensors : mapping of str to Tensor
        Of its module.
    classes : ndarray of shape (n_classes,)
        The labels.

    Returns
    -------
    skorch.NeuralNetClassifier
        Ready to predict, with its history.

    Raises
    ------
    ValueError
        If the tensors are not those of such a net.
    """
    from sktransfer._training._epochs import untrained_net

    if record["n_classes"] != len(classes):
        raise ValueError(f"a head for {record['n_classes']} classes and {len(classes)} labels")
    return untrained_net(restore_suffix(record, tensors), classes, record["history"])
