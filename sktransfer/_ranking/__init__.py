"""Which pretrained network serves one's own data best: measured, not guessed, with what each costs."""

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

    Each sample passes once through each network; all folds share its features, and later estimators find them in the
    cache. All networks are judged on the same folds.

    Parameters
    ----------
    X : array-like
        Images, texts, sounds or vectors, as :class:`PretrainedFeatureExtractor` takes them.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Classes; columns of 0 and 1, one for each label that a sample may have; or numbers.
    backbones : iterable or dict
        Names, networks, functions that return one, or :class:`PretrainedFeatureExtractor` where a network needs
        parameters of its own, such as `weights`. One that is fitted is used as it is. A dict names them; otherwise a
        network is called by the name of its class, a function by its own.
    cv : int, splitter or iterable, default=5
        Folds, as in scikit-learn. A number gives stratified folds for classes; with `groups`, folds that keep groups
        together.
    scoring : str, callable or None, default=None
        One of scikit-learn's scorers. `None` is accuracy for classes, the share of samples all of whose labels are
        right for several labels, and R² for numbers.
    probe : {"logistic", "knn"}, default="logistic"
        What is fitted on the features. `"logistic"` is the head that :class:`FineTunedClassifier` solves: scaled
        features and a logistic regression (for numbers, a ridge regression) whose penalty is chosen inside each fold.
        `"knn"` asks the 5 nearest samples by cosine, nearer ones with more weight.
    groups : array-like of shape (n_samples,) or None, default=None
        Samples that must not be divided among training and test, such as photos of one patient;
        :func:`sktransfer.inspection.duplicate_groups` finds copies.
    task : {"auto", "classes", "labels", "numbers"}, default="auto"
        What y holds. `"auto"` takes numbers with a fractional part for numbers, columns of 0 and 1 for labels, and
        everything else for classes. Say `"numbers"` for integers such as ages.
    extractor : PretrainedFeatureExtractor or None, default=None
        Its parameters hold for all backbones that are not extractors themselves: `image_shape`, `feature_cache`,
        `device` and so on.
    n_jobs : int or None, default=None
        Processes that share the folds, as in scikit-learn. Networks always run in this one.
    verbose : int, default=0
        1 shows a bar over all passes, where it takes more than two seconds, and a line for each backbone.

    Returns
    -------
    BackboneRanking
        Prints as a table. `best_` is the name of the best backbone, `best_extractor_` its extractor, `results_` a
        DataFrame, and `plot()` draws score against size and against speed. A backbone that fails has a row that says
        why.

    Raises
    ------
    ValueError
        If `backbones` is empty or has a name twice; if y has one class, or fewer samples than folds; if a parameter or
        the length of `groups` is wrong; or if every backbone failed.

    See Also
    --------
    PretrainedFeatureExtractor : Features of one network.
    sktransfer.inspection.duplicate_groups : Groups of copies, for `groups`.

    Notes
    -----
    There is no LogME, LEEP or other score of transferability, since a cross-validated probe costs no more and predicts
    better. Sorkhei et al. [1]_ compared 23 such scores over 16 data sets in 42,000 experiments; none served everywhere,
    and nearest neighbours on the features did better than all. Singh et al. [2]_ show that on the usual benchmarks of
    such scores a fixed list ordered by the size of networks does better than the scores. So size is the baseline here:
    the table says which backbone the number of parameters alone would have chosen, and what that one scores.

    The best score of several is a little too high, as with any choice by cross-validation. Two backbones within one
    standard error cannot be told apart by these samples; take the smaller or faster one.

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
