"""Pass samples once through a watched network: vectors at each depth, and how far BatchNorms have moved."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from sktransfer._computing._execution import Execution
from sktransfer._computing._forward import compute_all
from sktransfer._computing._progress import progress_bar
from sktransfer._similarity._watched_network import WatchedNetwork
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Samples


@dataclass(frozen=True)
class Seen:
    """What one pass saw.

    Parameters
    ----------
    vectors : list of float32 ndarray of shape (n_samples, width)
        Of each depth, in order from the input.
    small : float32 ndarray of shape (n_samples, n_values)
        The samples themselves, as short rows; without columns where they are tokens.
    distances : dict of str to float64 ndarray of shape (n_channels,)
        By name of a BatchNorm: of each channel how far what enters it is from its running statistics.
    """

    vectors: list[np.ndarray]
    small: np.ndarray
    distances: dict[str, np.ndarray]


def chosen_depths(n_blocks: int, most: int) -> list[int]:
    """Choose blocks to look behind, evenly, the last among them; 1 is the first."""
    if n_blocks <= most:
        return list(range(1, n_blocks + 1))
    return sorted({round(1 + step * (n_blocks - 1) / (most - 1)) for step in range(most)})


def look(
    backbone: Backbone,
    depths: Sequence[int],
    samples: Samples,
    rows: np.ndarray,
    execution: Execution,
    redrawn_by: int | None = None,
) -> Seen:
    """Run samples through a copy of a network, once.

    Parameters
    ----------
    backbone : Backbone
        It is not changed.
    depths : sequence of int
        Numbers of the blocks whose vectors are wanted, in order.
    samples : Samples
        What is loaded.
    rows : int ndarray
        Which samples, in the order wanted.
    execution : Execution
        How.
    redrawn_by : int or None, default=None
        Seed of random weights in place of the pretrained ones.

    Returns
    -------
    Seen
        In the order of `rows`.
    """
    layers: list[Any] = [backbone.blocks[depth - 1].name for depth in depths]
    network = WatchedNetwork(backbone.feature_part([*layers[:-1], None], "avg", in_order=True))
    if redrawn_by is not None:
        network.redraw(redrawn_by)
    network.to(execution.device)
    order = np.argsort([samples.size(int(row)) for row in rows], kind="stable")  # those of one size together
    parts: list[list[np.ndarray]] = []
    totals: dict[str, np.ndarray] = {}
    with (
        progress_bar(len(rows), "computing", bool(execution.verbose)) as bar,
        closing(compute_all(network, samples, rows[order].tolist(), execution)) as outputs,
    ):
        for output in outputs:
            parts.append([value.numpy() for value in output[: len(depths) + 1]])
            for name, seen in zip(network.norms, output[len(depths) + 1 :], strict=True):
                totals[name] = totals.get(name, 0) + sums(seen.numpy())
            bar.update(len(output[0]))
    *vectors, small = (np.concatenate(column)[np.argsort(order)] for column in zip(*parts, strict=True))
    distances = {
        name: frechet_distances(total, len(rows), network.spreads[name].cpu().numpy()) for name, total in totals.items()
    }
    return Seen(vectors, small, distances)


def sums(seen: np.ndarray) -> np.ndarray:
    """Return what is kept of a batch for `frechet_distances`: sums over its samples.

    Parameters
    ----------
    seen : ndarray of shape (n_samples, 2, n_channels)
        By sample the mean and the mean square of normalised values, as `WatchedNetwork` returns them.

    Returns
    -------
    float64 ndarray of shape (3, n_channels)
        Sums of means, of mean squares, and of squares of means.
    """
    means, squares = seen[:, 0].astype(np.float64), seen[:, 1].astype(np.float64)
    return np.stack([means.sum(axis=0), squares.sum(axis=0), (means**2).sum(axis=0)])


def frechet_distances(total: np.ndarray, n_samples: int, spread: np.ndarray) -> np.ndarray:
    """Return how far each channel is from its running statistics, in its running standard deviations.

    For normal distributions with means m, m' and standard deviations s, s' the Fréchet distance is
    sqrt((m - m')² + (s - s')²). Here it is divided by s', so that channels and layers compare. That few samples have
    another mean by chance is taken off: the variance of their means, divided by their number.

    Parameters
    ----------
    total : float64 ndarray of shape (3, n_channels)
        From `sums`, of all samples.
    n_samples : int
        How many there are.
    spread : ndarray of shape (n_channels,)
        The running standard deviation in the same units: 1, and less where a BatchNorm's `eps` counts.

    Returns
    -------
    float64 ndarray of shape (n_channels,)
        At least 0.
    """
    mean, square, square_of_means = total / n_samples
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    by_chance = np.maximum(square_of_means - mean**2, 0) / max(1, n_samples - 1)
    return np.sqrt(np.maximum(mean**2 - by_chance, 0) + (deviation - spread) ** 2)
