"""Write down values, functions and objects completely: equal texts mean equal things, in any process.

What holds more than can be seen of it (a generator, a lock, an object of a class written in C) is refused: half of a
thing tells it from nothing.
"""

import collections
import datetime
import decimal
import enum
import functools
import hashlib
import logging
import operator
import pathlib
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from sktransfer.backbones._code import (
    NotWritableError,
    attributes_of,
    bytecode,
    edited_methods,
    hides_state,
    is_library,
    mentions,
    name_in_library,
    slots_of,
)

# Containers within containers, and things in all, beyond which there is something wrong.
_DEEPEST = 50
_MOST = 100_000

# Attributes that say how a thing of a library came here, not what it does.
_ORIGIN = {
    "_commit_hash", "_is_hf_initialized", "_name_or_path", "_use_kernels", "_weight_conversions", "name_or_path",
    "transformers_version",
}  # fmt: skip

# What torch notes in each module: what it holds, written down by itself, and hooks. Few of these run in a forward pass.
_NOTED = {*vars(nn.Module()), "_compiled_call_impl"} - {"training"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_HOOK_FLAGS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")

# What `functools.cache` makes of a function.
_CACHED = type(functools.cache(lambda: None))

# Operators that come with a library, by the first part of their names; anybody may add others.
_OPERATORS = {"aten", "prim", "prims", "quantized", "torchvision"}


class Writer:
    """Writes down things and what they refer to, each once.

    Parameters
    ----------
    weights : mapping of int to str
        Names of tensors, by their `id`. The name is enough, because it determines their bits.

    Attributes
    ----------
    lasting : bool
        Whether all that was written belongs to a library, so that modules alone show whether it is still so. What
        your own function refers to may change at any time.
    """

    def __init__(self, weights: Mapping[int, str]):
        self._weights = weights
        self._numbers: dict[Any, str] = {}
        self._waiting: list[tuple[str, Callable[..., str], Any, str]] = []  # keeps alive what is known by its id
        self._classes: dict[type, str] = {}
        self._depth = 0
        self.lasting = True

    @property
    def classes(self) -> Iterable[type]:
        """The classes that were written down."""
        return self._classes.keys()

    def text(self, first: Iterable[str]) -> str:
        """Return texts that `write` returned, and after them all that these refer to.

        Parameters
        ----------
        first : iterable of str
            The texts.

        Returns
        -------
        str
            A line for each thing.

        Raises
        ------
        NotWritableError
            If something cannot be written down whole.
        """
        lines = list(first)
        for number, compose, thing, where in self._waiting:  # grows while it is read
            lines.append(f"{number} {compose(thing, where)}")
            if len(lines) > _MOST:
                raise NotWritableError(where, f"more than {_MOST} things")
        return "\n".join(lines)

    def write(self, value: Any, where: str) -> str:
        """Return what tells a value from any other, within this writer's text.

        Parameters
        ----------
        value : object
            Anything.
        where : str
            What to call the place that it was found in.

        Returns
        -------
        str
            The value itself, or the number under which it stands further down.

        Raises
        ------
        NotWritableError
            If it cannot be written down whole.
        """
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise NotWritableError(where, "containers within containers, or one that holds itself")
            kind = type(value)
            way = _ways(kind)  # type: ignore[arg-type]
            return way(self, value, where)
        finally:
            self._depth -= 1

    def _later(self, compose: Callable[..., str], thing: Any, where: str) -> str:
        key = compose.__name__, id(thing)
        if key not in self._numbers:
            self._numbers[key] = f"#{len(self._numbers)}"
            self._waiting.append((self._numbers[key], compose, thing, where))
        return self._numbers[key]

    def _fields(self, values: Mapping[str, Any], where: str) -> str:
        """Write down values by name, in the order of the names."""
        return ", ".join(f"{name}={self.write(values[name], f'{where}.{name}')}" for name in sorted(values, key=str))

    # Values

    def _number(self, value: Any, where: str) -> str:
        return value.hex() if isinstance(value, float) else f"complex {value.real.hex()} {value.imag.hex()}"

    def _word(self, value: Any, where: str) -> str:
        return f"{type(value).__name__} {value!r}"

    def _tensor(self, value: torch.Tensor, where: str) -> str:
        marks = {name: mark for name, mark in vars(value).items() if not name.startswith("_") and name != "persistent"}
        marked = f" {self._fields(marks, where)}" if marks else ""
        if id(value) in self._weights:
            return f"weight {self._weights[id(value)]!r}{marked}"
        plain = type(value) in (torch.Tensor, nn.Parameter) and value.layout is torch.strided
        if not plain or value.is_meta or value.is_quantized:
            raise NotWritableError(where, f"a tensor of type {type(value).__name__}, without plain values")
        held = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy()
        return f"tensor {value.dtype} {tuple(value.shape)} {hashlib.sha256(held.data).hexdigest()}{marked}"

    def _array(self, value: Any, where: str) -> str:
        if type(value) not in (np.ndarray, np.memmap) and not isinstance(value, np.generic):
            return self._object(value, where)
        if value.dtype.hasobject:
            return f"array {value.shape} {self.write(value.tolist(), where)}"
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{type(value).__name__} {value.dtype!r} {value.shape} {digest}"

    def _enum(self, value: enum.Enum, where: str) -> str:
        return f"{self._class(type(value), where)} {value.name} {self.write(value._value_, where)}"

    def _parts(self, value: Any, where: str) -> str:
        """Write down what is made of parts that it hands out: a slice, `partial`, `itemgetter`, a date."""
        if isinstance(value, slice):
            parts: Any = value.start, value.stop, value.step
        elif isinstance(value, functools.partial):
            parts = value.func, value.args, value.keywords, vars(value)
        elif isinstance(value, re.Pattern):
            parts = value.pattern, value.flags
        elif isinstance(value, types.MethodType):
            parts = value.__func__, value.__self__
        elif isinstance(value, property):
            parts = value.fget, value.fset, value.fdel
        elif isinstance(value, staticmethod | classmethod):
            parts = value.__func__
        elif isinstance(value, functools.cached_property):
            parts = value.func
        else:
            parts = value.__reduce__()
        return f"{self._class(type(value), where)} {self.write(parts, where)}"

    # Containers

    def _container(self, value: Any, where: str) -> str:
        kind = type(value)
        base = next(base for base in _CONTAINERS if issubclass(kind, base))
        if kind not in _CONTAINERS and hides_state(kind, base):
            raise NotWritableError(where, _kind_of(value))
        if issubclass(base, dict | types.MappingProxyType):
            pairs = [(self.write(key, where), self.write(value[key], f"{where}[{key!r}]")) for key in base.keys(value)]
            text = ", ".join(f"{key}: {item}" for key, item in pairs)
        elif issubclass(base, set | frozenset):
            known = len(self._numbers)
            text = ", ".join(sorted(self.write(item, where) for item in base.__iter__(value)))
            if len(self._numbers) > known:  # their numbers would follow an order that is another in each process
                raise NotWritableError(where, "a set of objects")
        else:
            text = ", ".join(self.write(item, f"{where}[{i}]") for i, item in enumerate(base.__iter__(value)))
        more = {"factory": value.default_factory} if issubclass(kind, collections.defaultdict) else {}
        more |= {"maxlen": value.maxlen} if issubclass(kind, collections.deque) else {}
        if kind in _CONTAINERS:
            return f"{kind.__name__}({text}{self._fields(more, where)})"
        return f"{self._class(kind, where)}({text}; {self._fields(more | self._state(value), where)})"

    # Functions

    def _function(self, value: Any, where: str) -> str:
        return name_in_library(value) or self._later(self._compose_function, value, where)

    def _code(self, value: types.CodeType, where: str) -> str:
        return f"code {self.write(bytecode(value), where)}"

    def _compose_function(self, value: types.FunctionType, where: str) -> str:
        self.lasting = False
        closed = {}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                closed[name] = cell.cell_contents
            except ValueError:  # nothing was put there yet
                continue
        owner = closed.pop("__class__", None)  # of a method that calls `super`
        parts = [
            self._code(value.__code__, where),
            self.write((value.__defaults__, value.__kwdefaults__), where),
            self._fields(closed, where),
            "" if owner is None else self._class(owner, where),
            self._fields(vars(value), where),
            self._globals(value, where),
        ]
        return f"function {'; '.join(parts)}"

    def _globals(self, function: types.FunctionType, where: str) -> str:
        """Write down what a function finds in its module; for a library, its version is enough."""
        space = function.__globals__
        if is_library(space.get("__name__")):
            return ""
        found = mentions(function.__code__)
        if found.outside:
            raise NotWritableError(where, f"a function that uses {', '.join(sorted(found.outside))}")
        things = {name: space[name] for name in found.variables if name in space}
        for name in found.modules:
            things[f"import {name}"] = _imported(name, space, where)
        texts = []
        for name, thing in sorted(things.items()):
            place = f"{where} > {name}"
            if isinstance(thing, types.ModuleType):
                texts.append(self._module_uses(thing, found.attributes, place, set()))
            else:
                texts.append(self.write(thing, place))
        return ", ".join(f"{name}={text}" for name, text in zip(sorted(things), texts, strict=True))

    def _module_uses(self, module: types.ModuleType, names: set[str], where: str, seen: set[str]) -> str:
        """Write down what code that has these names in it may use of a module."""
        seen.add(module.__name__)
        of_library = is_library(module.__name__)
        texts = []
        for name in sorted(names & set(vars(module))):
            thing = vars(module)[name]
            place = f"{where}.{name}"
            if isinstance(thing, types.ModuleType):
                if thing.__name__ not in seen:
                    texts.append(f"{name}={self._module_uses(thing, names, place, seen)}")
            elif not of_library or (isinstance(thing, types.FunctionType) and not _is_librarys(thing)):
                texts.append(f"{name}={self.write(thing, place)}")
        return f"module {module.__name__} ({', '.join(texts)})"

    def _builtin(self, value: Any, where: str) -> str:
        known = name_in_library(value)
        if known is not None:
            return known
        if isinstance(value, _CACHED):
            return f"cached {self.write(value.__wrapped__, where)}"
        owner = getattr(value, "__objclass__", None)
        if owner is not None and vars(owner).get(value.__name__) is value:
            return f"{self._class(owner, where)}.{value.__name__}"
        owner = getattr(value, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            raise NotWritableError(where, _kind_of(value))
        return f"{value.__name__} of {self.write(owner, where)}"

    def _operator(self, value: Any, where: str) -> str:
        if str(value).partition(".")[0] not in _OPERATORS:
            raise NotWritableError(where, f"the operator {value}, which may be changed")
        return f"operator {value}"

    # Classes and objects

    def _class(self, kind: type, where: str) -> str:
        """Return what tells what objects of a class do, without how they are made."""
        if kind not in self._classes:
            name = name_in_library(kind)
            if name is None or edited_methods(kind):
                self._classes[kind] = f"class {self._later(self._compose_class, kind, where)}"
            else:
                self._classes[kind] = f"class {name}"
        return self._classes[kind]

    def _class_as_value(self, value: type, where: str) -> str:
        """Return what tells a class from others: whoever holds it may also make objects of it."""
        text = self._class(value, where)
        made = [base for base in value.__mro__ if not is_library(base.__module__)]
        return " ".join([text, *(self._later(self._compose_making, base, where) for base in made)])

    def _compose_class(self, kind: type, where: str) -> str:
        name = name_in_library(kind)
        if name is not None:
            edited = edited_methods(kind)
            return f"{name} with {', '.join(f'{one} {self._edited(edited[one], where)}' for one in sorted(edited))}"
        self.lasting = False
        place = f"{where}: {kind.__qualname__}"
        bases = ", ".join(self._class(base, where) for base in kind.__bases__)
        meta = "" if type(kind) is type else self._class(type(kind), where)
        attributes = self._fields(attributes_of(kind, making=False), place)
        return f"{kind.__module__}.{kind.__qualname__} ({bases}) {meta} {attributes}"

    def _edited(self, function: types.FunctionType, where: str) -> str:
        """Write down the code of a method put into a library's class; what it counts and collects is left out.

        Whoever does that most often watches calls, and calls what was there before.
        """
        self.lasting = False
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        known = [cell for cell in cells if isinstance(cell, bool | int | float | str | types.FunctionType)]
        return self.write((bytecode(function.__code__), function.__defaults__, function.__kwdefaults__, known), where)

    def _compose_making(self, kind: type, where: str) -> str:
        return self._fields(attributes_of(kind, making=True), f"{where}: {kind.__qualname__}")

    def _object(self, value: Any, where: str) -> str:
        if isinstance(value, logging.Logger):
            return f"logger {value.name}"
        if hides_state(type(value)):
            return self._builtin(value, where)
        return self._later(self._compose_object, value, where)

    def _compose_object(self, value: Any, where: str) -> str:
        return f"{self._class(type(value), where)} {self._fields(self._state(value), where)}"

    def _state(self, value: Any) -> dict[str, Any]:
        """Return the attributes of an object, as they are stored."""
        kind = type(value)
        state = dict(object.__getattribute__(value, "__dict__")) if kind.__dictoffset__ else {}
        for name in slots_of(kind):
            for owner in kind.__mro__:
                slot = vars(owner).get(f"_{owner.__name__.lstrip('_')}{name}" if name.startswith("__") else name)
                if isinstance(slot, types.MemberDescriptorType):
                    state[f"{owner.__qualname__}.{name}"] = getattr(value, slot.__name__, NotImplemented)
        of_library = is_library(kind.__module__)
        return {str(name): item for name, item in state.items() if not (of_library and name in _ORIGIN)}

    # Modules of networks

    def _network_module(self, value: nn.Module, where: str) -> str:
        return self._later(self._compose_network_module, value, where)

    def _compose_network_module(self, module: nn.Module, where: str) -> str:
        held = vars(module)
        settings = {name: item for name, item in self._state(module).items() if name not in _NOTED}
        hooks = {
            name: [(hook, *(number in held.get(flag, {}) for flag in _HOOK_FLAGS)) for number, hook in there.items()]
            for name in _HOOKS
            if (there := held.get(name))
        }
        children = [
            f"{name}={None if child is None else self.write(child, f'{where}.{name}')}"
            for name, child in held["_modules"].items()
        ]
        parts = [
            self._class(type(module), where),
            self._fields(settings, where),
            self._fields(held.get("_parameters", {}), where),
            self._fields(held.get("_buffers", {}), where),
            self._fields(hooks, where),
            ", ".join(children),
        ]
        return "module " + "; ".join(parts)

    def _node(self, value: fx.Node, where: str) -> str:
        return f"%{value.name}"

    def _opaque(self, value: Any, where: str) -> str:
        if isinstance(value, types.ModuleType) and is_library(value.__name__):
            return f"module {value.__name__}"
        raise NotWritableError(where, _kind_of(value))


def _imported(name: str, space: Mapping[str, Any], where: str) -> types.ModuleType:
    import sys

    module = sys.modules.get(name) or sys.modules.get(f"{space.get('__package__')}.{name}".rstrip("."))
    if module is None:
        raise NotWritableError(where, f"a function that imports {name!r}, which nobody has imported yet")
    return module


def _is_librarys(function: types.FunctionType) -> bool:
    return is_library(function.__globals__.get("__name__"))


def _kind_of(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}"


_CONTAINERS: tuple[Any, ...] = (
    torch.Size, tuple, list, collections.OrderedDict, collections.defaultdict, dict, set, frozenset, collections.deque,
    types.MappingProxyType,
)  # fmt: skip

_WORDS = (
    type(None), bool, int, str, bytes, bytearray, range, type(...), type(NotImplemented), pathlib.PurePath,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.qscheme, np.dtype,
    types.GenericAlias, types.UnionType,
)  # fmt: skip

# How values are written, by the first of these that their type is, or derives from.
_WAYS: tuple[tuple[Any, Callable[[Writer, Any, str], str]], ...] = (
    ((np.generic, np.ndarray), Writer._array),
    (enum.Enum, Writer._enum),
    (torch.Tensor, Writer._tensor),
    (nn.Module, Writer._network_module),
    (fx.Node, Writer._node),
    (type, Writer._class_as_value),
    (types.FunctionType, Writer._function),
    (types.CodeType, Writer._code),
    (
        (
            slice, functools.partial, re.Pattern, types.MethodType, property, staticmethod, classmethod,
            functools.cached_property, operator.itemgetter, operator.attrgetter, operator.methodcaller,
            type(vars(collections.namedtuple("_", "a"))["a"]), datetime.date, datetime.time, datetime.timedelta,
            decimal.Decimal,
        ),
        Writer._parts,
    ),
    (_CONTAINERS, Writer._container),
    ((type(torch.ops.aten.relu), type(torch.ops.aten.relu.default)), Writer._operator),
    (types.ModuleType, Writer._opaque),
)  # fmt: skip


@functools.lru_cache(1024)  # not for ever: a class that is run again is a new one each time
def _ways(kind: type) -> Callable[[Writer, Any, str], str]:
    if kind in (float, complex):
        return Writer._number
    if kind in _WORDS or issubclass(kind, pathlib.PurePath | np.dtype) or kind.__module__ == "typing":
        return Writer._word
    return next((way for kinds, way in _WAYS if issubclass(kind, kinds)), Writer._object)
