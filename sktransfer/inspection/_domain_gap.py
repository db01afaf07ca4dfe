"""Measure how far your data is from the training data of a network."""

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
    """Measure how far X is from the training data of a network, without needing that data.

    **The gap** needs a network with BatchNorm. Each BatchNorm layer stores the mean and the variance of its channels
    over the training data. They are compared with the mean and the variance over X. For a channel with mean m and
    standard deviation s over X, and m' and s' in training, the gap is the Fréchet distance sqrt((m - m')² + (s - s')²),
    divided by s'. The gap of a block is the mean over its channels, and the overall gap is the mean over blocks. It
    says how different X looks, not whether the features help.

    **Probes** need y, and work for any network. They are cross-validated ridge classifiers or regressions on the output
    of up to 8 blocks, on the same blocks with random weights, and on X without a network (100 principal components of
    32 x 32 pixels, or TF-IDF for texts). If the best block is worse than no network, the result reports negative
    transfer.

    Each sample passes the network once, and with y once more with random weights. A copy of the network runs, in
    float32, so the network itself does not change.

    Parameters
    ----------
    estimator_or_backbone : estimator, str, nn.Module, callable or Backbone
        An estimator of this package, fitted or not, whose parameters say how to read and run X; or a backbone, as the
        parameter `backbone` takes it or as :func:`sktransfer.backbones.load_backbone` returns it. For a fitted
        estimator, the pretrained network is measured, not the tuned one.
    X : array-like
        At least 2 samples, as the estimators take them.
    y : array-like or None, default=None
        Targets, as the fine-tuned estimators take them. If the first argument is a backbone, floats with fractional
        parts are numbers to predict, and anything else is labels.
    reference : array-like, DomainGap or None, default=None
        Samples like those that the network was trained on, or the result of this function for such samples.
        `relative_gap` is then the gap divided by theirs, so that you can compare networks.
    cv : int, splitter or iterable, default=5
        Folds of the probes, as in scikit-learn.
    max_samples : int, default=500
        Maximum number of samples to measure. Each class keeps its share.
    random_state : int, RandomState instance or None, default=0
        Seed for choosing these samples.

    Returns
    -------
    DomainGap
        Prints as a sentence and a table with one row per block. It has `gap`, `level`, `blocks`, `negative_transfer`
        and `as_frame()`.

    Raises
    ------
    ValueError
        If the first argument is neither an estimator nor a backbone, if X or y is not as described, if y has only one
        class, or if a class has fewer samples than folds.

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
