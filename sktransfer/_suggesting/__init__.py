"""Suggest first settings from the data and from measurements. Libraries are imported at the first call."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sktransfer._suggesting._suggestion import Suggestion


def suggest_settings(X: Any, y: Any, backbone: Any, *, max_samples: int = 500, random_state: Any = 0) -> "Suggestion":
    """Suggest parameters for a fine-tuned estimator, with a reason for each.

    The suggestion depends on the number of samples per class, on how balanced the classes are, and on how near the data
    is to the training data of the network (see :func:`sktransfer.inspection.domain_gap`). It follows the table of data
    size and similarity that textbooks give, corrected by measurements with this package (see the page "Which approach?"
    of the documentation). The same data leads to the same parameters. They are a starting point, not the result of a
    search.

    Parameters
    ----------
    X : array-like
        Samples, as the estimators take them.
    y : array-like
        Targets, as the estimators take them: labels, columns of 0 and 1, or numbers. Whole numbers are treated as
        labels. To predict them as numbers, give `FineTunedRegressor(backbone)` as `backbone`.
    backbone : str, nn.Module, callable, Backbone or estimator
        A backbone, as the estimators take it or as :func:`sktransfer.backbones.load_backbone` returns it; or an
        estimator of this package, whose other settings (`weights`, `image_shape`, ...) are kept.
    max_samples : int, default=500
        Maximum number of samples on which the nearness is measured.
    random_state : int, RandomState instance or None, default=0
        Seed for choosing these samples.

    Returns
    -------
    Suggestion
        Dict of parameters, for `FineTunedClassifier(**suggestion)`, or `FineTunedRegressor(**suggestion)` for numbers.
        It prints as a table. `reasons` has the reason for each parameter, `seconds` the expected duration of one fit on
        this machine, and `gap` how near the data is.

    Raises
    ------
    ValueError
        If y has only one class or not the length of X, or if the estimators cannot use the backbone.

    See Also
    --------
    sktransfer.inspection.domain_gap : Measures how near the data is, in detail.

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
