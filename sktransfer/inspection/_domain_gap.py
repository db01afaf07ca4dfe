"""How far your data is from what a network was trained on."""

from typing import Any

from sktransfer._similarity._domain_gap import DomainGap, measure


def domain_gap(
    estimator_or_backbone: Any,
    X: Any,
    y: Any = None,
    *,
    reference: Any = None,
    cv: Any = 5,
    max_samples: int = 500,
    random_state: Any = 0,
) -> DomainGap:
    """Measure how far X is from what a network was trained on, without its training data.

    **The gap**, for networks with BatchNorm: each BatchNorm holds the mean and the variance that its channels had over
    the training data. What they are over X is compared with that. For a channel with mean m and standard deviation s
    over X, and m' and s' in training, the Fréchet distance is sqrt((m - m')² + (s - s')²), and is divided by s'. A
    block's gap is the mean over its channels; the summary is the mean over blocks. It says how unlike X looks, not
    whether the features help.

    **Probes**, for any network, with y: a cross-validated ridge classifier or regression on the features behind each of
    up to 8 blocks, on those of the same network with random weights, and on X without a network: pixels of 32 x 32 and
    100 principal components, or TF-IDF for texts. Where the best block is worse than no network, that is negative
    transfer, and is said.

    Each sample passes the network once; with y, once more with random weights. The pass runs a copy, in float32, and
    nothing of the network changes.

    Parameters
    ----------
    estimator_or_backbone : estimator, str, nn.Module, callable or Backbone
        An estimator of this package, fitted or not, which says how X is read and run; or what its parameter
        `backbone` takes; or what :func:`sktransfer.backbones.load_backbone` returns. Of a fitted estimator the
        pretrained network is measured, not what was tuned.
    X : array-like
        Samples, as the estimators take them; at least 2.
    y : array-like or None, default=None
        Targets, as the tuned estimators take them. Without an estimator, floats that are not whole are numbers to
        predict, anything else is labels.
    reference : array-like, DomainGap or None, default=None
        Samples such as the network was trained on, or what this function returned for some: `relative_gap` is the gap
        divided by theirs, so that networks compare.
    cv : int, splitter or iterable, default=5
        Folds of the probes, as scikit-learn takes them.
    max_samples : int, default=500
        The largest number of samples that are measured. Each class keeps its share.
    random_state : int, RandomState instance or None, default=0
        Chooses these samples.

    Returns
    -------
    DomainGap
        Prints as a sentence and a table by block; `gap`, `level`, `blocks`, `negative_transfer`, `as_frame()`.

    Raises
    ------
    ValueError
        If the first argument is neither estimator nor backbone, X or y is not as described, y holds one class, or a
        class has fewer samples than folds.

    References
    ----------
    Fréchet distance of normal distributions: Dowson and Landau, "The Fréchet distance between multivariate normal
    distributions", Journal of Multivariate Analysis 12, 1982. Statistics of BatchNorm as a trace of the training data:
    Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", ICLR workshop 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.inspection import domain_gap
    >>> from sktransfer import PretrainedFeatureExtractor
    >>> X = np.random.default_rng(0).integers(0, 256, size=(4, 32, 32, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0)
    >>> found = domain_gap(extractor, X, y=[0, 1, 0, 1], cv=2)
    >>> found.level is None  # SqueezeNet has no BatchNorm
    True
    >>> len(found.as_frame())
    9
    """
    return measure(estimator_or_backbone, X, y, reference, cv, max_samples, random_state)
