"""Make the activations of one fit, each kind when it is first needed."""

from dataclasses import replace
from functools import cached_property

import torch

from sktransfer._computing._frozen_pass import probe
from sktransfer._computing._reuse import Pass
from sktransfer._process._seeding import generator_kept
from sktransfer._training._activation_sources import Activations, Augmented, activations, decoded_once
from sktransfer._training._settings import TrainingSettings


class Sources:
    """Activations of samples as they are, and of samples that change at random where that is asked for.

    Each is made when first wanted: which of them that is depends on the strategy.

    Parameters
    ----------
    work : Pass
        The samples, and their way through the frozen part.
    settings : TrainingSettings
        How samples change.
    """

    def __init__(self, work: Pass, settings: TrainingSettings):
        self._work = replace(work, samples=decoded_once(work))
        augmentation = work.samples.augmentation(settings.augment)
        name = settings.augment if isinstance(settings.augment, str) else None
        self._augmented = augmentation and Augmented(augmentation, name, settings.augment_views, settings.views_seed)

    @cached_property
    def first(self) -> torch.Tensor:
        """The activation of one sample, to measure."""
        with generator_kept():
            return probe(self._work if self._augmented is None else replace(self._work, cache=None))

    @cached_property
    def plain(self) -> Activations:
        with generator_kept():
            return activations(self._work, self.first)

    @cached_property
    def changing(self) -> Activations:
        return self.plain if self._augmented is None else activations(self._work, self.first, self._augmented)

    def compute(self) -> None:
        """Compute what is trained on, if it is kept."""
        _ = self.changing
