"""Show what the first layer of a network looks for: its filters, and where an image responds to them.

Whatever a network for photos was trained on, these are edges, colours and gratings; so they serve other pictures too.
"""

from typing import Any, Self

import numpy as np
import torch
from torch import nn

from sktransfer.inspection._drawing import axes_for, import_pyplot
from sktransfer.inspection._estimators import network_within, short_name
from sktransfer.inspection._torch_module import torch_module

# Columns of the grid of filters, and cells of it that are filled if nothing else is asked for.
_COLUMNS = 8
CELLS = 24


class FilterDisplay:
    """Filters of a network's first convolution, and how strongly an image responds to each of them.

    Create it with :meth:`from_estimator`.

    Parameters
    ----------
    filters : float ndarray of shape (n_filters, height, width, channels)
        Weights. 3 channels are red, green and blue; otherwise there is 1 channel.
    name : str
        Name of the convolution.
    maps : float ndarray of shape (n_filters, height, width) or None, default=None
        Response of an image to each filter, at each position.
    picture : ndarray of shape (height, width, channels) or None, default=None
        The image, as the network sees it.
    network_name : str, default=""
        Name of the network.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the drawing.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.inspection import FilterDisplay
    >>> FilterDisplay(np.zeros((16, 3, 3, 3)), "features.0").filters.shape
    (16, 3, 3, 3)
    """

    ax_: Any
    figure_: Any

    def __init__(
        self,
        filters: np.ndarray,
        name: str,
        *,
        maps: np.ndarray | None = None,
        picture: np.ndarray | None = None,
        network_name: str = "",
    ):
        self.filters = np.asarray(filters)
        self.name = name
        self.maps = maps
        self.picture = picture
        self.network_name = network_name

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any = None, *, n_filters: int | None = None, ax: Any = None) -> Self:
        """Draw the filters of a fitted estimator's first convolution, and the response of an image.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator, as in :func:`torch_module`, whose network takes images.
        X : array-like or None, default=None
            Images, as `predict` takes them. Only the first one is shown. `None` shows only the filters.
        n_filters : int or None, default=None
            Maximum number of filters: those with the largest weights, in their order. Filters of zeros are not shown.
            `None` fills 3 rows.
        ax : matplotlib Axes or None, default=None
            Axes to draw on. `None` creates a figure.

        Returns
        -------
        FilterDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the network does not begin with a convolution on images.
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        """
        import_pyplot()  # said before the network runs
        module = torch_module(estimator)
        name, first = _first_convolution(module.parts[0])
        weights = first.weight.detach().movedim(1, -1)
        channels = _strongest(weights, CELLS - (X is not None) if n_filters is None else n_filters)
        weights = weights[channels]
        if weights.shape[-1] not in (1, 3):
            weights = weights.mean(dim=-1, keepdim=True)
        maps = picture = None
        if X is not None:
            with torch.no_grad():
                maps = first(module.prepare(X[:1]))[0, channels].abs().numpy()
            holder, _ = network_within(estimator)
            picture = holder._read(X[:1]).load(0).movedim(0, -1).numpy()
        return cls(
            weights.numpy(), name, maps=maps, picture=picture, network_name=short_name(module.network_name)
        ).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw a grid of filters, each above its map if there are maps.

        Each filter is scaled by itself, with 0 as grey. Maps are black where the image does not respond.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw on. `None` creates a figure.

        Returns
        -------
        FilterDisplay
            The same display.
        """
        cells = self._cells()
        rows = -(-len(cells) // _COLUMNS)
        ax = axes_for(ax, (8.4, 1.05 * rows * cells[0].shape[0] / cells[0].shape[1] + 0.6))
        ax.imshow(_mosaic(cells), interpolation="nearest")
        size = " x ".join(map(str, self.filters.shape[1:3]))
        network = f" of {self.network_name}" if self.network_name else ""
        maps = "" if self.maps is None else "; below each, where the first picture answers to it"
        ax.set_title(f"{len(self.filters)} filters ({size}) of {self.name}{network}{maps}", fontsize="medium")
        ax.set_axis_off()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _cells(self) -> list[np.ndarray]:
        """Return what stands in each place of the grid: float arrays of shape (height, width, 3), within [0, 1]."""
        filters = [_as_colours(one) for one in self.filters]
        if self.maps is None:
            return filters
        width = max(self.maps.shape[2], 48)
        side = width // 2
        cells = []
        for one, answer in zip(filters, self.maps, strict=True):
            above = np.ones((side + width // 12, width, 3))
            start = (width - side) // 2
            above[:side, start : start + side] = _resized(one, side, side)
            height = round(width * answer.shape[0] / answer.shape[1])
            high = float(np.quantile(answer, 0.99)) or 1.0
            grey = np.repeat((answer / high).clip(0, 1)[..., None], 3, axis=-1)
            cells.append(np.concatenate([above, _resized(grey, height, width)]))
        if self.picture is not None:
            cells.insert(0, self._picture_cell(cells[0].shape[:2], side + width // 12))
        return cells

    def _picture_cell(self, shape: tuple[int, ...], above: int) -> np.ndarray:
        assert self.picture is not None
        picture = self.picture / (255.0 if self.picture.dtype == np.uint8 else 1.0)
        picture = np.repeat(picture[..., :1], 3, axis=-1) if picture.shape[-1] < 3 else picture[..., :3]
        cell = np.ones((*shape, 3))
        cell[above:] = _resized(picture, shape[0] - above, shape[1])
        return cell


def _strongest(weights: torch.Tensor, count: int) -> torch.Tensor:
    """Return the numbers of the filters with the largest weights, in order."""
    norms = weights.flatten(1).norm(dim=1)
    found = norms.argsort(descending=True, stable=True)[:count]
    return found[norms[found] > 0].sort().values


def _first_convolution(part: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the first convolution of a network's first part, with its name."""
    for name, layer in part.named_modules():
        if isinstance(layer, nn.Conv2d):
            return name, layer
    raise ValueError(
        "Got a network that does not begin with a convolution of pictures; expected one that does, such as ResNet "
        "or MobileNet. Other networks have no filters to draw."
    )


def _as_colours(weights: np.ndarray) -> np.ndarray:
    """Scale one filter of shape (height, width, channels) to colours in which grey is 0."""
    high = float(np.abs(weights).max()) or 1.0
    colours = 0.5 + 0.5 * weights / high
    return np.repeat(colours, 3, axis=-1) if weights.shape[-1] == 1 else colours


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat or leave out pixels."""
    down = np.arange(height) * image.shape[0] // height
    across = np.arange(width) * image.shape[1] // width
    return image[down][:, across]


def _mosaic(cells: list[np.ndarray]) -> np.ndarray:
    """Put cells of one shape side by side, in rows, with white between them."""
    height, width, _ = cells[0].shape
    gap = max(1, width // 12)
    rows = -(-len(cells) // _COLUMNS)
    whole = np.ones((rows * (height + gap) - gap, _COLUMNS * (width + gap) - gap, 3))
    for number, cell in enumerate(cells):
        down, across = divmod(number, _COLUMNS)
        top, left = down * (height + gap), across * (width + gap)
        whole[top : top + height, left : left + width] = cell
    return whole
