"""How far samples are from what a network was trained on: the gap, the probes, and the words."""

import math

import numpy as np
import pytest
import torch
from pretrained_models import make_text_model, make_texts
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._probing._folds import folds_of
from sktransfer._probing._targets import read_targets
from sktransfer._similarity import _passes
from sktransfer._similarity._domain_gap import BlockGap
from sktransfer._similarity._probes import Score, score
from sktransfer._similarity._reading import as_estimator, choose_rows, read
from sktransfer.backbones import load_backbone
from sktransfer.inputs._base import load_batch
from sktransfer.inspection import DomainGap, domain_gap


class WithNorms(nn.Module):
    """Three convolutions, each with a BatchNorm, and a classification layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, 5)

    def forward(self, x):
        return self.classifier(self.third(self.second(self.first(x))).mean(dim=(2, 3)))


class WithFunctions(nn.Module):
    """The same first layer, whose BatchNorm is a call of torch's function."""

    def __init__(self, by_batch=False):
        super().__init__()
        self.by_batch = by_batch
        self.convolution = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x):
        norm = self.norm
        x = self.convolution(x)
        x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.by_batch)
        return self.classifier(torch.relu(x).mean(dim=(2, 3)))


def smooth(n, seed=0):
    """Blurred coloured pictures."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 4, 4, 3))
    return np.kron(small, np.ones((1, 4, 4, 1))).astype(np.uint8)


def noise(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


def prepared(network, X):
    """Pictures as they enter a network."""
    samples = read(as_estimator(network), X).samples
    return samples.prepare(load_batch(samples, range(len(X))))


@pytest.fixture(scope="module")
def trained():
    """A network whose BatchNorms have seen smooth pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WithNorms()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over batches
    network.train()
    with torch.no_grad():
        network(prepared(network, smooth(200, seed=1)))
    return network.eval()


def test_the_gap_grows_with_the_distance_from_what_was_seen(trained):
    darker = [domain_gap(trained, smooth(60, seed=2) // by) for by in (1, 2, 3, 5)]
    gaps = [found.gap for found in darker]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.1
    assert gaps[-1] > 5 * gaps[0]
    assert domain_gap(trained, noise(60)).gap > gaps[0]
    assert darker[0].level == "near"
    assert str(darker[0]).startswith("near: gap 0.")
    assert darker[-1].level in ("far", "very far")


def test_the_gap_of_a_block_is_the_mean_frechet_distance_of_its_channels(trained):
    X = noise(20)
    with torch.no_grad():
        entering = trained.first[0](prepared(trained, X)).double().movedim(1, -1)
    norm = trained.first[1]
    mean, deviation = entering.mean(dim=(0, 1, 2)), entering.std(dim=(0, 1, 2), correction=0)
    by_chance = entering.mean(dim=(1, 2)).var(dim=0) / len(X)
    wide = (norm.running_var + norm.eps).sqrt()
    squares = (mean - norm.running_mean) ** 2 - by_chance
    expected = (squares.clamp(min=0) + (deviation - norm.running_var.sqrt()) ** 2).sqrt() / wide
    found = domain_gap(trained, X)
    assert found.blocks[0].gap == pytest.approx(float(expected.mean()), rel=1e-4)
    assert found.gap == pytest.approx(np.mean([block.gap for block in found.blocks]))


def test_few_samples_are_not_further_away_by_chance(trained):
    few = [domain_gap(trained, smooth(8, seed=seed)).gap for seed in range(10, 16)]
    many = domain_gap(trained, smooth(400, seed=9), max_samples=400).gap
    assert many < np.mean(few) < many + 0.25


def test_nothing_of_the_network_changes(trained):
    backbone = load_backbone(trained)
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    random, fingerprint = torch.get_rng_state(), backbone.fingerprint
    network, calls = backbone.network, [dict(vars(module)) for module in backbone.network.modules()]
    domain_gap(backbone, noise(12), np.tile([0, 1], 6), cv=2)
    assert backbone.network is network
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module._forward_hooks for module in network.modules()] == [call["_forward_hooks"] for call in calls]
    assert not any(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert backbone.fingerprint == fingerprint


def test_each_sample_passes_once_and_once_more_with_random_weights(trained, monkeypatch):
    passed = []

    def counted(network, samples, rows, execution):
        passed.append(len(rows))
        return compute_all(network, samples, rows, execution)

    compute_all = _passes.compute_all
    monkeypatch.setattr(_passes, "compute_all", counted)
    domain_gap(trained, noise(12))
    assert passed == [12]
    domain_gap(trained, noise(12), np.tile([0, 1], 6), cv=2)
    assert passed == [12, 12, 12]
    domain_gap(trained, noise(12), max_samples=7)
    assert passed[3:] == [7]


def test_a_batchnorm_that_is_called_as_a_function_counts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WithFunctions().eval()
    found = domain_gap(network, noise(10))
    assert not math.isnan(found.gap)


def test_a_batch_that_is_normalised_by_itself_tells_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WithFunctions(by_batch=True).eval()
    assert math.isnan(domain_gap(network, noise(10)).gap)
    assert torch.equal(network.norm.running_mean, torch.zeros(6))


def test_results_do_not_depend_on_threads_or_batches(trained):
    y = np.tile([0, 1], 20)
    found = [domain_gap(PretrainedFeatureExtractor(trained, batch_size=size), noise(40), y, cv=2) for size in (3, 32)]
    torch.set_num_threads(3)
    try:
        found.append(domain_gap(PretrainedFeatureExtractor(trained, batch_size=3), noise(40), y, cv=2))
    finally:
        torch.set_num_threads(1)
    assert np.allclose([one.gap for one in found], found[0].gap, rtol=1e-5)
    assert len({repr(one) for one in found}) == 1


def test_a_reference_is_what_the_gap_is_divided_by(trained):
    own = domain_gap(trained, smooth(60, seed=2))
    assert math.isnan(own.relative_gap)
    assert domain_gap(trained, smooth(60, seed=2), reference=own).relative_gap == pytest.approx(1)
    far = domain_gap(trained, noise(30), reference=smooth(60, seed=2))
    assert far.relative_gap == pytest.approx(far.gap / own.gap)
    assert "times that of the reference" in repr(far)


def test_probes_tell_what_the_network_is_worth(trained):
    X, y = smooth(40, seed=3), np.repeat(["dark", "light"], 20)
    X[y == "dark"] //= 2
    found = domain_gap(trained, X, y, cv=4)
    assert found.score_name == "accuracy"
    assert found.baseline_name == "pixels + PCA"
    assert found.best_block.score.mean > 0.8
    assert found.baseline.mean > 0.8
    frame = found.as_frame()
    assert list(frame["name"]) == [block.name for block in load_backbone(trained).blocks]
    assert frame[["score", "random_score", "baseline", "gap"]].notna().all().all()
    assert "random weights" in repr(found)
    assert "<table>" in found._repr_html_()


def own_scores(given, X, y, n_blocks, cv=4):
    """The score of each block, from features that an extractor computes."""
    targets = read_targets(np.asarray(y), len(X))
    rows = choose_rows(len(X), 500, targets, 0)
    targets = targets.of(rows)
    folds = folds_of(targets, cv, None)
    features = [
        PretrainedFeatureExtractor(given, layer=block, pooling="avg").fit_transform(X)[rows]
        for block in (*range(1, n_blocks), None)
    ]
    return [score(one, targets, folds).mean for one in features]


def test_each_probe_sees_the_features_of_its_own_block(trained):
    X, y = smooth(40, seed=3), np.random.default_rng(0).permutation(40) % 2
    found = domain_gap(trained, X, y, cv=4)
    scores = [block.score.mean for block in found.blocks]
    assert scores == pytest.approx(own_scores(trained, X, y, len(scores)))
    assert len(set(scores)) > 1
    assert max(scores) < 0.9, "labels by chance are not learned from the rows that are scored"


def test_features_of_texts_of_several_lengths_keep_their_targets(tmp_path):
    pytest.importorskip("transformers")
    texts, y = make_texts(30)
    texts = [text if number % 3 else f"{text} {text} {text}" for number, text in enumerate(texts)]
    model = make_text_model("bert", tmp_path)
    found = domain_gap(model, texts, y, cv=4)
    scored = [block.score.mean for block in found.blocks if block.score]
    assert len(scored) == len(found.blocks)
    assert scored == pytest.approx(own_scores(model, texts, y, len(scored)))


def test_negative_transfer_is_said():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WithNorms().eval()
    with torch.no_grad():
        network.first[0].weight.zero_()  # nothing passes
    X, y = smooth(40, seed=3), np.repeat([0, 1], 20)
    X[y == 0] //= 4
    found = domain_gap(network, X, y, cv=4)
    assert found.negative_transfer is True
    assert "Negative transfer" in repr(found)
    assert "below" in repr(found)
    assert "Random weights do as well" in repr(found)
    assert found.last_block.random_score.mean > found.best_block.score.mean + 0.2


def test_features_that_get_worse_are_said():
    low, high = Score(0.6, 0.01), Score(0.9, 0.01)
    blocks = (BlockGap(1, "early", 0.1, high, low), BlockGap(2, "late", 0.2, low, low))
    found = DomainGap("network", "its own", 40, blocks, Score(0.5, 0.01), "pixels + PCA", "accuracy")
    assert found.earlier_is_better
    assert not found.negative_transfer
    assert "Features get worse towards the end" in repr(found)
    even = DomainGap("network", "its own", 40, (BlockGap(1, "early", 0.1, Score(0.61, 0.01), low), blocks[1]))
    assert not even.earlier_is_better


def test_estimators_fitted_or_not_modules_functions_and_backbones_say_the_same(trained):
    X, y = noise(24), np.tile(["a", "b"], 12)
    classifier = FineTunedClassifier(trained, random_state=0)
    expected = repr(domain_gap(classifier, X))
    assert not hasattr(classifier, "backbone_")
    assert repr(domain_gap(classifier.fit(X, y), X)) == expected
    for given in (trained, lambda: trained, load_backbone(trained), PretrainedFeatureExtractor(trained)):
        assert domain_gap(given, X).gap == domain_gap(classifier, X).gap


def test_numbers_and_several_labels_are_scored_as_such(trained):
    X = noise(24)
    assert domain_gap(trained, X, np.linspace(0, 1, 24), cv=3).score_name == "R2"
    assert domain_gap(trained, X, np.random.default_rng(0).normal(size=(24, 2)), cv=3).score_name == "R2"
    assert domain_gap(FineTunedRegressor(trained), X, np.arange(24), cv=3).score_name == "R2"
    assert domain_gap(trained, X, np.random.default_rng(0).integers(0, 2, (24, 3)), cv=3).score_name == "micro F1"


def test_texts_are_compared_with_words(tmp_path):
    pytest.importorskip("transformers")
    texts, y = make_texts(30)
    found = domain_gap(make_text_model("bert", tmp_path), texts, y, cv=3)
    assert found.level is None
    assert "no BatchNorm" in repr(found)
    assert found.baseline_name == "words (TF-IDF)"
    assert found.baseline.mean > 0.8


def test_rows_of_numbers_for_a_network_of_ones_own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    X = np.random.default_rng(0).normal(size=(40, 6))
    found = domain_gap(network, X, (X[:, 0] > 0).astype(int), cv=4)
    assert not math.isnan(found.gap)
    assert found.baseline_name == "the input + PCA"
    assert found.baseline.mean > 0.8


def test_random_weights_have_no_gap():
    found = domain_gap(PretrainedFeatureExtractor("mobilenet_v2", weights=None, random_state=0), noise(2))
    assert found.level is None
    assert "random weights" in repr(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator_or_backbone": make_pipeline(PretrainedFeatureExtractor())}, r"pipeline\[0\]"),
        ({"estimator_or_backbone": 3}, "Got 3 of type int as a backbone"),
        ({"estimator_or_backbone": "resnet1"}, "resnet18"),
        ({"X": noise(1)}, "at least 2"),
        ({"y": [0] * 12}, "only one class"),
        ({"y": [0, 1] * 5}, r"inconsistent numbers of samples: 12 in X and 10 in y"),
        ({"y": [0] * 11 + [1]}, "Got fold . with 1 class 0 to train on; expected at least two"),
        ({"y": [0, 1] * 6, "cv": 1}, "cv=1"),
        ({"max_samples": 1}, "max_samples=1"),
        ({"max_samples": "all"}, "max_samples='all'"),
    ],
)
def test_bad_input_is_a_sentence(trained, change, message):
    given = {"estimator_or_backbone": trained, "X": noise(12), "y": None} | change
    with pytest.raises(ValueError, match=message):
        domain_gap(**given)


@pytest.mark.parametrize("y", [[0] * 12, [0, 1] * 5, [0] * 11 + [1]], ids=str)
def test_y_is_refused_before_a_network_is_loaded(y, monkeypatch):
    monkeypatch.setattr("sktransfer._backbone_estimator.load_backbone", lambda *args, **how: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"only one class|12 in X and 10 in y|Got fold . with 1 class"):
        domain_gap("resnet18", noise(12), y)


def test_a_reference_needs_batchnorms():
    with pytest.raises(ValueError, match="without BatchNorm"):
        domain_gap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), noise(4), reference=noise(4))
