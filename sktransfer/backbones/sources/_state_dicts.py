"""What a weights file holds: tensors by name, or a checkpoint of several such dicts beside other things.

A weights file is data: nothing in this file ever runs its code.
"""

import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sktransfer._messages import shown
from sktransfer.backbones.sources._skipped_values import is_array, read_skipping
from sktransfer.backbones.sources._weights_file import check_tensors, check_versions, count, find_file, reason_of

# Where the weights of a checkpoint are, if it says nothing else.
USUAL = ("", "state_dict", "model", "state_dict.model")

# What torch's wrappers of a module put in front of its names: compiled, checkpointed, sharded, or run in parallel.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module")

# Dicts within dicts, beyond which nobody puts weights.
_DEEPEST = 4

# torchvision's DenseNet files name their layers `norm.1`, its networks `norm1`.
_DOTTED_DENSE_LAYER = re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as a file holds them.

    Attributes
    ----------
    where : str
        The keys that lead to them, with dots between; empty for the file itself.
    tensors : mapping of str to Tensor
        On the CPU.
    alone : bool
        Whether nothing else stands among them.
    in_order : bool
        Whether they come in the order that the network has them in.
    wrappers : tuple of str
        Parts of their names that were left out.
    packed, arrays : tuple of str
        Those of their names that hold something else: several tensors at once, or numpy arrays.
    """

    where: str
    tensors: Mapping[str, torch.Tensor]
    alone: bool = True
    in_order: bool = True
    wrappers: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()


def read_states(path: str | os.PathLike[str]) -> list[StateDict]:
    """Read all tensors by name of a `.safetensors` file, or of one that `torch.save` wrote.

    Parameters
    ----------
    path : path-like
        A state dict, or a checkpoint that holds some beside numbers, texts and the state of an optimizer.

    Returns
    -------
    list of StateDict
        At least one; nothing was looked at of their tensors.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PermissionError
        If it may not be read.
    ValueError
        If the file is damaged, holds no tensors by name, or holds code to be run.
    """
    path = find_file(path)
    if path.suffix == ".safetensors":
        from sktransfer._files._model_file import ENTRY  # at hand where safetensors is

        tensors = _read_safetensors(path)
        if ENTRY in tensors:
            raise ValueError(
                f"Got weights={shown(path)}, a model that sktransfer.save has written; expected the weights of a "
                "network. Write those first, as they were tuned: sktransfer.load(PATH).save_backbone(NEW_PATH)."
            )
        return [StateDict("", _renamed(tensors), in_order=False)]
    held = _read_torch(path)
    states = list(_find(held))
    if not states:
        raise ValueError(f"Got weights={shown(path)}, which holds {_without_tensors(held)}")
    return states


def read_state_dict(path: str | os.PathLike[str]) -> Mapping[str, torch.Tensor]:
    """Read the tensors of a file of weights: all of a `.safetensors` file, of a checkpoint those that it is known by.

    Parameters
    ----------
    path : path-like
        A file holding one `state_dict`, possibly under the key `"state_dict"` or `"model"`.

    Returns
    -------
    mapping of str to Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PermissionError
        If it may not be read.
    ValueError
        If the file holds no tensors by name, holds code to be run, or NaN or infinity.
    """
    state = usual(read_states(path))
    check_versions(state.tensors, Path(path))
    check_tensors(state.tensors, find_file(path))
    return state.tensors


def usual(states: Sequence[StateDict]) -> StateDict:
    """Return the state dict that a file is known by: the largest one at the usual places, else anywhere.

    Parameters
    ----------
    states : sequence of StateDict
        As `read_states` returns them.

    Returns
    -------
    StateDict
        One of them.
    """
    return min(states, key=lambda state: (state.where not in USUAL, -len(state.tensors)))


def without_wrappers(state: StateDict, own: Collection[str]) -> StateDict:
    """Take off what torch's wrappers put amid names, as `features.module.0.weight` for `features.0.weight`.

    Parameters
    ----------
    state : StateDict
        As `read_states` returns it.
    own : collection of str
        The network's names, in which such a part may be one.

    Returns
    -------
    StateDict
        The same one where no name has such a part, or two names would become one.
    """
    parts = {part for name in own for part in name.split(".")}
    given = {part for name in state.tensors for part in name.split(".")}
    wrappers = tuple(one for one in _WRAPPERS if one in given and one not in parts)

    def plain(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in wrappers)

    tensors: Any = OrderedDict((plain(name), tensor) for name, tensor in state.tensors.items())
    if not wrappers or len(tensors) < len(state.tensors):
        return state
    if isinstance(noted := getattr(state.tensors, "_metadata", None), Mapping):
        tensors._metadata = {plain(name) if isinstance(name, str) else name: note for name, note in noted.items()}
    return replace(state, tensors=tensors, wrappers=wrappers)


def _find(held: Any) -> Iterator[StateDict]:
    for keys, mapping in _dicts(held, (), set()):
        named = {name: value for name, value in mapping.items() if isinstance(name, str)}
        tensors: Any = OrderedDict((name, value) for name, value in named.items() if isinstance(value, torch.Tensor))
        if tensors:
            if getattr(mapping, "_metadata", None) is not None:
                tensors._metadata = mapping._metadata  # type: ignore[attr-defined]
            alone = len(tensors) == len(mapping)
            packed = tuple(name for name, value in named.items() if _is_packed(value))
            arrays = tuple(name for name, value in named.items() if is_array(value))
            yield StateDict(".".join(keys), _renamed(tensors), alone, packed=packed, arrays=arrays)


def _dicts(held: Any, keys: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield the dicts within dicts, each once, with the keys that lead to them."""
    if not isinstance(held, Mapping) or len(keys) > _DEEPEST or id(held) in seen:
        return
    seen.add(id(held))
    yield keys, held
    for name, value in held.items():
        if isinstance(name, str):
            yield from _dicts(value, (*keys, name), seen)


def _without_tensors(held: Any) -> str:
    """Say what a file holds that has no tensors by name, and what was expected."""
    dicts = [one for _, one in _dicts(held, (), set())]
    values = [(str(name), value) for one in dicts for name, value in one.items() if not isinstance(value, Mapping)]
    if arrays := [name for name, value in values if is_array(value)]:
        return f"{count('numpy array', arrays)}; expected tensors. Convert them: torch.from_numpy(array)."
    what = "no tensors" if dicts and not values else f"a {type(held).__name__}"
    return f"{what}; expected a state_dict: tensors by name."


def _is_packed(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(one, torch.Tensor) for one in value)


def _renamed(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    renamed: Any = OrderedDict((_DOTTED_DENSE_LAYER.sub(r"\1\2", name), tensor) for name, tensor in state.items())
    if getattr(state, "_metadata", None) is not None:
        renamed._metadata = state._metadata  # type: ignore[attr-defined]
    return renamed


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:  # a damaged file, types that torch does not have, no memory to map it
        raise ValueError(
            f"Got weights={shown(path)}, which is not a whole safetensors file ({reason_of(error)}); expected one as "
            "safetensors.torch.save_file writes it. Download or save it again, or give it the ending of its format."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # torch advises to run what is in a TorchScript archive
            warnings.simplefilter("ignore")
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                return read_skipping(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Refused to load {shown(path)}: it holds more than tensors, and loading that would run code from the "
            f"file, or it is not a weights file at all (torch.load with weights_only=True: {reason_of(error)}). Save "
            "the network's state_dict() alone, or as safetensors, and give that file."
        ) from error
    except Exception as error:  # a damaged file may stop torch anywhere
        raise ValueError(
            f"Got weights={shown(path)}, which torch.load cannot read ({reason_of(error)}); expected a whole file of a "
            "state_dict. Download or save it again."
        ) from error
