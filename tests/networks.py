"""Tiny real networks, importable, as a user's own would be."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn


def rest_exhaustive(values: Iterable[Any], *usual: Any) -> list[Any]:
    """Values to test with: the usual ones in every run, the rest of the family where a run is to be exhaustive."""
    return [value if value in usual else pytest.param(value, marks=pytest.mark.exhaustive) for value in values]


class ResidualBlock(nn.Module):
    """Two convolutions with BatchNorm and dropout, and a shortcut around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.dropout(self.relu(self.bn1(self.conv1(x)))))


def tiny_cnn(in_channels: int = 3, width: int = 8, n_classes: int = 5) -> nn.Sequential:
    """Four blocks with BatchNorm and dropout, then a classification layer."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        ResidualBlock(width),
        ResidualBlock(width),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, n_classes),
    )


def tiny_grey_cnn() -> nn.Sequential:
    """The same for grey images."""
    return tiny_cnn(in_channels=1)


def tiny_vectors(n_features: int = 4) -> nn.Sequential:
    """Two blocks that take vectors, and no classification layer."""
    return nn.Sequential(nn.Linear(n_features, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
