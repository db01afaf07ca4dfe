"""Displays and measures that look at data and at fitted estimators, and change neither. Nothing below knows them.

matplotlib is imported when something is drawn: `pip install "sktransfer[plot]"`.
"""

from sktransfer.inspection._mistakes_display import MistakesDisplay
from sktransfer.inspection._samples_display import SamplesDisplay
from sktransfer.inspection._search_display import SearchDisplay
from sktransfer.inspection._training_curve_display import TrainingCurveDisplay

__all__ = [
    "MistakesDisplay",
    "SamplesDisplay",
    "SearchDisplay",
    "TrainingCurveDisplay",
]
