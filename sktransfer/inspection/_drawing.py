"""What all displays share: matplotlib, imported when something is drawn."""

from typing import Any

from sktransfer._messages import named_extra


def import_pyplot() -> Any:
    """Return matplotlib's pyplot.

    Returns
    -------
    module
        Imported where it is needed.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    with named_extra("Displays are drawn by the package matplotlib", "plot"):
        from matplotlib import pyplot
    return pyplot
