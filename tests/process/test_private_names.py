"""Private names of other libraries: each is looked up by name, and the list is compared with the package's sources."""

import ast
import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import pytest
import torch
from packaging.specifiers import SpecifierSet
from PIL import Image
from sklearn.base import BaseEstimator
from skorch import NeuralNetClassifier
from torch import fx, nn

import sktransfer
from sktransfer._process._private_names import PRIVATE_NAMES

PACKAGE = Path(sktransfer.__file__).parent
LIST = "_process/_private_names.py"
LIBRARIES = ("torch", "torchvision", "sklearn", "skorch", "timm", "transformers", "huggingface_hub", "PIL")

# Single underscores that Python documents: named tuples, enumerations, and what abc and typing note in a class.
OF_PYTHON = {"_replace", "_asdict", "_fields", "_value_", "_name_", "_abc_impl", "_is_protocol"}

LISTED = {f"{row.owner}.{name}": row for row in PRIVATE_NAMES for name in row.names}
NAMES = {name for row in PRIVATE_NAMES for name in row.names}

# What objects of other libraries have: such a name is ours only where the same file defines it.
OF_LIBRARIES = {
    name
    for thing in (nn.Module(), torch.zeros(1), fx.GraphModule, fx.Graph(), fx.Node, Image.new("L", (1, 1)))
    for name in dir(thing)
} | {name for kind in (BaseEstimator, NeuralNetClassifier, fx.Tracer) for name in dir(kind)}


@pytest.mark.parametrize("dotted", LISTED)
def test_the_private_name_is_still_there(dotted):
    row, name = LISTED[dotted], dotted.rpartition(".")[2]
    pytest.importorskip(row.owner.partition(".")[0])
    installed = version(row.seen.rpartition(" ")[0])
    if row.only and installed not in SpecifierSet(row.only):
        pytest.skip(f"only {row.only} has it, and this is {installed}")
    assert _has(row.owner, name), (
        f"{dotted} is gone in {installed}; it was seen in {row.seen}. Without it: {row.without}"
    )


@pytest.mark.parametrize("dotted", LISTED)
def test_the_private_name_is_used(dotted):
    name = dotted.rpartition(".")[2]
    used = name in WORDS or any(fnmatch(name, pattern) for pattern in PATTERNS)
    assert used, f"{dotted} is listed in {LIST} and used nowhere; remove it from the list"


def test_every_private_name_in_the_sources_is_listed():
    unlisted = [
        f"sktransfer/{path.relative_to(PACKAGE)}:{line} uses {used}, which {LIST} does not list"
        for path, tree in SOURCES.items()
        for line, used, listed in private_uses(path, tree)
        if not listed
    ]
    assert unlisted == []


@pytest.mark.parametrize(
    "line",
    [
        "import torch\ntorch.foo._bar",
        "from sklearn.utils import _brand_new",
        "from torch._brand_new import thing",
        "import torch._brand_new",
        "def f(module): return module._backward_hooks",
        "def f(module): return getattr(module, '_backward_hooks')",
        "def f(module, name): return getattr(module, f'_{name}_brand_new')",
        "def f(g): return g(_brand_new=1)",
        "KNOWN = 'sklearn.compose._column_transformer._BrandNew'",
        "class Ours:\n    def f(self): return self._brand_new()",
        "from torch import nn\nclass Ours:\n    def __init__(self): self._own = nn.modules._own",
    ],
)
def test_a_new_private_name_is_found(line):
    tree = ast.parse(line)
    assert [listed for _, _, listed in private_uses(PACKAGE / "new.py", tree)] == [False]


@pytest.mark.parametrize(
    "line",
    [
        '"""A docstring about torch._brand_new and its _brand_new."""',
        "class Ours:\n    def __init__(self): self._own = 1\n    def f(self, other): return self._own, other._own",
        "def f(name): return name.endswith('_brand_new')",
        "def f(state): return state.pop('_of_an_earlier_version', None)",
        "def f(one): return one._replace(a=1)",
        "def f(module): return module._modules",
    ],
)
def test_what_is_our_own_or_listed_is_not_reported(line):
    tree = ast.parse(line)
    assert all(listed for _, _, listed in private_uses(PACKAGE / "new.py", tree))


# How a name is looked for


def _has(owner: str, name: str) -> bool:
    """Tell whether a module or class has an attribute; of what objects get later, whether its source mentions it."""
    try:
        thing = resolve_name(owner)
    except (ImportError, AttributeError):
        return False
    if hasattr(thing, name):
        return True
    return not inspect.ismodule(thing) and re.search(rf"\b{name}\b", inspect.getsource(thing)) is not None


def private_uses(path: Path, tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield the line, the text and whether it is listed, of each private name of another library that a file uses."""
    own = own_names(tree)
    file = _File(path == PACKAGE / LIST, dict(_imported(tree)), own, own | OWN_OF_ALL)
    inside_others = _docstrings(tree) | _parts_of_words(tree) | _inner_attributes(tree)
    for node in ast.walk(tree):
        way = _WAYS.get(type(node))
        if way is not None and id(node) not in inside_others:
            line = node.value.lineno if isinstance(node, ast.keyword) else node.lineno
            yield from ((line, used, listed) for used, listed in way(node, file))


class _File(NamedTuple):
    is_list: bool
    imported: dict[str, str]
    own: set[str]
    own_of_all: set[str]


def _in_import(node: ast.Import | ast.ImportFrom, file: _File) -> Iterator[tuple[str, bool]]:
    within = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for dotted in (f"{within}{name.name}" for name in node.names):
        if dotted.partition(".")[0] in LIBRARIES and _has_private_part(dotted):
            yield dotted, file.is_list and _is_listed(dotted)


def _in_attribute(node: ast.Attribute, file: _File) -> Iterator[tuple[str, bool]]:
    root, text = node.value, ast.unparse(node)
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name) and root.id in file.imported:
        dotted = f"{file.imported[root.id]}.{text.partition('.')[2]}"
        if _has_private_part(dotted):
            yield dotted, _is_listed(dotted)
        return
    while isinstance(node, ast.Attribute):
        surely_ours = ast.unparse(node.value) in _SELF or node.attr not in OF_LIBRARIES
        if is_private(node.attr) and node.attr not in (file.own_of_all if surely_ours else file.own):
            yield text, node.attr in NAMES
        node = node.value


def _in_argument(node: ast.keyword, file: _File) -> Iterator[tuple[str, bool]]:
    if node.arg and is_private(node.arg):
        yield f"the argument {node.arg}", node.arg in NAMES


def _in_string(node: ast.Constant, file: _File) -> Iterator[tuple[str, bool]]:
    if not isinstance(node.value, str):
        return
    if re.fullmatch(rf"({'|'.join(LIBRARIES)})(\.\w+)*\._\w+(\.\w+)*", node.value):
        yield node.value, _is_listed(node.value)
    elif is_private(node.value) and node.value not in file.own_of_all:
        yield repr(node.value), node.value in NAMES


def _in_call(node: ast.Call, file: _File) -> Iterator[tuple[str, bool]]:
    pattern = _asked_by_pattern(node)
    if pattern is not None:
        yield f"getattr(..., {pattern!r})", any(fnmatch(name, pattern) for name in NAMES)


_WAYS = {
    ast.Import: _in_import,
    ast.ImportFrom: _in_import,
    ast.Attribute: _in_attribute,
    ast.keyword: _in_argument,
    ast.Constant: _in_string,
    ast.Call: _in_call,
}
_SELF = ("self", "cls", "super()")


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[A-Za-z]\w*", name) is not None and name not in OF_PYTHON


def own_names(tree: ast.Module) -> set[str]:
    """Return the names that a file defines: functions, classes, variables, attributes of `self`, and keys."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in _SELF:
            names.add(node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            names |= {ast.literal_eval(node.slice)} if isinstance(node.slice, ast.Constant) else set()
    return names


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                first = name.name.partition(".")[0]
                if first in LIBRARIES:
                    yield (name.asname, name.name) if name.asname else (first, first)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"


def _has_private_part(dotted: str) -> bool:
    return any(map(is_private, dotted.split(".")))


def _is_listed(dotted: str) -> bool:
    """Tell whether a path is that of a listed name, leads to one, or goes on from one."""
    return any(f"{name}.".startswith(f"{dotted}.") or f"{dotted}.".startswith(f"{name}.") for name in LISTED)


def _inner_attributes(tree: ast.Module) -> set[int]:
    nodes = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {id(node) for node in nodes if isinstance(node, ast.Attribute)}


def _docstrings(tree: ast.Module) -> set[int]:
    bodies = [
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
    ]
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


def _parts_of_words(tree: ast.Module) -> set[int]:
    """Return strings that are no names: a text begins or ends with them, they are in f-strings, or keys to take out."""
    parts: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if re.fullmatch(r"(starts|ends)with|remove(prefix|suffix)|pop", node.func.attr):
                parts += node.args
        elif isinstance(node, ast.JoinedStr):
            parts.append(node)
    return {id(inside) for part in parts for inside in ast.walk(part)}


def _asked_by_pattern(node: ast.AST) -> str | None:
    """Return what `getattr(thing, f"_is_{name}")` asks for, with stars, if it begins as private names do."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("getattr", "hasattr", "setattr", "delattr"):
        return None
    if len(node.args) < 2 or not isinstance(node.args[1], ast.JoinedStr):
        return None
    parts = node.args[1].values
    text = "".join(part.value if isinstance(part, ast.Constant) else "*" for part in parts)
    return text if text.startswith("_") else None


SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
OWN_OF_ALL = set[str]().union(*map(own_names, SOURCES.values()))
PATTERNS = {pattern for tree in SOURCES.values() for node in ast.walk(tree) if (pattern := _asked_by_pattern(node))}
# Every word of the package. Of the file with the list, only what stands before the list: it uses names too.
WORDS = {word for path in SOURCES for word in re.findall(r"\w+", path.read_text().partition("\nPRIVATE_NAMES = ")[0])}
