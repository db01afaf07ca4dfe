"""The network after the cut: tuned blocks, pooling and a head for your own classes, and which of it is frozen."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sktransfer._process._private_names import NormBase
from sktransfer._training._feature_scaling import FeatureScaling, restore_scaling
from sktransfer._training._low_rank import Factors, LowRank, add_low_rank, insert, live_names, merge, plain_name
from sktransfer.backbones import Backbone
from sktransfer.backbones._feature_network import join, pool_output, run_part, unpack
from sktransfer.backbones.graphs._pooling import pool

# Attributes of a suffix that its record holds as they are.
_PLAIN = ("pooling", "train_bn", "channels_last", "freeze_depth", "in_bfloat16", "layers", "widths", "interpolation")

# Tensors of a scaling.
_SCALING = ("mean", "factor", "floor")


def make_head(
    n_features: int,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
    n_classes: int,
    scaling: FeatureScaling | None = None,
) -> nn.Sequential:
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
    scaling : FeatureScaling or None, default=None
        What scales features first.

    Returns
    -------
    nn.Sequential
        From (n, n_features) to (n, n_classes).
    """
    layers: list[nn.Module] = [] if scaling is None else [scaling]
    width = n_features
    for size in hidden_layer_sizes:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    if not hidden_layer_sizes and dropout:
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
    layers : sequence of str or int, default=()
        Layers of the backbone, before its features, whose vectors join these.
    widths : sequence of int, default=()
        Of the vectors of those before the cut, which come with the activation.

    Attributes
    ----------
    interpolation : float
        How far the weights are from where tuning started, 0, to where it ended, 1.
    kept : sequence of str or None
        Tensors of the tail that its record holds: those that are not the backbone's. `None` is all of them.
    low_rank : dict of str to Factors
        What else is not the backbone's: weights of the tail, by name, to which these were added.
    """

    interpolation: float = 1.0
    kept: Sequence[str] | None = None
    low_rank: Mapping[str, Factors] = MappingProxyType({})
    # Updates of weights, while they are trained.
    _inserted: Mapping[str, LowRank] = MappingProxyType({})
    # What earlier versions, which had none of it, did not pickle.
    layers: Sequence[Any] = ()
    widths: Sequence[int] = ()
    started: dict[str, torch.Tensor] | None = None
    # What runs batches instead, while this is trained.
    runner: Callable[[torch.Tensor], torch.Tensor] | None = None
    _ended: dict[str, torch.Tensor] | None = None
    # Parameters of blocks that are not frozen now; those of them that learn, where not all do.
    _thawed: Collection[str] = ()
    _learned: Collection[str] | None = None

    def __init__(
        self,
        tail: nn.Module | None,
        head: nn.Module,
        pooling: str,
        train_bn: bool,
        channels_last: bool = False,
        freeze_depth: Any = "all",
        layers: Sequence[Any] = (),
        widths: Sequence[int] = (),
    ):
        super().__init__()
        self.tail = tail
        self.head = head
        self.pooling = pooling
        self.train_bn = train_bn
        self.channels_last = channels_last
        self.freeze_depth = freeze_depth
        self.in_bfloat16 = False
        self.layers, self.widths = list(layers), list(widths)
        self._tail_state: dict[str, torch.Tensor] | None = None
        # Weights of the head when tuning started, and all weights when it ended, where these are others.
        self.started = self._ended = None

    def vectors(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the vectors of all layers, float32 of shape (n, width) each, those of the last one at the end."""
        if self.tail is None:
            return [pool(x.float(), self.pooling, self.channels_last)]
        early, value = unpack(x, self.widths)
        if value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            vectors, output = run_part(self.tail, value, early)
        return [*vectors, pool_output(self.tail, value, output.float(), self.pooling, self.channels_last)]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the tuned features of activations, float32 of shape (n, n_features)."""
        return join(self.vectors(x))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of activations, computed here and now."""
        return self.head(self.features(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x) if self.runner is None else self.runner(x)

    def compute_in(self, bfloat16: bool) -> None:
        """Set whether the tail multiplies in bfloat16, forwards and backwards; weights and head are float32."""
        self.in_bfloat16 = bfloat16

    def prepare(self, learned: Collection[str] | None, low_rank: Mapping[str, LowRank]) -> None:
        """Say which parameters of the tail may learn, before it is trained.

        Parameters
        ----------
        learned : collection of str or None
            Their names; `None` is all.
        low_rank : mapping of str to LowRank
            Updates that learn in place of weights.
        """
        assert self.tail is not None
        self.kept, self.low_rank, self._learned = None, {}, learned
        self._inserted = insert(self.tail, low_rank)

    def thaw(self, names: set[str]) -> None:
        """Let the head, and of these parameters of the tail those that may learn, be trained, and no others."""
        self.head.requires_grad_(True)
        self._thawed = names
        if self.tail is not None:
            for name, parameter in self.tail.named_parameters():
                plain, is_update = plain_name(name, self._inserted)
                learns = self._learned is None or plain in self._learned
                parameter.requires_grad_(plain in names and learns and is_update == bool(self._inserted))
        self.train(self.training)

    def trained_names(self, name: str) -> list[str]:
        """Return what is trained in place of a parameter of the tail, as this module's `named_parameters` has it."""
        return [f"tail.{one}" for one in live_names(name, self._inserted)]

    def n_weights_in_use(self) -> int:
        """Return the number of weights of the tail that are computed with while only some of them learn; else 0."""
        some = self._learned is not None and self.tail is not None
        return sum(parameter.numel() for parameter in self.tail.parameters()) if some and self.tail is not None else 0

    def train(self, mode: bool = True) -> "SuffixNetwork":
        """Enter training mode where something is trained; frozen layers and, unless asked for, BatchNorm stay as is."""
        super().train(mode)
        if mode and self.tail is not None:
            modules = dict(self.tail.named_modules())
            parameters = self.tail.named_parameters()
            warm = {id(one) for name, one in parameters if plain_name(name, self._inserted)[0] in self._thawed}
            for name, module in modules.items():
                # A dropout has no weights of its own: it is as frozen as the module it is part of.
                owner = module
                while name and next(owner.parameters(), None) is None:
                    name = name.rpartition(".")[0]
                    owner = modules[name]
                thawed = any(id(parameter) in warm for parameter in owner.parameters())
                counts = isinstance(module, NormBase)
                module.training = thawed and (self.train_bn or not counts)
        return self

    def attach(self, backbone: Backbone) -> None:
        """Cut the tail from its backbone again and put its tensors back, after a pickle left the traced graph out."""
        state = self._tail_state  # another thread may do the same meanwhile
        if self.tail is None and state is not None:
            tail = backbone.tail(self.freeze_depth, self.train_bn, self.layers, self.pooling)
            assert tail is not None
            start = {name: tensor.clone() for name, tensor in tail.state_dict().items()}
            try:
                end = state if self.kept is None else start | state
                end = end | {name: add_low_rank(end[name], factors) for name, factors in self._added().items()}
                tail.load_state_dict(end)
            except (KeyError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"Got tuned blocks that do not match the part of {backbone.name!r} after "
                    f"freeze_depth={self.freeze_depth!r}: {error}. Load the model with the versions of torch and "
                    "torchvision that it was saved with, or fit again."
                ) from error
            # In the order in memory that training left: other orders round otherwise.
            tail = tail.to(memory_format=torch.channels_last)
            if self.interpolation != 1:
                _move(tail, start, end, self.interpolation)
            if self._ended is not None:
                self._ended = self._ended | {f"tail.{name}": tensor for name, tensor in end.items()}
            self.tail, self._tail_state = tail.eval().requires_grad_(False), None

    def interpolate(self, factor: float, backbone: Backbone) -> None:
        """Put the weights on the line from where tuning started to where it ended.

        Parameters
        ----------
        factor : float
            0 is the start: the backbone's own blocks, and the head that was solved or trained on their features. 1 is
            the end.
        backbone : Backbone
            From which the tail was cut.
        """
        self.attach(backbone)
        if self._ended is None:
            self._ended = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        original = backbone.tail(self.freeze_depth, self.train_bn, self.layers, self.pooling)
        assert original is not None
        start = {f"tail.{name}": tensor for name, tensor in original.state_dict().items()} | (self.started or {})
        _move(self, start, self._ended, factor)
        self.interpolation = factor
        if factor == 1:
            self._ended = None

    def start_anew(self) -> None:
        """Take the weights as they are for where training goes on from."""
        self._ended, self.interpolation = None, 1.0

    def merge(self) -> None:
        """Let weights be what they are with their updates, once these are trained."""
        if self.tail is not None and self._inserted:
            self.low_rank, self._inserted = merge(self.tail, self._inserted), {}

    def settle(self, backbone: Backbone) -> None:
        """Find out what of the tail is not the backbone's any more: a record holds that alone.

        Parameters
        ----------
        backbone : Backbone
            From which the tail was cut.
        """
        original = backbone.tail(self.freeze_depth, self.train_bn, self.layers, self.pooling)
        if original is None or self.tail is None:
            return
        start, end = original.state_dict(), self.tail.state_dict()
        if self._ended is not None:
            end = {name: self._ended[f"tail.{name}"] for name in end}
        added = self.low_rank.items()
        # Not where the weight was another than the backbone's before.
        self.low_rank = {name: pair for name, pair in added if torch.equal(add_low_rank(start[name], pair), end[name])}
        changed = (name for name in end if not torch.equal(start[name], end[name]))
        self.kept = [name for name in changed if name not in self.low_rank]
        self._learned = None

    def _added(self) -> dict[str, Factors]:
        """Return what was added to weights, or what would be if training ended now."""
        return {name: update.factors() for name, update in self._inserted.items()} or dict(self.low_rank)

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
            "kept": None if self.kept is None else list(self.kept),
        }
        scalings = [layer.to_record() for layer in self.head.children() if isinstance(layer, FeatureScaling)]
        record["scaling"] = scalings[0] if scalings else None
        started = {f"start.{name}": tensor for name, tensor in (self.started or {}).items()}
        ended = self._ended
        left, tail = self._tail_state, self.tail  # in this order: another thread may attach the tail meanwhile
        if ended is None or tail is None:
            tuned = left or {} if tail is None else _plain_state(tail, self._inserted)
            ended = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()} | (ended or {})
            ended |= {f"tail.{name}": tensor for name, tensor in tuned.items()}
        if self.kept is not None:
            kept = {f"tail.{name}" for name in self.kept}
            ended = {name: tensor for name, tensor in ended.items() if name in kept or not name.startswith("tail.")}
        for name, (left_factor, right_factor) in self._added().items():
            ended |= {f"left.{name}": left_factor, f"right.{name}": right_factor}
        # All of them: another thread may predict on a GPU meanwhile, where head and tail then are.
        return record, {name: tensor.cpu() for name, tensor in (ended | started).items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_suffix, self.to_record()


def restore_suffix(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> SuffixNetwork:
    """Rebuild the trained part of a network. Pickles and copies call this; you need not.

    Parameters
    ----------
    record : mapping
        Plain values: the first result of the module's `to_record`.
    tensors : mapping of str to Tensor
        Tensors of the head and the tuned blocks: the second result of `to_record`.

    Returns
    -------
    nn.Module
        The module, in eval mode. If it has tuned blocks, it needs the backbone that they were cut from before it runs.

    Raises
    ------
    ValueError
        If the tensors do not belong to such a network.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"head": {}, "tail": {}, "start": {}, "left": {}, "right": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    sizes = record["n_features"], record["hidden_layer_sizes"], record["dropout"], record["n_classes"]
    scaling = record.get("scaling")  # which earlier versions folded into the weights
    expected = 2 * (len(sizes[1]) + 1) + (0 if scaling is None else len(_SCALING))
    if len(parts["head"]) != expected:  # before there are layers to compare
        raise ValueError("the tensors of the head do not match its layers")
    with torch.device("meta"):  # whatever sizes a file claims, memory is that of its tensors
        head = make_head(*sizes, scaling=None if scaling is None else restore_scaling(scaling))
    try:
        head.load_state_dict(parts["head"], assign=True)
    except RuntimeError as error:
        raise ValueError("the tensors of the head do not match its layers") from error
    plain = {name: record[name] for name in _PLAIN if name in record}  # earlier versions wrote fewer
    in_bfloat16, factor = plain.pop("in_bfloat16"), float(plain.pop("interpolation", 1.0))
    network = SuffixNetwork(None, head, **plain)
    network.compute_in(in_bfloat16)
    kept = record.get("kept")  # which earlier versions did not tell: they wrote all
    if kept is not None and set(kept) != parts["tail"].keys():
        raise ValueError("the tensors of the tuned blocks do not match their record")
    if parts["left"].keys() != parts["right"].keys():
        raise ValueError("the low-rank matrices are not pairs")
    network.kept = kept
    network.low_rank = {name: (left, parts["right"][name]) for name, left in parts["left"].items()}
    network._tail_state = parts["tail"] or (None if kept is None else {})
    network.started = parts["start"] or None
    network.interpolation = factor
    if factor != 1:
        network._ended = {f"head.{name}": tensor.clone() for name, tensor in head.state_dict().items()}
        network._ended |= {f"tail.{name}": tensor for name, tensor in parts["tail"].items()}
        _move(network, parts["start"], network._ended, factor)
    return network.eval().requires_grad_(False)


def _plain_state(tail: nn.Module, inserted: Mapping[str, LowRank]) -> dict[str, torch.Tensor]:
    """Return the tensors of a tail under the network's names, without updates of its weights."""
    if not inserted:
        return tail.state_dict()
    named = ((*plain_name(name, inserted), tensor) for name, tensor in tail.state_dict().items())
    return {name: tensor for name, is_update, tensor in named if not is_update}


def _move(module: nn.Module, start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], factor: float) -> None:
    """Put the tensors of a module, as far as both name them, between start and end; at 0 and 1 exactly."""
    tensors = module.state_dict()
    with torch.no_grad():
        for name in tensors.keys() & start.keys() & end.keys():
            if not end[name].is_floating_point() or factor in (0, 1):
                tensors[name].copy_(end[name] if factor else start[name])
            else:
                tensors[name].copy_(torch.lerp(start[name].to(end[name].device), end[name], factor))


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
