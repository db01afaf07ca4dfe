"""Which settings to begin with, from the data and from measurements. What that takes is imported when it is asked."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sktransfer._suggesting._suggestion import Suggestion


def suggest_settings(X: Any, y: Any, backbone: Any, *, max_samples: int = 500, random_state: Any = 0) -> "Suggestion":
    """Suggest parameters for a tuned estimator, each with a reason.

    The choice depends on the number of samples per class, on how even the classes are, and on how near the data is to
    what the network was trained on, which :func:`sktransfer.inspection.domain_gap` measures. It follows the table of
    size and similarity that textbooks give, corrected by this package's own measurements (see the page "Which
    approach?" of the documentation). The same data gives the same parameters. They are a starting point, not the
    result of a search.

    Parameters
    ----------
    X : array-like
        Samples, as the estimators take them.
    y : array-like
        Targets, as the estimators take them: labels, columns of 0 and 1, or numbers. Whole numbers are taken for
        labels; to predict them, give `FineTunedRegressor(backbone)`.
    backbone : str, nn.Module, callable, Backbone or estimator
        What the parameter `backbone` of the estimators takes; or what :func:`sktransfer.backbones.load_backbone`
        returns; or an estimator of this package, whose other settings (`weights`, `image_shape`, ...) are kept.
    max_samples : int, default=500
        The largest number of samples on which nearness is measured.
    random_state : int, RandomState instance or None, default=0
        Chooses these samples.

    Returns
    -------
    Suggestion
        A dict of parameters: `FineTunedClassifier(**suggestion)`, or `FineTunedRegressor(**suggestion)` for numbers.
        `reasons` says why by parameter, `seconds` how long a fit is expected to take on this machine, `gap` how near
        the data is. Prints as a table.

    Raises
    ------
    ValueError
        If y holds one class, or has another length than X, or the backbone is nothing that the estimators take.

    See Also
    --------
    sktransfer.inspection.domain_gap : What nearness is, and more of it.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import FineTunedClassifier, suggest_settings
    >>> X = np.random.default_rng(0).integers(0, 256, size=(8, 32, 32, 3), dtype=np.uint8)
    >>> y = ["leaf", "stone"] * 4
    >>> suggestion = suggest_settings(X, y, FineTunedClassifier("squeezenet1_1", weights=None, random_state=0))
    >>> suggestion["freeze_depth"]
    'all'
    >>> model = FineTunedClassifier(**suggestion).fit(X, y)
    """
    from sktransfer._suggesting._measuring import suggest

    return suggest(X, y, backbone, max_samples, random_state)
