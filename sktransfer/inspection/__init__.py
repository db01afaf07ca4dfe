"""Looking at estimators and data: what they see, where they err, and how deep features stay general.

Nothing below this package knows it, and matplotlib is imported when something is drawn.
"""

from sktransfer.inspection._depth_display import DepthDisplay
from sktransfer.inspection._filter_display import FilterDisplay
from sktransfer.inspection._saliency_display import SaliencyDisplay
from sktransfer.inspection._torch_module import TorchModule, torch_module

__all__ = ["DepthDisplay", "FilterDisplay", "SaliencyDisplay", "TorchModule", "torch_module"]
