"""Turn an estimator into one torch module with gradients, for captum, Grad-CAM and similar tools.

It is made of copies, so nothing that is done with it changes the estimator. It runs block by block, with a module at
the end of each that does nothing: a hook there sees what the block gives, however the network was written.
"""

import copy
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._messages import closest
from sktransfer._training._prediction import copy_suffix
from sktransfer.backbones._feature_network import join, pool_output, run_part
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.backbones.graphs._base import Cut, Pooled
from sktransfer.inspection._estimators import network_within


class TorchModule(nn.Module):
    """A fitted estimator as a torch module that takes prepared samples and returns logits.

    Create it with :func:`torch_module`.

    Parameters
    ----------
    estimator : BackboneEstimator
        Fitted estimator, which reads the samples.
    parts : sequence of nn.Module
        The network in parts, from the input on. Each part returns a value, or a tuple of a value and vectors.
    names : sequence of str or None
        Name of the block that ends with each part, or `None`.
    last : FrozenPart
        All parts together.
    head : nn.Module
        Module from features to outputs.

    Attributes
    ----------
    block_names : list of str
        Names of the blocks, from the input on.
    network_name : str
        Name of the network.
    """

    def __init__(
        self,
        estimator: BackboneEstimator,
        parts: Sequence[nn.Module],
        names: Sequence[str | None],
        last: FrozenPart,
        head: nn.Module,
    ):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.ends = nn.ModuleList(nn.Identity() for _ in parts)
        self.head = head
        self.block_names = [name for name in names if name is not None]
        self._end_of = {name: number for number, name in enumerate(names) if name is not None}
        self._pooling, self._order = last.pooling, last.order
        self._channels_last = last.graph.has_channels_last(last.end)
        self._estimator, self._reader = estimator, estimator._reader
        self.network_name = estimator.backbone_.name

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Compute the outputs of the estimator, with gradients.

        Parameters
        ----------
        prepared : Tensor of shape (n, ...)
            Result of :meth:`prepare`.

        Returns
        -------
        Tensor of shape (n, n_outputs)
            For a classifier, logits: `predict_proba` returns their `softmax(dim=1)`, or their `sigmoid()` with several
            labels per sample. For a regressor, what `predict` returns, in the units of y. For a feature extractor,
            features.
        """
        vectors, value = list[torch.Tensor](), prepared
        for part, end in zip(self.parts, self.ends, strict=True):
            entered = value.clone()  # a part may work in place, on what a hook has kept
            vectors, value = run_part(part, entered, vectors)
            value = end(value)
        feature = pool_output(self.parts[-1], entered, value.float(), self._pooling, self._channels_last)
        return self.head(join([*vectors, feature], self._order))

    def prepare(self, X: Any) -> torch.Tensor:
        """Prepare samples as the estimator does: decode, resize and normalise them, or turn them into token numbers.

        Parameters
        ----------
        X : array-like
            Samples, as the estimator's `predict` takes them.

        Returns
        -------
        Tensor of shape (n, ...)
            On the CPU. Images: float32 of shape (n, channels, height, width). Texts: int64 of shape (n, tokens), padded
            with -1. Sounds: float32 of shape (n, windows, ...), padded with windows of NaN. Vectors: float32 of shape
            (n, n_features).

        Raises
        ------
        ValueError
            If X is not as in `fit`.
        """
        samples = self._estimator._read_by(self._reader, X)
        prepared = [samples.prepare(samples.load(row)[None]) for row in range(len(samples))]
        longest = max(one.shape[1] for one in prepared)
        return torch.cat([_filled_up(one, longest) for one in prepared])

    def block(self, block: str | int) -> nn.Module:
        """Return the module that outputs the result of a block, to hook it, or to use it as a layer in captum.

        Parameters
        ----------
        block : str or int
            Name of the block, from `block_names`, or its number: 1 is the first, -1 the last.

        Returns
        -------
        nn.Module
            A module that returns its input. Its output is a map of shape (n, channels, height, width), or hidden
            states. If the network pools its last block itself, the output is the last map before that.

        Raises
        ------
        ValueError
            If the block does not exist.
        """
        names = self.block_names
        try:
            number = operator.index(block)  # type: ignore[arg-type]
        except TypeError:
            if block not in self._end_of:
                raise ValueError(f"Got block={block!r}; expected {closest(str(block), names)}") from None
            return self.ends[self._end_of[str(block)]]
        if not 1 <= abs(number) <= len(names):
            raise ValueError(
                f"Got block={number}; expected a number from 1 to {len(names)}, or from -1, which is the last."
            )
        return self.ends[self._end_of[names[number - 1 if number > 0 else number]]]


def torch_module(estimator: Any) -> TorchModule:
    """Return a fitted estimator as a torch module that computes gradients.

    The parameters are copies with `requires_grad=True`: training them does not change the estimator. The module is on
    the CPU, computes in float32 and is in eval mode. No layer works in place, so that you can put hooks on every
    layer.

    Parameters
    ----------
    estimator : FineTunedClassifier, FineTunedRegressor or PretrainedFeatureExtractor
        Fitted estimator, or a search over one.

    Returns
    -------
    TorchModule
        Module that takes what its `prepare(X)` returns. It returns the logits of a classifier, the predictions of a
        regressor, or the features of a feature extractor. `block(name)` returns the module at the end of a block.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    ValueError
        If the estimator is none of these, or if it is a pipeline with several steps.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.inspection import torch_module
    >>> X = np.random.default_rng(0).integers(0, 256, size=(6, 32, 32, 3), dtype=np.uint8)
    >>> y = ["ant", "bee"] * 3
    >>> classifier = FineTunedClassifier("squeezenet1_1", weights=None, random_state=0).fit(X, y)
    >>> module = torch_module(classifier)
    >>> prepared = module.prepare(X).requires_grad_()
    >>> module(prepared)[:, 1].sum().backward()
    >>> prepared.grad.shape == prepared.shape
    True
    """
    holder, behind = network_within(estimator)
    if behind:
        raise ValueError(
            f"Got a Pipeline whose network is followed by {', '.join(type(one).__name__ for one in behind)}; expected "
            "one of this package's estimators alone, because all of it must be torch. Give pipeline[0], which computes "
            "features, or use FineTunedClassifier, whose head is part of the network."
        )
    check_is_fitted(holder, "backbone_")
    example = holder._reader.example(1, getattr(holder, "n_features_in_", None))
    if not isinstance(holder, FineTunedEstimator):
        last = holder._part()
        parts, names = _in_parts(last, last.end, None, example)
        return TorchModule(holder, parts, names, last, nn.Identity()).eval().requires_grad_(True)
    module, backbone = holder.net_.module_, holder.backbone_
    suffix = copy_suffix(backbone, module)
    last = backbone.feature_part([*module.layers, None], module.pooling, in_order=True)
    cut = backbone.frozen_part(module.freeze_depth, module.pooling, module.layers).end
    parts, names = _in_parts(last, cut, suffix.tail, example)
    head = nn.Sequential(suffix.head, holder._in_units())
    return TorchModule(holder, parts, names, last, head).eval().requires_grad_(True)


def _in_parts(
    last: FrozenPart, cut: Cut, tuned: nn.Module | None, example: torch.Tensor
) -> tuple[list[nn.Module], list[str | None]]:
    """Divide a network at the ends of its blocks into copies, those behind a cut with tuned tensors.

    Returns
    -------
    parts : list of nn.Module
        From the input onwards.
    names : list of str or None
        The block that ends with each.
    """
    graph = last.graph
    name_of = {graph.end_of_block(number): block.name for number, block in enumerate(graph.blocks, start=1)}
    beginning = graph.end_of_block(0)
    if (last_map := _last_map(last, example)) != last.end and last.end in name_of:
        name_of[last_map] = name_of.pop(last.end)
    order = graph.in_order([beginning, *name_of, cut, *last.layers, last.end])
    ends = [one for one in order[1 : order.index(last.end) + 1] if one in name_of or one in (cut, last.end)]
    frozen, behind = list[nn.Module](), list[nn.Module]()
    for start, end in zip([beginning, *ends], ends, strict=False):
        within = order[order.index(start) : order.index(end)]
        pooled = Pooled(tuple(layer for layer in last.layers if layer in within), last.pooling)
        is_behind = tuned is not None and order.index(start) >= order.index(cut)
        (behind if is_behind else frozen).append(graph.between(start, end, pooled))
    # Each side is copied at once: a layer that is used in several parts stays one.
    parts = [*copy.deepcopy(nn.ModuleList(frozen)), *_with_tensors_of(tuned, copy.deepcopy(nn.ModuleList(behind)))]
    for layer in (layer for part in parts for layer in part.modules()):
        if getattr(layer, "inplace", False) is True:
            layer.inplace = False
    return parts, [name_of.get(end) for end in ends]


def _last_map(last: FrozenPart, example: torch.Tensor) -> Cut:
    """Return where the last map, or the last tokens, of the last block are: the network itself may pool them there."""
    graph = last.graph
    ends = {graph.end_of_block(number) for number in range(len(graph.blocks) + 1)}
    on_the_way = graph.in_order([graph.end_of_block(0), *graph.cut_points_before(last.end)])
    before = max(number for number, one in enumerate(on_the_way) if one in ends and one != last.end)
    with torch.no_grad():
        value = graph.between(graph.end_of_block(0), on_the_way[before])(example)
        found = graph.between(on_the_way[before], last.end)(value.clone())
        if found.ndim > 2:
            return last.end
        for one in reversed(on_the_way[before + 1 :]):
            earlier = graph.between(on_the_way[before], one)(value.clone())
            if earlier.ndim > 2 and earlier.numel() > found.numel():  # else it is pooled already
                return one
    return last.end


def _with_tensors_of(tuned: nn.Module | None, parts: nn.ModuleList) -> Iterator[nn.Module]:
    """Yield parts with the tensors of tuned blocks, which bear the same names there.

    The statistics that a BatchNorm has counted batches with are left out where it does not count on.
    """
    state = {} if tuned is None else tuned.state_dict()
    for part in parts:
        missing, _ = part.load_state_dict({name: state[name] for name in part.state_dict() if name in state}, False)
        assert all(name.endswith("num_batches_tracked") for name in missing), missing
        yield part


def _filled_up(prepared: torch.Tensor, length: int) -> torch.Tensor:
    """Fill up the second axis of a sample with what networks take for nothing."""
    short = length - prepared.shape[1]
    if not short:
        return prepared
    nothing = torch.nan if prepared.is_floating_point() else -1
    return torch.cat([prepared, prepared.new_full((1, short, *prepared.shape[2:]), nothing)], dim=1)
