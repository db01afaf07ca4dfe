"""A pretrained network as one record: layers, blocks, preprocessing and the origin of its weights.

A backbone is never changed by training: whoever trains a part of it trains a copy.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sktransfer.backbones._cut_names import as_list
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.backbones._kept_network import KeptNetwork
from sktransfer.backbones._learned_parameters import find_learned, matrix_shape
from sktransfer.backbones._stages import stage_ends
from sktransfer.backbones._summary import BackboneSummary, BlockRow
from sktransfer.backbones.graphs._base import NOTHING, Block, Cut, Pooled
from sktransfer.backbones.graphs._folding import scale_convolutions
from sktransfer.backbones.graphs._trace import first_names


class Backbone(KeptNetwork):
    """A pretrained network as a sequence of blocks. It can be cut between any two of them.

    Parameters
    ----------
    source : Source
        Origin of the network.

    Attributes
    ----------
    name : str
        Name of the backbone.
    weights_name : str
        Name of the weights.
    blocks : tuple of Block
        Blocks in order from the input, without the classification layer.
    preprocessing : Preprocessing
        How the network expects its samples.
    """

    def __repr__(self) -> str:
        more = ""
        if self.n_own_channels:
            n_channels = self.preprocessing.channels  # type: ignore[attr-defined]
            more = f", first layer adapted to {n_channels} channel{'s' * (n_channels > 1)}"
        return f"<Backbone {self.name!r}, weights={self.weights_name!r}, {len(self.blocks)} blocks{more}>"

    # Channels

    @property
    def n_own_channels(self) -> int | None:
        """Number of channels in pretraining, if the first layer was adapted to another number; `None` otherwise."""
        return getattr(self._source, "n_own_channels", None)

    def with_channels(self, n_channels: int) -> "Backbone":
        """Return this network with its first layer adapted to another number of channels.

        The filters of the layer are repeated and scaled by c / n_channels, where c is the number of channels that it
        takes. For one channel, they are summed. All other layers and their tensors are shared with this network.

        Parameters
        ----------
        n_channels : int
            Number of channels of the images.

        Returns
        -------
        Backbone
            The adapted network, or this one if it takes that number already.

        Raises
        ------
        ValueError
            If the network does not take images, or if its first layer cannot be adapted.
        """
        from sktransfer.backbones._adapted_source import AdaptedSource, channels_of

        own = channels_of(self.preprocessing, self.name, n_channels)
        if own == n_channels:
            return self
        source = getattr(self._source, "source", self._source)
        other = Backbone(AdaptedSource(source, n_channels, self.n_own_channels or own))
        return other.ending_at(self._end)

    # Depth

    def split(self, freeze_depth: Any) -> tuple[nn.Module, nn.Module]:
        """Cut the network in two.

        Parameters
        ----------
        freeze_depth : int, float or str
            Where to cut: after a number of blocks (int; a negative number counts from the end, as in `blocks[:-2]`), a
            share of them (float), a name (str), or `"all"`.

        Returns
        -------
        prefix, suffix : nn.Module
            The two parts. They share the layers of the network, and `suffix(prefix(x))` equals its output, bit for bit.
            After `"all"`, the prefix computes the features, and the suffix is the classification layer.

        Raises
        ------
        ValueError
            If there is no such cut.
        """
        cut = self._cut(freeze_depth)
        return self._between(None, cut), self._traced.between(cut)

    def tail(
        self, freeze_depth: Any, train_bn: bool = False, layers: Sequence[Any] = (), pooling: str = "avg"
    ) -> nn.Module | None:
        """Return a copy of the part that is trained: the blocks after a cut, up to the features.

        Parameters
        ----------
        freeze_depth : int, float or str
            As in `split`.
        train_bn : bool, default=False
            Whether BatchNorm layers will update their statistics. If not, their scale and shift are folded into the
            weights of the convolution before them, which computes the same in less time.
        layers, pooling : object
            As in `frozen_part`. The vectors of layers after the cut, or at it, are returned together with the features,
            in a tuple.

        Returns
        -------
        nn.Module or None
            The copy, with the names of the network's own layers. `None` if no block after the cut has weights.
        """
        if not self.trained_blocks(freeze_depth):
            return None
        cut = self._cut(freeze_depth)
        behind = Pooled(self._cuts.around(cut, layers)[1], pooling)
        part = copy.deepcopy(self._between(cut, self._cut("all"), behind))
        return part if train_bn else scale_convolutions(part)

    def frozen_part(self, freeze_depth: Any, pooling: str, layers: Sequence[Any] = ()) -> FrozenPart:
        """Return the part that runs frozen: up to a cut, or up to the features if nothing after the cut has weights.

        Parameters
        ----------
        freeze_depth : int, float or str
            As in `split`.
        pooling : str
            How to turn feature maps and tokens into features, if the part reaches them.
        layers : sequence of str or int, default=()
            Layers before the features whose vectors are also needed. Those after the cut are ignored.

        Returns
        -------
        FrozenPart
            Module from prepared samples to the vectors of the layers and the output at the cut, or to features.
        """
        if not self.trained_blocks(freeze_depth):
            return self.feature_part([*layers, None], pooling, in_order=True)
        cut = self._cut(freeze_depth)
        return self._part(cut, pooling=pooling, layers=self._cuts.around(cut, layers)[0])

    def stops(self, part: FrozenPart, largest: int) -> tuple[FrozenPart, ...]:
        """Return shorter parts whose outputs are worth caching too.

        If a deep cut is computed first, its stops can be used for shallower ones. So a search over depths can visit
        them in any order.

        Parameters
        ----------
        part : FrozenPart
            Part from `frozen_part`.
        largest : int
            Maximum size of the output for one sample, in bytes.

        Returns
        -------
        tuple of FrozenPart
            Parts that end after a block: the first block whose output is small enough, and one in the middle of the
            rest.
        """
        known, shown = self._shared.stops, self._shown[1]
        key = part.end, part.layers, part.pooling, part.as_vector, self._end, shown, largest
        if key not in known:
            behind = {before.end: before for before in part.parts_before() if before.end != part.end}
            ends = [self._traced.end_of_block(depth) for depth in range(1, len(self.blocks) + 1)]
            small = [
                behind[end]
                for end, shape in zip(ends, self._known_shapes(), strict=True)
                if end in behind and 4 * math.prod(shape) <= largest
            ]
            known[key] = tuple(dict.fromkeys(small[:1] + small[len(small) // 2 :][:1]))
        return known[key]

    def trained_blocks(self, freeze_depth: Any) -> list[Block]:
        """Return the blocks after a cut that have weights, in order.

        A block that is cut inside counts, with only the weights after the cut.

        Parameters
        ----------
        freeze_depth : int, float or str
            As in `split`.

        Returns
        -------
        list of Block
            Blocks without their frozen parameters.
        """
        frozen = self._traced.parameter_names_before(self._cut(freeze_depth))
        rest = [
            Block(
                block.name,
                tuple(name for name in block.parameter_names if name not in frozen),
                tuple(name for name in block.buffer_names if name not in frozen),
            )
            for block in self.blocks
        ]
        return [block for block in rest if block.parameter_names]

    def frozen_names(self, freeze_depth: Any) -> set[str]:
        """Return the names of the parameters and buffers before a cut.

        Parameters
        ----------
        freeze_depth : int, float or str
            As in `split`.

        Returns
        -------
        set of str
            Names as in the network's `state_dict`.
        """
        return self._traced.parameter_names_before(self._cut(freeze_depth))

    def feature_part(self, layer: Any = None, pooling: str = "avg", in_order: bool = False) -> FrozenPart:
        """Return the part that computes the features of one layer, or of several layers, concatenated.

        Parameters
        ----------
        layer : str, int, list or None, default=None
            A block, by name or number (1 is the first, -1 the last), or a module after which the network can be cut.
            `None` is the input of the classification layer.
        pooling : str, default="avg"
            How to turn feature maps and tokens into vectors.
        in_order : bool, default=False
            Whether to concatenate layers in the order of computation, each once. Otherwise, they keep the given order.

        Returns
        -------
        FrozenPart
            Module from prepared samples to a Tensor of shape (n, n_features).
        """
        cuts = [self._cuts.behind(one) for one in as_list(layer)]
        *before, end = self._traced.in_order(cuts)
        order = tuple([*before, end].index(cut) for cut in cuts)
        order = () if in_order or order == tuple(range(len(cuts))) else order
        return self._part(end, pooling=pooling, as_vector=True, layers=tuple(before), order=order)

    def layers(self, layer: Any, pooling: str = "avg") -> tuple[Any, ...]:
        """Return the layers that a parameter `layer` stands for.

        Parameters
        ----------
        layer : str, int, list or None
            As in `feature_part`, or `"stages"`: the features, and before them the last `STAGES` blocks after which the
            size of the map changes. If the size changes fewer than two times, evenly spread blocks are taken.
        pooling : str, default="avg"
            How to turn feature maps into vectors. With `"flatten"`, `"stages"` is only the features.

        Returns
        -------
        tuple of str, int or None
            The layers in the given order. For `"stages"`, in order from the input, with the features at the end, as
            `None`.

        Raises
        ------
        ValueError
            If a layer does not exist.
        """
        if layer == "stages":
            ends = [] if pooling == "flatten" else stage_ends(self._map_sizes())
            return (*(self.blocks[end].name for end in ends), None)
        for one in as_list(layer):
            self._cuts.behind(one)
        return tuple(as_list(layer))

    def deepest(self, layers: Sequence[Any]) -> Any:
        """Return the layer that is computed last.

        Parameters
        ----------
        layers : sequence of str, int or None
            Layers, as `layers` returns them.

        Returns
        -------
        str, int or None
            One of the layers.
        """
        return self._cuts.deepest(layers)

    @property
    def features_are_vectors(self) -> bool:
        """Whether the features are vectors before pooling. False if this is not known."""
        return len(self._known_shapes()[-1]) == 1

    @property
    def last_map(self) -> str | None:
        """Name of the last block whose output is a feature map or tokens."""
        shapes = zip(self.blocks, self._known_shapes(), strict=True)
        return next((block.name for block, shape in reversed(list(shapes)) if len(shape) > 1), None)

    @property
    def features_have_channels_last(self) -> bool:
        """Whether the channels are the last axis of the features, if these are maps."""
        return self._traced.has_channels_last(self._cut("all"))

    def _between(self, start: Cut | None, end: Cut, pooled: Pooled = NOTHING) -> nn.Module:
        return self._traced.between(start or self._traced.end_of_block(0), end, pooled)

    def _part(self, end: Cut, **how: Any) -> FrozenPart:
        return FrozenPart(self._shared, self._traced, self._shared.identity, end, **how)

    def _cut(self, freeze_depth: Any) -> Cut:
        return self._cuts.at_depth(freeze_depth)

    def ending_at(self, layer: Any) -> "Backbone":
        """Return this backbone with another layer as its features.

        Parameters
        ----------
        layer : str, int or None
            A single layer, as in `feature_network`.

        Returns
        -------
        Backbone
            Backbone with the same weights, without the blocks after the layer.
        """
        if layer is None:
            return self
        other = self._copy()
        other._end = layer
        other._install(self._shared)
        return other

    def whole(self) -> "Backbone":
        """Return this backbone with all of its blocks.

        Returns
        -------
        Backbone
            Backbone with the same weights.
        """
        if self._end is None:
            return self
        other = self._copy()
        other._end = None
        other._install(self._shared)
        return other

    def showing(self, freeze_depth: Any, sample_shape: tuple[int, ...]) -> "Backbone":
        """Return this backbone with a `summary` that shows what is frozen, and the output shapes for a sample.

        Parameters
        ----------
        freeze_depth : int, float or str
            As in `split`.
        sample_shape : tuple of int
            Shape of one prepared sample.

        Returns
        -------
        Backbone
            The same backbone, except for its summary.
        """
        self._cut(freeze_depth)
        other = self._copy()
        other._shown = freeze_depth, sample_shape
        return other

    def learned_names(self, freeze_depth: Any, trainable: str) -> tuple[str, ...]:
        """Return the names of the parameters after a cut that are trained or get low-rank updates.

        Parameters
        ----------
        freeze_depth : int, float or str
            As in `split`.
        trainable : {"all", "norm", "bias", "lora"}
            Which parameters are trained.

        Returns
        -------
        tuple of str
            Names in the order of the blocks.
        """
        names = dict.fromkeys(name for block in self.trained_blocks(freeze_depth) for name in block.parameter_names)
        return find_learned(self.network, names, trainable)

    def learning(self, trainable: str, lora_rank: int) -> "Backbone":
        """Return this backbone with a `summary` that counts the trained parameters of blocks that are not frozen.

        Parameters
        ----------
        trainable : {"all", "norm", "bias", "lora"}
            Which parameters are trained.
        lora_rank : int
            Rank of the low-rank updates.

        Returns
        -------
        Backbone
            The same backbone, except for its summary.
        """
        other = self._copy()
        other._learning = trainable, int(lora_rank)
        return other

    # What a person sees

    def summary(self, freeze_depth: Any = None) -> BackboneSummary:
        """Return a table of the blocks.

        Parameters
        ----------
        freeze_depth : int, float, str or None, default=None
            Which blocks to show as frozen. `None` shows what the estimator with this `backbone_` freezes; without an
            estimator, everything is frozen.

        Returns
        -------
        BackboneSummary
            Table with one row per block. It prints as text, and as a table in a notebook. Its `origin` says where the
            weights come from, what they were trained on, and their licence, if torchvision, timm or a model card states
            it.
        """
        depth = self._shown[0] if freeze_depth is None else freeze_depth
        trainable, rank = self._learning
        frozen, added = self.frozen_names(depth), dict[str, int]()
        sizes = {name: parameter.numel() for name, parameter in self.network.named_parameters()}
        if trainable != "all":
            learned = self.learned_names(depth, trainable)
            frozen = set(sizes) if trainable == "lora" else set(sizes).difference(learned)
            if trainable == "lora":
                added = {name: rank * sum(matrix_shape(self.network.get_parameter(name))) for name in learned}
        rows = []
        for number, (block, shape) in enumerate(zip(self.blocks, self._known_shapes(), strict=True), start=1):
            cold = sum(sizes[name] for name in block.parameter_names if name in frozen)
            more = sum(added.get(name, 0) for name in block.parameter_names)
            size = sum(sizes[name] for name in block.parameter_names)
            rows.append(BlockRow(number, block.name, shape, size, cold, more))
        features = getattr(self._traced, "features", None)
        return BackboneSummary(repr(self), tuple(rows), self._source.origin, trainable, features, self._megabytes())

    def _megabytes(self) -> float:
        """Return what parameters and buffers take that the features depend on; tied ones count once."""
        needed = self._traced.feature_names()
        sizes = {
            tensor.data_ptr(): tensor.nbytes for name, tensor in self.network.state_dict().items() if name in needed
        }
        return sum(sizes.values()) / 1e6

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def _known_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of each block's output, of a sample such as the estimator has seen."""
        known, key = self._shared.output_shapes, (self._end, self._shown[1])
        if key not in known:
            known[key] = self._output_shapes()
        return known[key]

    def _map_sizes(self) -> list[tuple[int, ...]]:
        """Return height and width of each block's map; of anything else nothing."""
        if not self._traced.gives_maps:
            return [()] * len(self.blocks)
        lasts = [self._traced.has_channels_last(self._cut(depth)) for depth in range(1, len(self.blocks) + 1)]
        shapes = zip(self._known_shapes(), lasts, strict=True)
        return [() if len(shape) < 3 else shape[:-1] if last else shape[1:] for shape, last in shapes]

    def _output_shapes(self) -> list[tuple[int, ...]]:
        example = self.preprocessing.example(self._shown[1], 1)
        for batch in (example[:0], example):  # no sample at all costs nothing, where the network takes it
            try:
                with torch.no_grad():
                    return [shape[1:] for shape in self._traced.output_shapes(batch)]
            except (RuntimeError, AssertionError, TypeError, IndexError, ValueError):
                continue
        return [()] * len(self.blocks)  # a network of your own that has not seen a sample

    def feature_state(self, tuned: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return all parameters and buffers that the features of the whole network depend on.

        Parameters
        ----------
        tuned : mapping of str to Tensor
            Tensors that replace the network's own, by name.

        Returns
        -------
        dict of str to Tensor
            Tensors by the network's names. Tied tensors appear under each of their names.
        """
        whole = self.whole()
        own, first = whole.network.state_dict(), first_names(whole.network)
        needed = whole._traced.feature_names()
        tuned = {first.get(name, name): tensor for name, tensor in tuned.items()}
        wanted = {name: first.get(name, name) for name in own}
        return {name: tuned.get(one, own[name]) for name, one in wanted.items() if one in needed}
