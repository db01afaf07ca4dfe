"""Displays and measures that look at estimators, networks and data, and change none. Nothing below knows them.

matplotlib is imported when something is drawn: `pip install "sktransfer[plot]"`.
"""

from sktransfer._similarity._domain_gap import BlockGap, DomainGap
from sktransfer.inspection._domain_gap import domain_gap

__all__ = ["BlockGap", "DomainGap", "domain_gap"]
