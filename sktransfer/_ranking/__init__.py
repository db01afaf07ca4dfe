"""Measure which pretrained network suits your data best, and what each one costs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sktransfer._ranking._backbone_ranking import BackboneRanking

__all__ = ["rank_backbones"]


def rank_backbones(
    X: Any,
    y: Any,
    backbones: Any,
    *,
    cv: Any = 5,
    scoring: Any = None,
    probe: str = "logistic",
    groups: Any = None,
    task: str = "auto",
    extractor: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> "BackboneRanking":
    """Compare pretrained networks on your own data, by cross-validation on their frozen features.

    Each sample passes once through each network. All folds share these features, and estimators that you fit later find
    them in the cache. All networks are scored on the same folds.

    Parameters
    ----------
    X : array-like
        Images, texts, sounds or vectors, as :class:`PretrainedFeatureExtractor` takes them.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Classes; columns of 0 and 1, one per label, if a sample may have several labels; or numbers.
    backbones : iterable or dict
        Names, networks, functions that return a network, or :class:`PretrainedFeatureExtractor` where a network needs
        its own parameters, such as `weights`. A fitted extractor is used as it is. In a dict, the keys are the names.
        Otherwise, a network is named after its class, and a function after itself.
    cv : int, splitter or iterable, default=5
        Folds, as in scikit-learn. An int gives stratified folds for classes. With `groups`, samples of one group stay
        in the same fold.
    scoring : str, callable or None, default=None
        A scorer, as in scikit-learn. `None` is accuracy for classes, the share of samples with all labels right for
        several labels, and R² for numbers.
    probe : {"logistic", "knn"}, default="logistic"
        Model that is fitted on the features. `"logistic"` is the solved head of :class:`FineTunedClassifier`: logistic
        regression (ridge regression for numbers) on scaled features, with a penalty that is chosen inside each fold.
        `"knn"` is nearest neighbours: the 5 nearest samples by cosine, weighted by distance.
    groups : array-like of shape (n_samples,) or None, default=None
        Groups of samples that must not be split between training and test, such as photos of the same patient. To find
        copies, use :func:`sktransfer.inspection.duplicate_groups`.
    task : {"auto", "classes", "labels", "numbers"}, default="auto"
        What y contains. `"auto"` treats numbers with fractional parts as numbers, columns of 0 and 1 as labels, and
        anything else as classes. Give `"numbers"` for integers such as ages.
    extractor : PretrainedFeatureExtractor or None, default=None
        Extractor whose parameters (`image_shape`, `feature_cache`, `device`, ...) are used for all backbones that are
        not extractors themselves.
    n_jobs : int or None, default=None
        Number of processes for the folds, as in scikit-learn. The networks always run in the current process.
    verbose : int, default=0
        1 shows one line per backbone, and a progress bar over all passes if they take more than two seconds.

    Returns
    -------
    BackboneRanking
        Prints as a table. `best_` is the name of the best backbone, `best_extractor_` its extractor, and `results_` a
        DataFrame. `plot()` draws the scores against size and speed. If a backbone fails, its row says why.

    Raises
    ------
    ValueError
        If `backbones` is empty or contains a name twice; if y has only one class, or fewer samples than folds; if a
        parameter or the length of `groups` is wrong; or if all backbones fail.

    See Also
    --------
    PretrainedFeatureExtractor : Computes the features of one network.
    sktransfer.inspection.duplicate_groups : Finds copies, to use as `groups`.

    Notes
    -----
    There is no LogME, LEEP or other transferability score here, because a cross-validated probe costs no more and
    predicts better. Sorkhei et al. [1]_ compared 23 such scores on 16 data sets in 42,000 experiments. None of them
    worked everywhere, and nearest neighbours on the features did better than all of them. Singh et al. [2]_ show that,
    on the usual benchmarks of such scores, a fixed list of networks ordered by size does better than the scores. So
    size is the baseline here: the table shows which backbone the number of parameters alone would choose, and its
    score.

    The best of several scores is slightly optimistic, as in any selection by cross-validation. If two scores differ by
    less than one standard error, these samples cannot tell the backbones apart. Take the smaller or the faster one.

    References
    ----------
    .. [1] Sorkhei, Matsoukas, Fredin Haslum, Konuk, Smith, "k-NN as a Simple and Effective Estimator of
       Transferability", Transactions on Machine Learning Research, 2025.
    .. [2] Singh, Hess, Vanschoren, "How NOT to benchmark your SITE metric: Beyond Static Leaderboards and Towards
       Realistic Evaluation", ICLR 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import PretrainedFeatureExtractor, rank_backbones
    >>> X = np.random.default_rng(0).integers(0, 256, size=(12, 32, 32, 3), dtype=np.uint8)
    >>> X[::2, ..., 0] = 255
    >>> random = PretrainedFeatureExtractor(weights=None, random_state=0)
    >>> ranking = rank_backbones(X, ["red", "other"] * 6, ["squeezenet1_1", "no_such"], cv=3, extractor=random)
    >>> ranking.best_
    'squeezenet1_1'
    """
    from sktransfer._ranking._backbone_ranking import rank  # with scikit-learn's model selection, at first need

    return rank(X, y, backbones, cv, scoring, probe, groups, task, extractor, n_jobs, verbose)
