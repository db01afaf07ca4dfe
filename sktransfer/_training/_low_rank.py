"""Low-rank updates of weights (LoRA: Hu et al., ICLR 2022): two narrow matrices whose product is added to a weight.

Peft makes the matrices. They are added to the weight itself, not to what the layer returns: parts of a network may read
a weight without its layer, and threads compute with the same layer at once. After training, the sum takes the weight's
place, so that whoever uses the network later knows nothing of it.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sktransfer._messages import named_extra
from sktransfer.backbones._learned_parameters import is_transposed, matrix_shape

# Two matrices, of shapes (rows, rank) and (rank, columns), whose product is added.
Factors = tuple[torch.Tensor, torch.Tensor]

# What torch calls a weight to which something is added, and the matrices.
_LIVE = re.compile(r"(^|\.)parametrizations\.(\w+)\.(original|0\.left|0\.right)$")


class LowRank(nn.Module):
    """Adds the product of two matrices to a weight, while they are trained.

    Parameters
    ----------
    left : Tensor of shape (rows, rank)
        One of them.
    right : Tensor of shape (rank, columns)
        The other one.
    scale : float
        What the product is multiplied by.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor, scale: float):
        super().__init__()
        self.left, self.right, self.scale = nn.Parameter(left), nn.Parameter(right), scale

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # the sum is a weight, and these are float32
            return weight + (self.left * self.scale @ self.right).view(weight.shape)

    def factors(self) -> Factors:
        """Return the matrices, scaled, on the CPU."""
        left, right = self.left.detach().cpu(), self.right.detach().cpu()
        return left * self.scale, right.clone()


def import_peft() -> None:
    """Raise if peft is not there, before anything is loaded.

    Raises
    ------
    ImportError
        With how to install it.
    """
    with named_extra('trainable="lora" needs the package peft', "lora"):
        import peft  # noqa: F401


def make_low_rank(network: nn.Module, names: tuple[str, ...], rank: int, alpha: float) -> dict[str, LowRank]:
    """Return low-rank updates of weights, as peft makes them: at random, with a product of zero.

    Parameters
    ----------
    network : nn.Module
        The whole network; it is not changed.
    names : tuple of str
        Of its weights.
    rank : int
        Of the updates.
    alpha : float
        The product is multiplied by this, divided by the rank.

    Returns
    -------
    dict of str to LowRank
        By name.
    """
    import_peft()
    from peft import LoraConfig, inject_adapter_in_model

    # Stand-ins, which share their weights with the layers: what peft puts in the place of a layer is never run.
    stand_ins = nn.Module()
    for number, name in enumerate(names):
        weight = network.get_parameter(name).detach().flatten(1)
        weight = weight.T if _is_transposed(network, name) else weight
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
        stand_ins.add_module(f"layer{number}", layer)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=[name for name, _ in stand_ins.named_children()])
    inject_adapter_in_model(config, stand_ins)
    made = {}
    adapted: list[Any] = list(stand_ins.children())
    for name, layer in zip(names, adapted, strict=True):
        ((key, scale),) = layer.scaling.items()
        down, up = layer.lora_A[key].weight.detach(), layer.lora_B[key].weight.detach()
        pair = (down.T, up.T) if _is_transposed(network, name) else (up, down)
        made[name] = LowRank(pair[0].contiguous(), pair[1].contiguous(), float(scale))
    return made


def insert(tail: nn.Module, made: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """Add updates to the weights of a part of a network; layers that share a weight share its update.

    Parameters
    ----------
    tail : nn.Module
        The part, with the network's names.
    made : mapping of str to LowRank
        From `make_low_rank`.

    Returns
    -------
    dict of str to LowRank
        By the name of each layer's weight.
    """
    by_weight = {id(tail.get_parameter(name)): update for name, update in made.items()}
    inserted = {}
    for path, module in list(tail.named_modules()):
        for own, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in by_weight:
                name = f"{path}.{own}" if path else own
                inserted[name] = by_weight[id(parameter)]
                parametrize.register_parametrization(module, own, inserted[name], unsafe=True)
    return inserted


def merge(tail: nn.Module, inserted: Mapping[str, LowRank]) -> dict[str, Factors]:
    """Let the sums of weights and updates take the weights' place, and return what was added.

    Parameters
    ----------
    tail : nn.Module
        On the CPU.
    inserted : mapping of str to LowRank
        From `insert`.

    Returns
    -------
    dict of str to Factors
        By name. `add_low_rank` makes the current weight from the original weight, bit for bit.
    """
    added = {name: update.factors() for name, update in inserted.items()}
    done: set[int] = set()
    for name in inserted:
        path, _, own = name.rpartition(".")
        layer = tail.get_submodule(path)
        parametrize.remove_parametrizations(layer, own, leave_parametrized=False)
        weight = layer.get_parameter(own)
        if id(weight) not in done:
            done.add(id(weight))
            with torch.no_grad():
                weight.copy_(add_low_rank(weight, added[name]))
    return added


def add_low_rank(weight: torch.Tensor, factors: Factors) -> torch.Tensor:
    """Return a weight with the product of two matrices added: the same bits on every machine, with any threads.

    Each operation rounds each number by itself. A matrix product does not: its order of summation is the library's.

    Parameters
    ----------
    weight : Tensor
        Float32.
    factors : Factors
        Of its shape as a matrix.

    Returns
    -------
    Tensor
        Of the weight's shape.

    Raises
    ------
    ValueError
        If the matrices are not such that they could be added.
    """
    left, right = factors
    rows, columns = matrix_shape(weight)
    if left.ndim != 2 or right.ndim != 2 or (left.shape[0], *right.shape) != (rows, left.shape[1], columns):
        raise ValueError(
            f"low-rank matrices of shapes {tuple(left.shape)} and {tuple(right.shape)} for a weight of {rows} x "
            f"{columns}"
        )
    total = torch.zeros(rows, columns)
    for place in range(left.shape[1]):
        total += left[:, place : place + 1] * right[place]
    return weight.detach() + total.view(weight.shape)


def plain_name(name: str, inserted: Mapping[str, LowRank]) -> tuple[str, bool]:
    """Return the name of the weight that a parameter is or belongs to, and whether it is part of an update.

    Parameters
    ----------
    name : str
        Of a parameter or buffer, as a part with updates calls it.
    inserted : mapping of str to LowRank
        Its updates.

    Returns
    -------
    name : str
        As the network calls it.
    is_update : bool
        Whether it is one of the matrices.
    """
    found = _LIVE.search(name) if inserted else None  # asked for each parameter in each batch
    plain = f"{name[: found.start()]}{found[1]}{found[2]}" if found else name
    return (plain, found[3] != "original") if found and plain in inserted else (name, False)


def live_names(name: str, inserted: Mapping[str, LowRank]) -> list[str]:
    """Return what is trained in place of a parameter, as a part with updates calls it.

    Parameters
    ----------
    name : str
        As the network calls it.
    inserted : mapping of str to LowRank
        Updates of the part.

    Returns
    -------
    list of str
        The parameter itself, where it has no update.
    """
    if name not in inserted:
        return [name]
    path, _, own = name.rpartition(".")
    start = f"{path}." if path else ""
    return [f"{start}parametrizations.{own}.0.{one}" for one in ("left", "right")]


def _is_transposed(network: nn.Module, name: str) -> bool:
    return is_transposed(network.get_submodule(name.rpartition(".")[0]))
