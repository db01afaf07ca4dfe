"""Displays and measures to inspect estimators, networks and data. They change none of them.

Drawing needs matplotlib: `pip install "sktransfer[plot]"`.
"""

from sktransfer._similarity._domain_gap import BlockGap, DomainGap
from sktransfer.inspection._depth_display import DepthDisplay
from sktransfer.inspection._domain_gap import domain_gap
from sktransfer.inspection._duplicates import duplicate_groups
from sktransfer.inspection._filter_display import FilterDisplay
from sktransfer.inspection._mistakes_display import MistakesDisplay
from sktransfer.inspection._saliency_display import SaliencyDisplay
from sktransfer.inspection._samples_display import SamplesDisplay
from sktransfer.inspection._search_display import SearchDisplay
from sktransfer.inspection._torch_module import TorchModule, torch_module
from sktransfer.inspection._training_curve_display import TrainingCurveDisplay

__all__ = [
    "BlockGap",
    "DepthDisplay",
    "DomainGap",
    "FilterDisplay",
    "MistakesDisplay",
    "SaliencyDisplay",
    "SamplesDisplay",
    "SearchDisplay",
    "TorchModule",
    "TrainingCurveDisplay",
    "domain_gap",
    "duplicate_groups",
    "torch_module",
]
