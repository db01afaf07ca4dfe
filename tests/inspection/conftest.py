"""Displays are drawn without a screen, and figures do not stay."""

import matplotlib
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_figures_stay():
    yield
    from matplotlib import pyplot

    pyplot.close("all")
