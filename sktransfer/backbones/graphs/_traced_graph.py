"""Find the cuts of a traced network, and those of them that bound its blocks.

A network is traced once into a graph of operations. Wherever exactly one tensor is alive the network can be cut, so
cuts are found, never listed by hand: one rule serves every architecture.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx, nn

from sktransfer._process._private_names import ConvNd, NormBase
from sktransfer.backbones._identity import Description, describe_operations
from sktransfer.backbones.graphs._base import NOTHING, Block, Pooled, Ready, UntraceableError
from sktransfer.backbones.graphs._examples import Values, look
from sktransfer.backbones.graphs._folding import make_ready
from sktransfer.backbones.graphs._parts import Part
from sktransfer.backbones.graphs._pooling import pool_on_the_way
from sktransfer.backbones.graphs._rows import is_row_by_row, may_lose_rows
from sktransfer.backbones.graphs._sizes import Behind, agree, find_sizes, spell_out
from sktransfer.backbones.graphs._trace import Untraced, find_constants, first_names, scopes_of, trace
from sktransfer.backbones.graphs._weighted import entrance, find_layers

# A network of more layers with weights than this is said to be coarse where it has fewer blocks than that.
MANY_LAYERS, FEW_BLOCKS = 10, 4
_said: set[type[nn.Module]] = set()


class NetworkGraph:
    """The traced graph of a network, its cuts and its blocks.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    ends_in_classifier : bool or None, default=None
        Whether the last layer with weights is a classification layer, so that the features are what enters it.
        `None` says yes where the network's output comes straight out of a linear layer.
    untraced : collection of classes of modules and of functions, default=()
        Each is a single operation, as torch's own layers are.

    Raises
    ------
    UntraceableError
        If the forward pass branches on values, or the features cannot be separated from what follows them.
    """

    gives_maps = True

    def __init__(self, network: nn.Module, ends_in_classifier: bool | None = None, untraced: Untraced = ()):
        self.network = network
        self._graph = trace(network, untraced)
        self._constants = find_constants(self._graph)
        spell_out(self._graph, self._constants)
        # What either side of a cut may compute anew, for it depends on the input through sizes alone, or not at all.
        self._sizes = find_sizes(self._graph, self._constants)
        self._apart = self._sizes | self._constants
        self._order = {node: position for position, node in enumerate(self._graph.nodes)}
        self._modules = dict(network.named_modules())
        self._first_names = first_names(network)
        self._input = next(node for node in self._order if node.op == "placeholder")
        self._output = next(node for node in self._order if node.op == "output")
        self._layers_of = find_layers(self._graph, network, self._constants)
        # Asked for in each prediction, and always the same.
        self._cut_points_before: dict[fx.Node, list[fx.Node]] = {}
        self._channels_last: dict[fx.Node, bool] = {}
        self._names_before: dict[fx.Node, set[str]] = {}
        self._behind: dict[fx.Node, Behind] = {}
        self._find_places(ends_in_classifier)
        self._say_if_coarse()

    def ending_at(self, node: fx.Node) -> "NetworkGraph":
        """Return the same graph with its features at another cut."""
        other = copy.copy(self)
        other._features = node
        other.blocks, other._ends = other._find_blocks()
        return other

    def cut_names(self) -> list[str]:
        """Paths of all modules at whose end the network can be cut, in the order in which they end."""
        return list(self._module_ends())

    def end_of_block(self, depth: int) -> fx.Node:
        """Return the value that leaves the first `depth` blocks; 0 is the input."""
        return self._input if depth == 0 else self._ends[depth - 1]

    def end_of_module(self, name: str) -> fx.Node | None:
        """Return the value that leaves a module, or `None` where the network cannot be cut there."""
        return self._module_ends().get(name)

    def cut_points_before(self, node: fx.Node) -> list[fx.Node]:
        """Return the values on the way to this one, itself included, at which the network can be cut, in order."""
        if node not in self._cut_points_before:
            on_the_way = set(self._slice(node, self._input))
            self._cut_points_before[node] = [cut_point for cut_point in self._cut_points if cut_point in on_the_way]
        return self._cut_points_before[node]

    def in_order(self, cuts: Iterable[fx.Node]) -> list[fx.Node]:
        """Sort cuts from the input onwards, each once."""
        return sorted(set(cuts), key=self._order.__getitem__)

    def parameter_names_before(self, node: fx.Node) -> set[str]:
        """Return the names of all parameters and buffers that a value depends on."""
        if node not in self._names_before:
            earlier = self._slice(node, self._input)
            self._names_before[node] = {name for one in earlier for name in self._state_names(one)}
        return set(self._names_before[node])

    def feature_names(self) -> set[str]:
        """Return the names of all parameters and buffers that the features depend on."""
        return self.parameter_names_before(self._features)

    def has_channels_last(self, node: fx.Node) -> bool:
        """Tell whether a map's channels are its last axis, by the last operation that says so."""
        if node not in self._channels_last:  # each prediction asks for every cut
            self._channels_last[node] = self._find_channels_last(node)
        return self._channels_last[node]

    def _find_channels_last(self, node: fx.Node) -> bool:
        while node is not self._input:
            layer = self._modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(layer, (ConvNd, NormBase, nn.GroupNorm)):
                return False
            if type(layer) in (nn.Linear, nn.LayerNorm):
                return True
            if (order := _permutation(node, layer)) is not None:
                return order == [0, *range(2, len(order)), 1]
            earlier = [source for source in node.all_input_nodes if source not in self._apart]
            if not earlier:
                return False
            node = earlier[0]
        return False

    def between(self, start: fx.Node, end: fx.Node | None = None, pooled: Pooled = NOTHING) -> fx.GraphModule:
        """Return the part of the network that computes one value from another.

        Parameters
        ----------
        start, end : fx.Node
            Two cuts; `None` is the network's output.
        pooled : Pooled, default=NOTHING
            Cuts from `start` on whose values are returned too, as vectors.

        Returns
        -------
        GraphModule
            Takes one tensor and returns one, or a tuple of that and vectors. Its layers are the network's own, not
            copies.
        """
        end = self._output if end is None else end
        graph = fx.Graph()
        copies: dict[fx.Node, Any] = {start: graph.placeholder("x")}
        vectors: list[Any] = []

        def pool_if_wanted(node: fx.Node) -> None:  # where it is computed: what follows may work in place
            if node in pooled.cuts:
                arguments = copies[node], pooled.pooling, self.has_channels_last(node)
                vectors.append(graph.call_function(pool_on_the_way, arguments))

        pool_if_wanted(start)
        writers = self._behind[start].writers if start in self._behind else {}
        ahead = self._behind[end].writers if end in self._behind and end is not start else {}
        numbers = self._behind[end].numbers if ahead else []
        for node in self._slice(end, start, *numbers):
            if node in writers:
                copies[node] = writers[node](graph, copies[start])
            elif node.op != "output":
                copies[node] = graph.node_copy(node, copies.__getitem__)
            pool_if_wanted(node)
        last: Any = end.args[0] if end.op == "output" else end
        result: Any = fx.map_arg(last, copies.__getitem__)
        if numbers:
            found, taken = tuple(map(copies.__getitem__, numbers)), tuple(ahead[n](graph, result) for n in numbers)
            result = graph.call_function(agree, (result, found, taken, end.name))
        graph.output((result, *vectors) if vectors else result)
        return Part(self.network, graph, class_name="NetworkPart").eval()  # also containers that fx adds

    def ready(
        self,
        start: fx.Node,
        end: fx.Node,
        device: torch.device,
        bfloat16: bool,
        ready: Ready,
        pooled: Pooled = NOTHING,
    ) -> nn.Module:
        """Return the part between two values as one that computes the same, to rounding, in less time."""
        return make_ready(self.between(start, end, pooled), device, bfloat16, ready)

    def describe(self) -> Description:
        """Write down what the network computes, except for its weights."""
        return describe_operations(self.network, self._slice(self._output, self._input))

    def block_ends(self) -> dict[fx.Node, int]:
        """Return the number of each block by the value that leaves it, in order."""
        return {node: depth for depth, node in enumerate(self._ends, start=1)}

    def forget_calls(self) -> None:
        """Nothing is remembered from run to run."""

    def output_shapes(self, x: torch.Tensor) -> list[tuple[int, ...]]:
        """Run the network once and return the shape of each block's output, up to the features."""
        graph, copies = fx.Graph(), dict[fx.Node, Any]()
        for node in [self._input, *self._slice(self._features, self._input)]:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        shapes = tuple(graph.call_function(getattr, (copies[node], "shape")) for node in self._ends)
        graph.output(shapes)
        return [tuple(shape) for shape in Part(self.network, graph, class_name="NetworkPart").eval()(x)]

    # Cuts

    def _slice(self, end: fx.Node, start: fx.Node, *more: fx.Node) -> list[fx.Node]:
        """Nodes that `end`, and more, need, in order, when `start` is given."""
        known = self._behind[start].writers if start in self._behind else {}
        needed: set[fx.Node] = set()
        todo = [end, *more]
        while todo:
            node = todo.pop()
            if node not in needed and node is not start:
                needed.add(node)
                todo.extend(() if node in known else node.all_input_nodes)
        return sorted(needed, key=self._order.__getitem__)

    def _find_places(self, ends_in_classifier: bool | None) -> None:
        """Find values that are the only one alive at some point of the run, except for sizes that follow from them."""
        order = [self._input, *self._slice(self._output, self._input)]
        strictly, at_most = self._alone(order, self._constants), self._alone(order, self._apart)
        self._cut_at(list(at_most), ends_in_classifier)
        most = len(self.blocks)
        self._cut_at(list(strictly), ends_in_classifier)
        closely = most > len(self.blocks)  # else nothing is won
        if closely or any(may_lose_rows(node, self._modules) for node in strictly):
            first = entrance(self._layers_of, self._apart, self._modules)
            if examples := look(self.network, order, first, closely):
                found = self._settle_places(order, at_most if closely else strictly, examples)
                self._cut_at(found, ends_in_classifier)

    def _cut_at(self, cut_points: list[fx.Node], ends_in_classifier: bool | None) -> None:
        self._cut_points = cut_points
        self._features = self._find_features(ends_in_classifier)
        self.blocks, self._ends = self._find_blocks()

    def _settle_places(self, order: list[fx.Node], alone: dict[fx.Node, int], examples: list[Values]) -> list[fx.Node]:
        """Return the cut points that have a row per sample and behind which all sizes that are needed can be had."""
        cut_points = []
        for node, position in alone.items():
            gone = {one for one in order if self._order[one] <= position and one not in self._apart} - {node}
            behind = Behind(node, gone, self._sizes, examples)
            later = (one for one in order if self._order[one] > position)
            if node is self._input or (is_row_by_row(node, examples) and behind.settle(later)):
                cut_points.append(node)
                if behind.writers:
                    self._behind[node] = behind
        return cut_points

    def _alone(self, order: list[fx.Node], apart: set[fx.Node]) -> dict[fx.Node, int]:
        """Values that are the only one alive at some point of the run, and the first such point of each."""
        flowing = dict.fromkeys(node for node in order if node not in apart)
        last_use = {
            node: max((self._order[user] for user in node.users if user in flowing), default=-1) for node in flowing
        }
        cut_points: dict[fx.Node, int] = {}
        alive: set[fx.Node] = set()
        for node in flowing:
            position = self._order[node]
            alive = {other for other in alive if last_use[other] > position}
            if node is not self._output:
                alive.add(node)
            if len(alive) == 1:
                cut_points.setdefault(next(iter(alive)), position)
        return cut_points

    def _find_features(self, ends_in_classifier: bool | None) -> fx.Node:
        with_weights = [
            node
            for node in self._order
            if node.op == "call_module" and node not in self._apart and self._layers_of.get(node)
        ]
        last = with_weights[-1] if with_weights else None
        result = self._output.args[0]
        if not isinstance(result, fx.Node):
            raise UntraceableError(
                f"Got a network whose output is a {type(result).__name__} of values; expected one tensor. "
                "Wrap it in a module that returns the tensor to be used."
            )
        if ends_in_classifier is None:
            ends_in_classifier = last is result and isinstance(self._modules[str(last.target)], nn.Linear)
        if ends_in_classifier and last is not None:
            entering = last.all_input_nodes[0]
            if entering in self._cut_points and any(self._weights_of(n) for n in self._slice(entering, self._input)):
                return entering
        return result

    def _module_ends(self) -> dict[str, fx.Node]:
        """Return the last value of each module that ends at a cut point."""
        inner = set(self._slice(self._features, self._input))
        whole = self._slice(self._output, self._input)
        last = {name: node for node in whole if node not in self._apart for name in scopes_of(node)}
        cut_points = inner & {*self._cut_points, self._features}
        ends = sorted(last.items(), key=lambda end: self._order[end[1]])
        return {name: node for name, node in ends if node in cut_points}

    # Blocks

    def _weights_of(self, node: fx.Node) -> set[str]:
        """Layers with weights that an operation uses."""
        return self._layers_of.get(node, set())

    def _state_names(self, node: fx.Node) -> Iterator[str]:
        if node.op == "get_attr" and node.target in self._first_names:
            yield self._first_names[str(node.target)]
        elif node.op == "call_module":
            for name in first_names(self._modules[str(node.target)]):
                yield self._first_names[f"{node.target}.{name}"]

    def _find_blocks(self) -> tuple[tuple[Block, ...], list[fx.Node]]:
        inner = self._slice(self._features, self._input)
        sections = self._sections(inner)
        units = self._find_units(sections)
        groups: list[tuple[str, list[fx.Node]]] = []  # weight operations of a block, under its module's name
        seen: set[str] = set()  # a layer that is used again opens no second block
        for section in sections:
            weighty = [node for node in section if self._weights_of(node) - seen]
            seen.update(name for node in weighty for name in self._weights_of(node))
            if weighty:
                name = next((scope for scope in scopes_of(weighty[-1]) if scope in units), None)
                if groups and name is not None and groups[-1][0] == name:
                    groups[-1][1].extend(weighty)
                else:
                    groups.append((name or self._name_of(weighty[-1]), weighty))
        names = self._widen([name for name, _ in groups])
        ends = [
            self._boundary(nodes[-1], follower, following[0])
            for (_, nodes), follower, (_, following) in zip(groups, names[1:], groups[1:], strict=False)
        ]
        ends = [*ends, self._features] if groups else [self._features]
        return self._record_blocks(names or ["network"], ends), ends

    def _name_of(self, node: fx.Node) -> str:
        """Return the module that an operation with weights is, or else the layer or parameter that it uses."""
        used, scopes = self._weights_of(node), scopes_of(node)
        return (scopes[-1] if scopes and (node.op == "call_module" or scopes[-1] in used) else max(used)) or "network"

    def _sections(self, nodes: list[fx.Node]) -> list[list[fx.Node]]:
        """Operations between one cut point and the next."""
        cut_points, result, current = set(self._cut_points), [], []
        for node in nodes:
            if node not in self._apart:
                current.append(node)
                if node in cut_points or node is self._features:
                    result.append(current)
                    current = []
        return result

    def _find_units(self, sections: list[list[fx.Node]]) -> set[str]:
        """Modules not to be cut: each is the smallest around a section with weights that has no cut inside.

        Where one instance of a class is such a module (a residual block), all of that class are, though some, without
        a shortcut, could be cut.
        """
        units = set()
        for section in sections:
            if any(self._weights_of(node) for node in section):
                common = [set(scopes_of(node)) for node in section if node.op != "placeholder"]
                around = [scope for scope in scopes_of(section[-1]) if all(scope in scopes for scopes in common)]
                if around and not self._is_layer(around[-1]):
                    units.add(around[-1])
        classes = {type(self._modules[name]) for name in units}
        classes = {kind for kind in classes if not kind.__module__.startswith("torch.nn.")}
        return units | {name for name, module in self._modules.items() if name and type(module) in classes}

    def _is_layer(self, name: str) -> bool:
        return self._modules[name].__module__.startswith("torch.nn.") and not isinstance(
            self._modules[name], nn.Sequential
        )

    def _widen(self, names: list[str]) -> list[str]:
        """Name each block after the outermost module that holds this block alone."""
        beyond = {name for node in self._slice(self._output, self._features) for name in self._weights_of(node)}
        names = [*names, *beyond]
        paths = [[".".join(name.split(".")[: i + 1]) for i in range(name.count(".") + 1)] for name in names]
        count = Counter(path for each in paths for path in each)
        widened = [next((path for path in each if count[path] == 1), each[-1]) for each in paths]
        return widened[: len(names) - len(beyond)]

    def _boundary(self, last: fx.Node, follower: str, first: fx.Node) -> fx.Node:
        """Return the last cut point before the next block's module opens: a normalisation stays with its layer."""
        opening = min(
            (position for node, position in self._order.items() if follower in scopes_of(node)),
            default=self._order[first],
        )
        between = [
            cut_point
            for cut_point in self._cut_points
            if self._order[last] <= self._order[cut_point] < self._order[first]
        ]
        outside = [cut_point for cut_point in between if self._order[cut_point] < opening]
        return outside[-1] if outside else between[0]

    def _say_if_coarse(self) -> None:
        """Warn, once for a class of networks, where hardly any depth can be chosen."""
        kind = type(self.network)
        count = len({name for used in self._layers_of.values() for name in used})
        if count <= MANY_LAYERS or len(self.blocks) >= FEW_BLOCKS or kind in _said:
            return
        _said.add(kind)
        found = f"{len(self.blocks)} block" + "s" * (len(self.blocks) > 1)
        warnings.warn(
            f"Got a {kind.__name__} whose {count} layers with weights make {found}; expected at least {FEW_BLOCKS}. "
            "It can be cut only where one tensor holds everything that later layers need, which is rare in its "
            f"forward. So freeze_depth chooses among {found} only, and a share such as 0.5 is rounded to one of "
            "them. For finer steps, write its forward as modules that each take one tensor and return one.",
            UserWarning,
            stacklevel=2,
        )

    def _record_blocks(self, names: list[str], ends: list[fx.Node]) -> tuple[Block, ...]:
        parameters = {name for name, _ in self.network.named_parameters()}
        blocks, seen = [], set()
        for name, end in zip(names, ends, strict=True):
            states = dict.fromkeys(s for node in self._slice(end, self._input) for s in self._state_names(node))
            new = [state for state in states if state not in seen]
            seen.update(new)
            blocks.append(
                Block(
                    name,
                    tuple(state for state in new if state in parameters),
                    tuple(state for state in new if state not in parameters),
                )
            )
        return tuple(blocks)


def _permutation(node: fx.Node, layer: nn.Module | None) -> list[int] | None:
    """Order of axes that an operation brings about, or `None` where it moves none."""
    if layer is None and getattr(node.target, "__name__", node.target) != "permute":
        return None
    given: Any = getattr(layer, "dims", None) if layer is not None else node.args[1:]
    flat = given[0] if given and isinstance(given[0], tuple | list) else given
    return list(flat) if flat and all(isinstance(axis, int) for axis in flat) else None
