"""Find the layers with weights that each operation of a traced network uses.

A layer is a module with a matrix, or anything of more axes, among its own parameters. Its operation may be the module
itself, a function that is handed its weights, or a function that is handed what was computed of them.
"""

import operator
from collections.abc import Iterator

import torch
from torch import fx, nn
from torch.nn import functional

from sktransfer._process._private_names import ConvNd

# Operations that weigh all channels, not each by its own number.
_PRODUCTS = {
    *(getattr(functional, f"{kind}{n}d") for kind in ("conv", "conv_transpose") for n in (1, 2, 3)),
    *(functional.linear, functional.bilinear, functional.embedding, functional.multi_head_attention_forward),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot, torch.conv2d),
    *(torch.conv1d, torch.conv3d, operator.matmul),
}
_PRODUCT_METHODS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__", "__rmatmul__")


def find_layers(graph: fx.Graph, network: nn.Module, constants: set[fx.Node]) -> dict[fx.Node, set[str]]:
    """Return the layers with weights that operations use.

    Parameters
    ----------
    graph : fx.Graph
        A traced network.
    network : nn.Module
        Whose it is.
    constants : set of fx.Node
        Operations that do not depend on the input, such as those that compute weights.

    Returns
    -------
    dict
        By operation, paths of modules; a matrix that a module holds beside others has the path of its own.
    """
    modules = dict(network.named_modules())
    layers = {name for name, module in modules.items() if _is_layer(module)}
    matrices = {name for name, parameter in network.named_parameters(remove_duplicate=False) if parameter.ndim > 1}
    found: dict[fx.Node, set[str]] = {}
    computed: dict[fx.Node, set[str]] = {}  # what constants are made of
    for node in graph.nodes:
        used: set[str] = set()
        if node.op == "call_module":
            target = str(node.target)
            used |= {name for name in layers if name == target or name.startswith(f"{target}.")}
            if not used and any(p.ndim > 1 for p in modules[target].parameters()):
                used.add(target)  # such as a layer whose weight is computed by modules with parameters
        elif node.op == "get_attr":
            owner = str(node.target).rpartition(".")[0]
            mine = str(node.target) if isinstance(modules.get(owner), nn.ParameterList | nn.ParameterDict) else owner
            computed[node] = {mine} if owner in layers else {str(node.target)} & matrices
            continue
        for source in node.all_input_nodes:
            direct = source.op == "get_attr" and computed[source] <= layers
            if node in constants or direct or _is_product(node):
                used |= computed.get(source, set())
        if node in constants:
            computed[node] = used
        elif used:
            found[node] = used
    return found


def _is_layer(module: nn.Module) -> bool:
    own = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    inner = any(next(child.parameters(), None) is not None for child in module.children())
    return (own and not inner) or isinstance(module, nn.MultiheadAttention)


def _is_product(node: fx.Node) -> bool:
    return node.target in (_PRODUCT_METHODS if node.op == "call_method" else _PRODUCTS)


def entrance(
    layers_of: dict[fx.Node, set[str]], apart: set[fx.Node], modules: dict[str, nn.Module]
) -> list[torch.Size]:
    """Return the shapes of the weights that meet the input first, as if no layer had groups.

    Parameters
    ----------
    layers_of : dict
        As `find_layers` returns it.
    apart : set of fx.Node
        Operations that no sample flows through.
    modules : dict of str to nn.Module
        Of the network.

    Returns
    -------
    list of torch.Size
        At most three.
    """
    names = dict.fromkeys(name for node, used in layers_of.items() if node not in apart for name in sorted(used))
    shapes = (_weight_shape(name, modules) for name in names)
    return [shape for shape, _ in zip((shape for shape in shapes if shape), range(3), strict=False)]


def _weight_shape(name: str, modules: dict[str, nn.Module]) -> torch.Size | None:
    owner, _, own = name.rpartition(".")
    if name not in modules:
        parameter = getattr(modules[owner], own, None)
        return parameter.shape if isinstance(parameter, torch.Tensor) else None
    layer = modules[name]
    shape = next(_matrices(layer), None)
    if shape is not None and isinstance(layer, ConvNd):
        return torch.Size((layer.out_channels, layer.in_channels, *shape[2:]))
    return shape


def _matrices(layer: nn.Module) -> Iterator[torch.Size]:
    return (parameter.shape for parameter in layer.parameters() if parameter.ndim > 1)
