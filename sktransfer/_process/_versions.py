"""Versions of libraries, without importing them.

Results depend on major and minor version alone, since patches are to change none.
"""

import sys
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


@cache
def version(library: str) -> str:
    """Return major and minor version of a library, without importing it.

    Parameters
    ----------
    library : str
        Its name on the package index.

    Returns
    -------
    str
        Such as `"2.6"`; empty where it is not installed.
    """
    try:
        found = version_of(library)
    except PackageNotFoundError:  # built by hand
        found = str(getattr(sys.modules.get(library), "__version__", ""))
    return ".".join(found.split(".")[:2])


def versions(*libraries: str) -> str:
    """Return names and versions of libraries in one string.

    Parameters
    ----------
    *libraries : str
        Names on the package index.

    Returns
    -------
    str
        Such as `"torch 2.6, pillow 10.2"`.
    """
    return ", ".join(f"{library} {version(library)}" for library in libraries)


def installed(*libraries: str) -> dict[str, str]:
    """Return the whole versions of libraries, without importing them.

    Parameters
    ----------
    *libraries : str
        Names on the package index.

    Returns
    -------
    dict of str to str
        `"unknown"` where a library runs from a folder, or is not there.
    """
    found = {}
    for library in libraries:
        try:
            found[library] = version_of(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found
