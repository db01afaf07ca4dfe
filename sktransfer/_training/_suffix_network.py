"""The network behind the cut: tuned blocks, pooling and a head of one's own classes, and what of it is frozen."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sktransfer._process._private_names import NormBase
from sktransfer.backbones import Backbone
from sktransfer.backbones._feature_network import pool_output
from sktransfer.backbones.graphs._pooling import pool

# Attributes of a suffix that its record holds as they are.
_PLAIN = ("pooling", "train_bn", "channels_last", "freeze_depth", "in_bfloat16")


def make_head(n_features: int, hidden_layer_sizes: Sequence[int], dropout: float, n_classes: int) -> nn.Sequential:
    """Return a head with random weights: linear, or with hidden layers of ReLU and dropout.

    Parameters
    ----------
    n_features : int
        Width of the features.
    hidden_layer_sizes : sequence of int
        Widths of hidden layers.
    dropout : float
        Probability of a value being dropped, behind each hidden layer, or in front of a linear head.
    n_classes : int
        Logits.

    Returns
    -------
    nn.Sequential
        From (n, n_features) to (n, n_classes).
    """
    layers: list[nn.Module] = []
    width = n_features
    for size in hidden_layer_sizes:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    if not layers and dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


class SuffixNetwork(nn.Module):
    """The trained part: what follows the cut, up to the features, and the head.

    Parameters
    ----------
    tail : nn.Module or None
        Blocks behind the cut; `None` where the head works on features.
    head : nn.Module
        From features to logits.
    pooling : str
        How maps and tokens become features.
    train_bn : bool
        Whether BatchNorm layers of thawed blocks update their statistics.
    channels_last : bool, default=False
        Whether the channels of a map that leaves the tail are its last axis.
    freeze_depth : int, float or str, default="all"
        Where the backbone was cut.
    """

    def __init__(
        self,
        tail: nn.Module | None,
        head: nn.Module,
        pooling: str,
        train_bn: bool,
        channels_last: bool = False,
        freeze_depth: Any = "all",
    ):
        super().__init__()
        self.tail = tail
        self.head = head
        self.pooling = pooling
        self.train_bn = train_bn
        self.channels_last = channels_last
        self.freeze_depth = freeze_depth
        self.in_bfloat16 = False
        self._tail_state: dict[str, torch.Tensor] | None = None

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the tuned features of activations, float32 of shape (n, n_features)."""
        if self.tail is None:
            return pool(x.float(), self.pooling, self.channels_last)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            output = self.tail(x)
        return pool_output(self.tail, x, output.float(), self.pooling, self.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))

    def compute_in(self, bfloat16: bool) -> None:
        """Set whether the tail multiplies in bfloat16, forwards and backwards; weights and head are float32."""
        self.in_bfloat16 = bfloat16

    def thaw(self, names: set[str]) -> None:
        """Let the head and these parameters of the tail be trained, and no others."""
        self.head.requires_grad_(True)
        if self.tail is not None:
            for name, parameter in self.tail.named_parameters():
                parameter.requires_grad_(name in names)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SuffixNetwork":
        """Enter training mode where something is trained; frozen layers and, unless asked for, BatchNorm stay as is."""
        super().train(mode)
        if mode and self.tail is not None:
            modules = dict(self.tail.named_modules())
            for name, module in modules.items():
                # A dropout has no weights of its own: it is as frozen as the module it is part of.
                owner = module
                while name and next(owner.parameters(), None) is None:
                    name = name.rpartition(".")[0]
                    owner = modules[name]
                thawed = any(parameter.requires_grad for parameter in owner.parameters())
                counts = isinstance(module, NormBase)
                module.training = thawed and (self.train_bn or not counts)
        return self

    def attach(self, backbone: Backbone) -> None:
        """Cut the tail from its backbone again and put its tensors back, after a pickle left the traced graph out."""
        state = self._tail_state  # another thread may do the same meanwhile
        if self.tail is None and state is not None:
            tail = backbone.tail(self.freeze_depth, self.train_bn)
            assert tail is not None
            try:
                tail.load_state_dict(state)
            except RuntimeError as error:
                raise ValueError(
                    f"Got tuned blocks that do not match the part of {backbone.name!r} behind "
                    f"freeze_depth={self.freeze_depth!r}: {error}. Load the model with the versions of torch and "
                    "torchvision that it was saved with, or fit again."
                ) from error
            # In the order in memory that training left: other orders round otherwise.
            tail = tail.to(memory_format=torch.channels_last)
            self.tail, self._tail_state = tail.eval().requires_grad_(False), None

    def to_record(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what it takes to build this network again with `restore_suffix`.

        Returns
        -------
        record : dict
            Words and numbers.
        tensors : dict of str to Tensor
            Of `head` and `tail`.
        """
        linear = [layer for layer in self.head.children() if isinstance(layer, nn.Linear)]
        dropouts = [layer.p for layer in self.head.children() if isinstance(layer, nn.Dropout)]
        record = {
            "n_features": linear[0].in_features,
            "hidden_layer_sizes": [layer.out_features for layer in linear[:-1]],
            "dropout": dropouts[0] if dropouts else 0.0,
            "n_classes": linear[-1].out_features,
            **{name: getattr(self, name) for name in _PLAIN},
        }
        tensors = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        left, tail = self._tail_state, self.tail  # in this order: another thread may attach the tail meanwhile
        tuned = left or {} if tail is None else tail.state_dict()
        return record, tensors | {f"tail.{name}": tensor.cpu() for name, tensor in tuned.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_suffix, self.to_record()


def restore_suffix(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> SuffixNetwork:
    """Build the trained part of a network again, as pickles and copies of it do.

    Parameters
    ----------
    record : mapping
        Words and numbers: what the module's `to_record` returned first.
    tensors : mapping of str to Tensor
        Of its head and its tuned blocks: what `to_record` returned second.

    Returns
    -------
    nn.Module
        In eval mode. Tuned blocks among it run once it is given the backbone that they were cut from.

    Raises
    ------
    ValueError
        If the tensors are not those of such a network.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"head": {}, "tail": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    sizes = record["n_features"], record["hidden_layer_sizes"], record["dropout"], record["n_classes"]
    if len(parts["head"]) != 2 * (len(sizes[1]) + 1):  # before there are layers to compare
        raise ValueError("a head whose tensors are not those of its layers")
    with torch.device("meta"):  # whatever sizes a file claims, memory is that of its tensors
        head = make_head(*sizes)
    try:
        head.load_state_dict(parts["head"], assign=True)
    except RuntimeError as error:
        raise ValueError("a head whose tensors are not those of its layers") from error
    plain = {name: record[name] for name in _PLAIN}
    in_bfloat16 = plain.pop("in_bfloat16")
    network = SuffixNetwork(None, head, **plain)
    network.compute_in(in_bfloat16)
    network._tail_state = parts["tail"] or None
    return network.eval().requires_grad_(False)


restore_suffix.__module__ = "sktransfer"  # where it is public, which pickles name


class FeaturesOf(nn.Module):
    """A suffix without its head.

    Parameters
    ----------
    module : SuffixNetwork
        The suffix.
    """

    def __init__(self, module: SuffixNetwork):
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.features(x)
