"""Make parts of a network fast: the same function, with fewer and cheaper operations.

In eval mode a BatchNorm is a scale and a shift, which the convolution in front of it can do by itself. Layers that are
the same in two parts of a network are made ready once, so several parts cost the memory of one.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

from sktransfer.backbones.graphs._base import Ready
from sktransfer.backbones.graphs._parts import Part

# Layers whose weights autocast would turn to bfloat16 again in each call.
CAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: nn.Conv1d,
    nn.BatchNorm2d: nn.Conv2d,
    nn.BatchNorm3d: nn.Conv3d,
}

_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def make_ready(part: fx.GraphModule, device: torch.device, bfloat16: bool, ready: Ready) -> fx.GraphModule:
    """Return a part of a network that computes the same, to rounding, in less time.

    Parameters
    ----------
    part : GraphModule
        In eval mode; it is not changed.
    device : torch.device
        Where it will run.
    bfloat16 : bool
        Whether it will run under autocast to bfloat16: weights are then cast once, not in each call.
    ready : dict
        Layers that other parts of the same network have made ready; new ones are added.

    Returns
    -------
    GraphModule
        On the device, with BatchNorm folded into the convolution in front of it and weights in channels-last order.
        It shares no tensor with `part`.
    """
    graph = fx.Graph()
    renamed: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(part.graph, renamed)
    graph.output(output)
    folded = _folded_norms(part)
    for norm, convolution in folded.items():
        renamed[norm].replace_all_uses_with(renamed[convolution])
        graph.erase_node(renamed[norm])
    norm_of = {str(convolution.target): str(norm.target) for norm, convolution in folded.items()}
    held: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            key = (name, norm_of.get(name, ""), device, bfloat16)
            if key not in ready:
                ready[key] = _get_ready(part, name, norm_of.get(name), device, bfloat16)
            held[name] = ready[key]
    return Part(held, graph, class_name="ReadyPart").eval().requires_grad_(False)


def scale_convolutions(part: nn.Module) -> nn.Module:
    """Return a part that is about to be trained with BatchNorm's scale and shift applied to weights, not to maps.

    That is the same function of the same parameters, with the same gradients to rounding, for a BatchNorm in eval mode,
    whose statistics stay as they are. Maps are much larger than weights, and passes over them are what training waits
    for.

    Parameters
    ----------
    part : nn.Module
        As a graph's `between` returns it, or a copy.

    Returns
    -------
    nn.Module
        With the layers of `part`, under their names; not copies. A part that is not a traced graph is returned as it
        is.
    """
    if not isinstance(part, fx.GraphModule):
        return part
    graph = fx.Graph()
    renamed: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(part.graph, renamed))
    for norm, convolution in _folded_norms(part).items():
        old, conv, bn = renamed[norm], str(convolution.target), str(norm.target)
        layer = part.get_submodule(conv)
        if layer.padding_mode != "zeros":
            continue
        names = [f"{conv}.weight", f"{conv}.bias", f"{bn}.weight", f"{bn}.bias", f"{bn}.running_mean"]
        with graph.inserting_before(old):
            tensors = [_get(graph, part, name) for name in [*names, f"{bn}.running_var"]]
            how: dict[str, Any] = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
            how["eps"] = part.get_submodule(bn).eps
            new = graph.call_function(_convolve_scaled, (renamed[convolution].args[0], *tensors), how)
        old.replace_all_uses_with(new)
        graph.erase_node(old)
        graph.erase_node(renamed[convolution])
    return Part(part, graph, class_name="TrainedPart")


def _get(graph: fx.Graph, part: fx.GraphModule, name: str) -> fx.Node | None:
    owner, _, attribute = name.rpartition(".")
    return None if getattr(part.get_submodule(owner), attribute) is None else graph.get_attr(name)


def _convolve_scaled(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
    **how: Any,
) -> torch.Tensor:
    """Convolve, then normalise by known statistics, as one convolution."""
    factor = torch.rsqrt(variance + eps) * (1.0 if scale is None else scale)
    constant = (-mean if bias is None else bias - mean) * factor + (0.0 if shift is None else shift)
    scaled = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    return _CONVOLUTIONS[weight.ndim](x, scaled, constant, **how)


def _folded_norms(part: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """BatchNorm nodes that a convolution, which nothing else reads or uses, can do the work of."""
    calls = Counter(node.target for node in part.graph.nodes if node.op == "call_module")
    folded = {}
    for node in part.graph.nodes:
        if node.op != "call_module" or calls[node.target] > 1:
            continue
        norm = part.get_submodule(str(node.target))
        source = node.args[0] if node.args else None
        if type(norm) not in _FOLDED or norm.running_mean is None or not isinstance(source, fx.Node):
            continue
        if source.op != "call_module" or calls[source.target] > 1 or len(source.users) > 1:
            continue
        layer = part.get_submodule(str(source.target))
        # A weight that is not a parameter is computed from others before each call, as weight_norm does.
        own = "weight" in dict(layer.named_parameters(recurse=False))
        if type(layer) is _FOLDED[type(norm)] and own:
            folded[node] = source
    return folded


def _get_ready(part: fx.GraphModule, name: str, norm: str | None, device: torch.device, bfloat16: bool) -> Any:
    owner, _, attribute = name.rpartition(".")
    thing = getattr(part.get_submodule(owner), attribute)
    if isinstance(thing, torch.Tensor):
        return thing.detach().clone().to(device)
    layer = copy.deepcopy(thing)
    if norm is not None:
        layer = fuse_conv_bn_eval(layer, part.get_submodule(norm))  # type: ignore[arg-type]
    if bfloat16 and type(layer) in CAST:
        layer = layer.to(torch.bfloat16)
    layer = layer.to(device)
    return layer.to(memory_format=torch.channels_last) if isinstance(layer, nn.Conv2d) else layer
