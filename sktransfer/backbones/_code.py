"""Identify code: a library's by its name and version, any other by its bytecode and by all that this refers to.

A function that was edited and run again keeps its name, so names say nothing about code that a person may edit. What a
library defines is found under its name, or it is not the library's.
"""

import dis
import hashlib
import reprlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from sktransfer._process._versions import version

# Libraries whose patch versions compute the same.
_STEADY = ("numpy", "scipy", "sktransfer", "timm", "torch", "torchvision", "transformers")

# Where functions that do not say it themselves are found.
_HOMES = ("torch", "torch._C._nn", "numpy", "scipy.special")

# What reads, or runs, what no function refers to.
_OUTSIDE = {"__import__", "compile", "environ", "eval", "exec", "getenv", "globals", "import_module", "input", "open"}

_STANDARD = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


class NotWritableError(ValueError):
    """Something cannot be written down whole."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{reprlib.repr(where).strip(chr(39))} holds {what}")


def is_library(module: Any) -> bool:
    """Tell whether a module, by its name, belongs to Python or to an installed library, which nobody edits in a run."""
    if not isinstance(module, str) or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in _STEADY or top == "builtins":
        return True
    found = sys.modules.get(top)
    file = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), None)
    if file is None:
        return found is not None and top in sys.stdlib_module_names
    return _is_installed(str(file))


@cache
def _is_installed(file: str) -> bool:
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return bool(installed) or file.startswith(_STANDARD)


def name_in_library(thing: Any) -> str | None:
    """Return name and version of what a library defines, if it is found there; else `None`."""
    if isinstance(thing, types.FunctionType) and not is_library(thing.__globals__.get("__name__")):
        return None
    if not is_library(type(thing).__module__):
        return None
    names = [name for name in (getattr(thing, "__qualname__", None), getattr(thing, "__name__", None)) if name]
    for place in (getattr(thing, "__module__", None), *_HOMES):
        if is_library(place):
            found = next((name for name in names if _look_up(str(place), name) is thing), None)
            if found is not None:
                return f"{place}.{found} {_edition(place)}"
    return None


def _look_up(module: str, name: str) -> Any:
    first, *rest = name.split(".")
    found = vars(sys.modules[module]).get(first) if module in sys.modules else None
    for part in rest:
        found = getattr(found, part, None)
    return found


@cache
def _edition(module: str) -> str:
    """Return the version of a library; of one that a person may well have written, also a digest of the file."""
    top = module.partition(".")[0]
    if top in _STEADY:
        return version(top)
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or str(file).startswith(_STANDARD):
        return ""
    return f"{getattr(sys.modules[top], '__version__', '')} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


@dataclass
class Mentions:
    """Names in a piece of code, those in functions inside of it included."""

    variables: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)

    @property
    def outside(self) -> set[str]:
        """Names by which it may reach what it does not refer to."""
        return (self.variables | self.attributes) & _OUTSIDE


def mentions(code: types.CodeType) -> Mentions:
    """Return the names of variables of its module, of attributes and of modules that code uses."""
    found = Mentions()
    for part in _with_inner(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname == "IMPORT_NAME":
                found.modules.add(instruction.argval)
            elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                found.variables.add(instruction.argval)
            elif instruction.opcode in dis.hasname:
                found.attributes.add(instruction.argval)
    return found


def _with_inner(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_inner(constant)


def bytecode(code: types.CodeType) -> tuple[Any, ...]:
    """Return what code does, without the file and the lines that it stands in."""
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    table = getattr(code, "co_exceptiontable", b"")
    return *counts, *names, hashlib.sha256(code.co_code).hexdigest(), table, code.co_consts


def codes_of(attribute: Any) -> list[types.CodeType]:
    """Return the code of what stands in a class: a function, a property, or what wraps one."""
    if isinstance(attribute, types.FunctionType):
        return [attribute.__code__]
    if isinstance(attribute, staticmethod | classmethod):
        return codes_of(attribute.__func__)
    if isinstance(attribute, property):
        return [code for part in (attribute.fget, attribute.fset, attribute.fdel) for code in codes_of(part)]
    if isinstance(attribute, cached_property):
        return codes_of(attribute.func)
    return []


# What a class holds for Python's own use, or counts up while a program runs.
_OF_PYTHON = {
    "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
    "__classcell__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__", "__firstlineno__",
    "__match_args__", "__module__", "__orig_bases__", "__parameters__", "__qualname__", "__slotnames__", "__slots__",
    "__static_attributes__", "__type_params__", "__weakref__", "_abc_impl", "_backward_cls", "_is_protocol",
}  # fmt: skip

# What makes, copies, prints or fills an object, and is not called when it computes, unless other code names it.
_OF_MAKING = {
    "__copy__", "__deepcopy__", "__del__", "__getstate__", "__init__", "__init_subclass__", "__new__", "__post_init__",
    "__reduce__", "__reduce_ex__", "__repr__", "__set_name__", "__setstate__", "__str__", "_init_weights",
    "_load_from_state_dict", "_reset_parameters", "_save_to_state_dict", "extra_repr", "init_weights",
    "load_state_dict", "reset_parameters", "state_dict", "train",
}  # fmt: skip


def attributes_of(kind: type, making: bool) -> dict[str, Any]:
    """Return what a class itself defines: what an object of it computes with, or what makes one.

    Parameters
    ----------
    kind : type
        The class.
    making : bool
        Whether to return what is called when an object is made, and that alone.

    Returns
    -------
    dict
        Attributes by name.
    """
    slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
    own = {name: value for name, value in vars(kind).items() if name not in _OF_PYTHON and not isinstance(value, slots)}
    named: set[str] = set()
    for base in kind.__mro__:
        if not is_library(base.__module__):
            for name, value in vars(base).items():
                for code in codes_of(value) if name not in _OF_MAKING else ():
                    found = mentions(code)
                    named |= found.variables | found.attributes
    late = _OF_MAKING - named
    return {name: value for name, value in sorted(own.items()) if (name in late) == making}


def edited_methods(kind: type) -> dict[str, types.FunctionType]:
    """Return methods of a library's class, or of its bases, that somebody else has put there."""
    return {
        f"{base.__qualname__}.{name}": value
        for base in kind.__mro__
        if is_library(base.__module__)
        for name, value in vars(base).items()
        if isinstance(value, types.FunctionType) and not is_library(value.__globals__.get("__name__"))
    }


def slots_of(kind: type) -> list[str]:
    """Return the names of the slots of a class and its bases."""
    names: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        names.extend([slots] if isinstance(slots, str) else slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def hides_state(kind: type, base: type = object) -> bool:
    """Tell whether objects of a class hold more than their attributes and what a base holds: what is written in C does.

    The rule is that of pickle, which refuses them too.
    """
    size = base.__basicsize__ + 8 * len(slots_of(kind))
    size += 8 * (kind.__dictoffset__ > 0) + 8 * (kind.__weakrefoffset__ > 0)
    if base is object:
        return kind.__itemsize__ != 0 or kind.__basicsize__ != size
    return kind.__basicsize__ > size + 16
