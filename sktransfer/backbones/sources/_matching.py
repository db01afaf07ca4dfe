"""Which tensors of a file are a network's, in files as people have them.

All that features depend on has to be there, by name and shape, and nothing that may be a further layer of the same
body. A prefix of the names, a head and what stands beside the network are left out, in one sentence.
"""

import os
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer._messages import shortened, shown
from sktransfer.backbones.graphs._trace import first_names
from sktransfer.backbones.sources._misfits import explain_misfit
from sktransfer.backbones.sources._state_dicts import USUAL, StateDict, usual, without_wrappers
from sktransfer.backbones.sources._weights import put, refuse_faults, short, type_faults
from sktransfer.backbones.sources._weights_file import COUNTER, check_tensors, check_versions, count

# Makes a network's tensors of others, and names those that were of no use.
Convert = Callable[[Mapping[str, torch.Tensor]], "tuple[Mapping[str, torch.Tensor], list[str]] | None"]

# Words in names of what training keeps beside a model: averages of its weights.
_AVERAGES = {"averaged", "avg", "ema", "swa"}

# In names of weights that torch divides by their length.
_NORMALISED = ("parametrizations.weight.original", "weight_g", "weight_v")


class Target:
    """A network that is to be given weights.

    Parameters
    ----------
    network : nn.Module
        The network.
    needed : collection of str
        Names of all that its features depend on.
    heads : collection of str, default=()
        Modules that a file may hold although the network was built without them.
    n_classes : int or None, default=None
        Outputs of these heads in the library's own files. No warning tells of leaving them out.
    """

    def __init__(
        self, network: nn.Module, needed: Collection[str], heads: Collection[str] = (), n_classes: int | None = None
    ):
        self.network, self.own = network, network.state_dict()
        self.first = first_names(network)
        self.needed = {self.first.get(name, name) for name in needed if name in self.own}
        self.required = {name for name in self.needed if not name.endswith(COUNTER)}
        self.beside = {name for name in self.own if self.first.get(name, name) not in self.needed}
        self.heads, self.n_classes = tuple(f"{head}." for head in heads), n_classes
        self.head_modules = (*self.heads, *{f"{name.rpartition('.')[0]}." for name in self.beside if "." in name})
        self.body = {name.partition(".")[0] for name in self.needed}
        self.beside_body = {name.partition(".")[0] for name in self.beside} - self.body
        self.depth = max((name.count(".") + 1 for name in self.own), default=1)

    def prefixes(self, state: StateDict) -> "Counter[str]":
        """Count, for every prefix, the names of a file that are the network's behind it."""
        counts = Counter({"": 0})
        for name in state.tensors:
            parts = name.split(".")
            for start in range(max(0, len(parts) - self.depth), len(parts)):
                if ".".join(parts[start:]) in self.own:
                    counts["".join(f"{part}." for part in parts[:start])] += 1
        return counts

    def is_told(self, name: str, tensor: torch.Tensor) -> bool:
        """Tell whether leaving out this tensor, of no name of the network's, is worth a word."""
        known = name.startswith(self.heads) and self.n_classes in shape_of(tensor)[:1]
        return is_weight(tensor) and not known


@dataclass(frozen=True)
class Comparison:
    """What a network makes of the tensors behind one prefix.

    Attributes
    ----------
    state : StateDict
        Where they are.
    prefix : str
        What stands in front of their names.
    loaded : dict of str to Tensor
        Those that fit, by the network's names.
    left_out : list of str
        Names, as the file has them, of weights that features do not need.
    missing, unexpected, shapes : list of str
        What keeps them from being the network's.
    """

    state: StateDict
    prefix: str
    loaded: dict[str, torch.Tensor]
    left_out: list[str]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @property
    def fits(self) -> bool:
        """Whether nothing keeps them."""
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def place(self) -> str:
        """Where the weights are: keys of dicts, and the prefix."""
        return ".".join(part for part in (self.state.where, self.prefix.rstrip(".")) if part)


def fill_from(
    target: Target, states: Sequence[StateDict], path: "str | os.PathLike[str]", convert: Convert | None = None
) -> None:
    """Load what a file holds of a network, or say in one sentence why it does not fit.

    Parameters
    ----------
    target : Target
        The network; its parameters and buffers are overwritten. What features do not need and the file does not have
        becomes the same in every process, whatever it was drawn as.
    states : sequence of StateDict
        As `read_states` returns them.
    path : path-like
        The file.
    convert : callable, default=None
        Makes the network's tensors of those that do not fit, whose names and shapes a library may know, and names those
        that it left out; `None` is its answer where it does not know them. It gets the tensors without a prefix that
        all names share.

    Raises
    ------
    ValueError
        If names are missing or unexpected, shapes differ, several sets of weights fit, or numbers are not finite. The
        network is as before.

    Warns
    -----
    UserWarning
        If something was left out.
    """
    file, source = Path(path).expanduser(), shown(Path(path))
    best, rivals = _choose(target, states, source)
    plain = states if best.fits else [without_wrappers(state, target.own) for state in states]
    if any(state.wrappers for state in plain):
        other, others = _choose(target, plain, source)
        if len(other.missing) < len(best.missing):
            best, rivals, states = other, others, plain
    check_versions(best.state.tensors, file)
    check_tensors(best.loaded if best.fits else best.state.tensors, file)
    if not best.fits and convert is not None:
        bare, prefix = without_prefix(best.state.tensors, target.own)
        if (converted := convert(bare)) is not None:
            tensors, unused = converted
            found = compare(target, StateDict("", tensors), "")
            best = replace(found, state=best.state, prefix=prefix, left_out=[*found.left_out, *unused])
    faults = type_faults(best.loaded, target.own)
    more = ""
    if faults or not best.fits:
        needed = [name for name in target.own if target.first.get(name, name) in target.needed]
        more = explain_misfit(target.own, needed, best.state, source)
    refuse_faults(target.network, source, best.missing, best.unexpected, best.shapes, faults, more)
    put(target.network, _noted(best))
    settle(target.network, {name for name in target.beside if name not in best.loaded}, best.loaded)
    beside = [f"{one.where}.{name}" for one in states if one.alone and one is not best.state for name in one.tensors]
    beside = [name for name in beside if not name.startswith(tuple(f"{rival}." for rival in rivals))]
    where = f"{best.state.where}." if best.state.where else ""
    rest = [name for name in best.left_out if not f"{where}{name}".startswith(tuple(f"{rival}." for rival in rivals))]
    _tell(source, best, [*rest, *beside], rivals)


def settle(network: nn.Module, names: Iterable[str], loaded: Collection[str] = ()) -> None:
    """Give tensors that features do not need, and no file has, values that are the same in every process.

    They are a part of the network's fingerprint, and were drawn at random. They become zeros, as those do that a
    library misses in its files: so it can be seen that they were not trained. Weights that are normalised become ones.

    Parameters
    ----------
    network : nn.Module
        Whose they are.
    names : iterable of str
        As in its `state_dict`.
    loaded : collection of str, default=()
        Names of tensors that keep their values, under whatever other names they are known too.
    """
    state = network.state_dict()
    names = set(names)
    kept = {state[name].untyped_storage().data_ptr() for name in state if name not in names or name in loaded}
    with torch.no_grad():
        for name in names & state.keys():
            tensor = state[name]
            if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in kept:
                tensor.fill_(1 if any(part in name for part in _NORMALISED) else 0)


def forget_others(network: nn.Module, states: Sequence[StateDict]) -> None:
    """Make parameters zero that a file has behind no prefix, if it has most: untrained ones are not features.

    Parameters
    ----------
    network : nn.Module
        Of random weights.
    states : sequence of StateDict
        As `read_states` returns them.
    """
    keys = [f".{key}" for state in states for key in state.tensors]
    ends = {key[at:] for key in keys for at in range(len(key)) if key[at] == "."}
    lacking = [parameter for name, parameter in network.named_parameters() if f".{name}" not in ends]
    if 2 * len(lacking) < len(list(network.parameters())):
        with torch.no_grad():
            for parameter in lacking:
                parameter.zero_()


def refuse_layers(
    target: Target, tensors: Mapping[str, torch.Tensor], names: Collection[str], path: "str | os.PathLike[str]"
) -> None:
    """Refuse names that a library had no use for, where they may be further layers of the body.

    Parameters
    ----------
    target : Target
        The network that was built.
    tensors : mapping of str to Tensor
        What the file holds.
    names : collection of str
        Those that were of no use, as the library calls them.
    path : path-like
        The file.

    Raises
    ------
    ValueError
        With the first of them.
    """
    state = StateDict("", tensors)
    prefix = target.prefixes(state).most_common(1)[0][0]
    unknown = torch.empty(0)  # of names that the library changed first
    under = {name.removeprefix(prefix): tensors.get(name, unknown) for name in names if name.startswith(prefix)}
    unexpected = _layers_under(target, state, prefix, under)
    unexpected += _layers_beside(state, prefix, [name for name in names if name in tensors])
    refuse_faults(target.network, shown(Path(path)), [], unexpected, [], [])


def without_prefix(state: Mapping[str, torch.Tensor], own: Collection[str]) -> tuple[dict[str, torch.Tensor], str]:
    """Take off what all names of a file begin with, such as `module.`, until one is a network's or they differ.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors by name.
    own : collection of str
        The network's names.

    Returns
    -------
    tensors : dict of str to Tensor
        By the rest of their names.
    prefix : str
        What was taken off.
    """
    names, prefix = list(state), ""
    while names and not any(name in own for name in names):
        first = names[0].partition(".")[0] + "."
        if not all(name.startswith(first) for name in names):
            break
        prefix += first
        names = [name.removeprefix(first) for name in names]
    return dict(zip(names, state.values(), strict=True)), prefix


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor; none of one that has several."""
    return () if tensor.is_nested else tuple(tensor.shape)


def is_weight(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor may be a weight; whole numbers count and point to places."""
    return tensor.is_floating_point() or tensor.is_complex()


def _choose(target: Target, states: Sequence[StateDict], source: str) -> tuple[Comparison, list[str]]:
    """Return what fits, or what comes nearest to it; and what else would fit at places that a file is not known by."""
    counted = [(state, target.prefixes(state)) for state in states]
    likely = [
        compare(target, state, prefix)
        for state, counts in counted
        for prefix in (counts if target.required else [""])
        if counts[prefix] >= len(target.required)
    ]
    found = [one for one in likely if one.fits]
    if not found:
        first = usual(states)
        state, counts = max(counted, key=lambda one: (max(one[1].values()), one[0] is first))
        return compare(target, state, counts.most_common(1)[0][0]), []
    different = [one for i, one in enumerate(found) if not any(_same(target, one, other) for other in found[:i])]
    for is_known in (_is_usual_state, _is_usual_place, _is_no_average) if len(different) > 1 else ():
        known = [one for one in found if is_known(one)]
        if known and all(_same(target, known[0], one) for one in known[1:]):
            return known[0], [one.place for one in found if not _same(target, known[0], one)]
    if len(different) > 1:
        places = [one.place or "the file itself" for one in found]
        raise ValueError(
            f"Got weights from {short(source)}, which holds {len(found)} sets of weights that fit the backbone "
            f"{shortened(type(target.network).__name__, 40)} ({', '.join(shortened(p, 60) for p in places[:5])}); "
            "expected one. Save the tensors of the one that you want in a file of its own."
        )
    return found[0], []


def _is_usual_state(one: Comparison) -> bool:
    return one.state.where in USUAL


def _is_usual_place(one: Comparison) -> bool:
    return one.place in USUAL


def _is_no_average(one: Comparison) -> bool:
    """Tell whether weights stand at no place that is called as averages of a training are, such as `model_ema`."""
    return not _AVERAGES & set(re.split(r"[^a-z]+", one.place.casefold()))


def _same(target: Target, one: Comparison, other: Comparison) -> bool:
    """Tell whether two sets of weights give the same features."""
    names = [name for name in target.required if name in one.loaded]
    return all(
        name in other.loaded
        and one.loaded[name].dtype == other.loaded[name].dtype
        and torch.equal(one.loaded[name], other.loaded[name])
        for name in names
    )


def compare(target: Target, state: StateDict, prefix: str) -> Comparison:
    """Compare the tensors behind a prefix with a network's.

    Parameters
    ----------
    target : Target
        The network.
    state : StateDict
        The tensors.
    prefix : str
        What stands in front of their names.

    Returns
    -------
    Comparison
        What fits, what is left out, and what keeps the rest from fitting.
    """
    own = target.own
    under = {name.removeprefix(prefix): tensor for name, tensor in state.tensors.items() if name.startswith(prefix)}
    given = {target.first.get(name, name) for name in under if name in own}
    missing = [name for name in own if name in target.required and name not in given]
    others = [name for name in own if name in under and shape_of(under[name]) != shape_of(own[name])]
    heads = {name for name in others if name in target.beside and _other_classes(under[name], own[name])}
    shapes = [f"{name} {shape_of(under[name])} for {shape_of(own[name])}" for name in others if name not in heads]
    loaded = {name: under[name] for name in own if name in under and name not in others}
    strange = {name: tensor for name, tensor in under.items() if name not in own}
    outside = [name for name in state.tensors if not name.startswith(prefix)]
    unexpected = _layers_under(target, state, prefix, strange) + _layers_beside(state, prefix, outside)
    left_out = [f"{prefix}{name}" for name in under if name in heads]
    left_out += [f"{prefix}{name}" for name, tensor in strange.items() if target.is_told(name, tensor)]
    left_out += [name for name in outside if is_weight(state.tensors[name])]
    return Comparison(state, prefix, loaded, left_out, missing, unexpected, shapes)


def _other_classes(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Tell whether two tensors of a classifier differ in the number of its outputs alone."""
    return given.ndim == own.ndim and shape_of(given)[1:] == shape_of(own)[1:]


def _layers_under(target: Target, state: StateDict, prefix: str, names: Mapping[str, torch.Tensor]) -> list[str]:
    """Return those of a file's names behind the prefix, none the network's, that may be further layers of its body.

    A head is a module of its own, beside the modules of the body. It multiplies vectors, so it holds a matrix, no
    kernels, and its name does not go on with a row of names of the body (`layer5`).
    """
    groups: dict[str, list[str]] = {}
    for name, tensor in names.items():
        if is_weight(tensor) and not name.startswith(target.head_modules):
            groups.setdefault(name.partition(".")[0], []).append(name)
    row = {_without_numbers(top) for top in target.body}
    refused = []
    for top, members in groups.items():
        if top in target.beside_body:
            continue
        one_more = top in target.body or top in members or _without_numbers(top) in row
        if one_more or not _may_be_head(names[name] for name in members) or _amid(target, state, prefix, members):
            refused += members
    return refused


def _layers_beside(state: StateDict, prefix: str, names: Iterable[str]) -> list[str]:
    """Return those of a file's names outside the prefix that may go on with a row of modules: `stages.1` after `0`."""
    way = prefix.split(".")[:-1]
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        at = next((i for i, (one, other) in enumerate(zip(way, parts, strict=False)) if one != other), None)
        if at is not None and _without_numbers(way[at]) == _without_numbers(parts[at]):
            groups.setdefault(".".join(parts[: at + 1]), []).append(name)
    return [
        name for members in groups.values() if not _may_be_head(state.tensors[n] for n in members) for name in members
    ]


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _may_be_head(tensors: Iterable[torch.Tensor]) -> bool:
    shapes = [shape_of(tensor) for tensor in tensors]
    return any(len(shape) > 1 for shape in shapes) and all(prod(shape[2:]) == 1 for shape in shapes)


def _amid(target: Target, state: StateDict, prefix: str, members: Collection[str]) -> bool:
    """Tell whether tensors stand amid those of the body, or between these and its own head: torch keeps their order."""
    if not state.in_order:
        return False
    at = {name.removeprefix(prefix): i for i, name in enumerate(state.tensors) if name.startswith(prefix)}
    body = [position for name, position in at.items() if target.first.get(name, name) in target.needed]
    if not body:
        return False
    first, last = min(body), max(body)
    end = min((at[name] for name in target.beside if at.get(name, -1) > last), default=last)
    return any(first < at[name] < end for name in members)


def _noted(best: Comparison) -> Mapping[str, torch.Tensor]:
    """Return the tensors with what torch noted of the versions of their layers."""
    state: Any = OrderedDict(best.loaded)
    noted = getattr(best.state.tensors, "_metadata", None)
    if noted is not None:
        rest = {f"{name}.": note for name, note in noted.items()} if best.prefix else {}
        prefix = best.prefix
        cut = {name.removeprefix(prefix)[:-1]: note for name, note in rest.items() if name.startswith(prefix)}
        state._metadata = cut if prefix else noted
    return state


def _tell(source: str, best: Comparison, names: list[str], rivals: list[str]) -> None:
    parts = [f"the prefix {shown(best.prefix, 60)} of its names"] if best.prefix else []
    parts += [f"{' and '.join(map(shown, best.state.wrappers))} amid its names"] if best.state.wrappers else []
    parts += [f"{count('tensor', names)} that features do not need"] if names else []
    parts += [f"the weights under {', '.join(shown(one, 60) for one in rivals[:5])}, which fit too"] if rivals else []
    if parts:
        warnings.warn(f"Left out of {short(source)}: {'; '.join(parts)}.", UserWarning, stacklevel=2)
