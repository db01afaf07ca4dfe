"""Turn a trained skorch net into plain values and tensors, which pickles and files without code hold.

skorch's own pickles hold what its version and torch's make of them, and others may refuse that.
"""

from collections.abc import Mapping
from typing import Any

import torch

from sktransfer._training._suffix_network import restore_suffix
from sktransfer._training.tasks._base import Task


def net_to_record(net: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what it takes to build a resting net again.

    Parameters
    ----------
    net : skorch.NeuralNet
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


def net_from_record(
    record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], task: type[Task], learned: Mapping[str, Any]
) -> Any:
    """Build a net again from what `net_to_record` returned.

    Parameters
    ----------
    record : mapping
        Words and numbers.
    tensors : mapping of str to Tensor
        Of its module.
    task : type of Task
        The kind of what was learned.
    learned : mapping
        What outputs mean.

    Returns
    -------
    skorch.NeuralNet
        Ready to predict, with its history.

    Raises
    ------
    ValueError
        If the tensors are not those of such a net.
    """
    from sktransfer._training._epochs import untrained_net

    return untrained_net(restore_suffix(record, tensors), task, learned, record["history"])
