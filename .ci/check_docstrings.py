"""Check the docstrings of all that is public with numpydoc, by the rules in pyproject.toml."""

import importlib
import inspect
import pkgutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from numpydoc.validate import validate

import sktransfer

CHECKS = set(tomllib.loads(Path("pyproject.toml").read_text())["tool"]["numpydoc_validation"]["checks"])


def public_names() -> Iterator[str]:
    """Every function and class without an underscore, and the classes' methods, wherever they are defined."""
    for module in pkgutil.walk_packages(sktransfer.__path__, "sktransfer."):
        members = vars(importlib.import_module(module.name))
        for name, member in members.items():
            if name.startswith("_") or getattr(member, "__module__", None) != module.name:
                continue
            if inspect.isfunction(member) or inspect.isclass(member):
                yield f"{module.name}.{name}"
            if inspect.isclass(member):
                yield from (
                    f"{module.name}.{name}.{method}"
                    for method, function in vars(member).items()
                    if inspect.isfunction(function) and not method.startswith("_")
                )


def main() -> int:
    """Print what is wrong and return how much."""
    wrong = 0
    for name in public_names():
        for code, message in validate(name)["errors"]:
            if code not in CHECKS:
                continue
            wrong += 1
            print(f"{name}: {code} {message}")
    print(f"{wrong} faults in docstrings")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main()))
