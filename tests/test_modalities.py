"""The same promises for whatever a network takes: each test runs over images, vectors, texts and sounds alike."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from pretrained_models import (
    make_picture_model,
    make_sentence_model,
    make_sound_model,
    make_sounds,
    make_text_model,
    make_texts,
)
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.utils.rnn import pad_sequence

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._training._activation_sources import join
from sktransfer.backbones import load_backbone
from sktransfer.inputs._rows import Rows

KINDS = [
    "images", "images of timm", "paths", "vectors", "texts", "causal texts", "sentences", "sounds", "long sounds",
    "spectrograms", "images of the hub",
]  # fmt: skip

# Versions of torch that prefer it.
NEWER_EXPORTER = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 9)


@pytest.fixture(scope="module", params=rest_exhaustive(KINDS, "images", "vectors", "texts", "sounds"))
def case(request, pictures, paths, tmp_path_factory):
    """One kind of X, as a user has it, with a backbone that takes it."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind.replace(" ", "_"))
    settings = {"random_state": 0, "precision": "float32", "batch_size": 8}
    if kind in ("images", "paths"):
        return SimpleNamespace(kind=kind, backbone=tiny_cnn, X=pictures[0] if kind == "images" else paths,
                               y=pictures[1], settings=settings, load=None)  # fmt: skip
    if kind == "images of timm":
        backbone = "timm:test_vit"
        X, y = pictures
        return SimpleNamespace(
            kind=kind, backbone=backbone, X=X, y=y, settings={**settings, "weights": None}, load=None
        )
    if kind == "images of the hub":
        X, y = pictures
        return SimpleNamespace(
            kind=kind, backbone=make_picture_model("dinov2", folder), X=X, y=y, settings=settings, load=None
        )
    if kind == "vectors":
        rng = np.random.default_rng(0)
        y = np.tile(["left", "right"], 12)
        X = (rng.normal(size=(24, 4)) + np.where(y == "left", 1.0, -1.0)[:, None]).astype(np.float32)
        return SimpleNamespace(kind=kind, backbone=tiny_vectors, X=X, y=y, settings=settings, load=None)
    if "texts" in kind or kind == "sentences":
        make = {"texts": lambda f: make_text_model("bert", f), "causal texts": lambda f: make_text_model("gpt2", f),
                "sentences": make_sentence_model}[kind]  # fmt: skip
        X, y = make_texts()
        if kind == "causal texts":
            settings = {**settings, "pooling": "last"}
        return SimpleNamespace(kind=kind, backbone=make(folder), X=np.array(X, dtype=object), y=y, settings=settings,
                               load=None)  # fmt: skip
    X, y = make_sounds()
    if kind == "long sounds":  # of up to four windows: Whisper's is made to be of a tenth of a second
        backbone = make_sound_model("audio-spectrogram-transformer", folder)
        X = [np.concatenate([sound] * (1 + number % 3)) for number, sound in enumerate(X)]
    else:
        backbone = make_sound_model({"sounds": "wav2vec2", "spectrograms": "whisper"}[kind], folder)
    sounds = np.empty(len(X), dtype=object)
    sounds[:] = X
    return SimpleNamespace(kind=kind, backbone=backbone, X=sounds, y=y, settings={**settings, "sampling_rate": 1000},
                           load=None)  # fmt: skip


def classifier(case, **settings):
    return FineTunedClassifier(case.backbone, **{**case.settings, "max_epochs": 2, "lr": 1e-3, **settings})


def regressor(case, **settings):
    more = {"max_epochs": 2, "lr": 1e-3} if settings.get("freeze_depth", "all") != "all" else {}
    return FineTunedRegressor(case.backbone, **{**case.settings, **more, **settings})


def numbers_of(case):
    """Numbers that differ between the classes of a case, and a little within them."""
    return np.where(np.asarray(case.y) == case.y[0], 30.0, 50.0) + np.linspace(0, 1, len(case.y))


def extractor(case, **settings):
    return PretrainedFeatureExtractor(case.backbone, **{**case.settings, **settings})


def prepared(model, X, row):
    samples = model._reader.read(Rows(X).values)
    return samples.prepare(samples.load(row)[None])


def test_prefix_and_suffix_compute_what_the_whole_does_at_each_depth(case):
    model = extractor(case).fit(case.X)
    backbone = model.backbone_
    assert len(backbone.blocks) >= 2
    for row in (0, 1):
        x = prepared(model, case.X, row)
        with torch.no_grad():
            features = backbone.split("all")[0](x)
            for depth in range(len(backbone.blocks) + 1):
                prefix, tail = backbone.split(depth)[0], backbone.tail(depth, train_bn=True)
                if tail is not None:
                    assert torch.equal(tail(prefix(x)), features), depth


def test_each_parameter_that_is_used_belongs_to_one_block(case):
    backbone = extractor(case).fit(case.X).backbone_
    names = [name for block in backbone.blocks for name in block.parameter_names]
    assert len(names) == len(set(names))
    known = dict(backbone.network.named_parameters())
    assert set(names) <= set(known)
    assert all(block.parameter_names for block in backbone.blocks)


@pytest.mark.parametrize("freeze_depth", ["all", 1, 0.5, 0])
def test_frozen_is_bit_identical_and_the_rest_is_trained(case, freeze_depth):
    model = classifier(case, freeze_depth=freeze_depth).fit(case.X, case.y)
    backbone = model.backbone_
    fresh = load_backbone(
        case.backbone, case.settings.get("weights", "DEFAULT"), seed=model._seed(),
        n_features=case.X.shape[1] if case.kind == "vectors" else None,
    ).network.state_dict()  # fmt: skip
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, fresh[name]), name
    tail = model.net_.module_.tail
    if freeze_depth == "all":
        assert tail is None
        return
    frozen = backbone.frozen_names(freeze_depth)
    trained = {name for block in backbone.trained_blocks(freeze_depth) for name in block.parameter_names}
    assert trained
    assert not trained & frozen
    moved = {name for name, tensor in tail.named_parameters() if not torch.equal(tensor, fresh[name])}
    assert moved <= trained
    for block in backbone.trained_blocks(freeze_depth):
        assert moved & set(block.parameter_names), block.name


@pytest.mark.parametrize("strategy", ["linear_probe", "fine_tune", "lp_ft", "gradual"])
def test_each_strategy_learns(case, strategy):
    model = classifier(case, freeze_depth=1, strategy=strategy, layer_decay=0.8).fit(case.X, case.y)
    probabilities = model.predict_proba(case.X)
    assert probabilities.shape == (len(case.y), 2)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert set(model.predict(case.X)) <= set(case.y)
    assert (model.net_.module_.tail is None) == (strategy == "linear_probe")
    losses = [row["train_loss"] for row in model.history_ if row["phase"] == "fine_tune"]
    assert strategy == "linear_probe" or np.isfinite(losses).all()


def test_a_head_on_frozen_features_learns_more_than_chance(case):
    assert classifier(case).fit(case.X, case.y).score(case.X, case.y) > 0.6


def test_each_sample_passes_the_frozen_part_once_in_a_whole_search(case):
    if case.kind == "vectors":
        pytest.skip("plain rows are not kept: they cost as much to look up as to compute")
    sktransfer.clear_cache()
    grid = {"freeze_depth": [1, 2], "lr": [1e-4, 1e-3]}
    GridSearchCV(classifier(case, max_epochs=1), grid, cv=3).fit(case.X, case.y)
    info = sktransfer.cache_info()
    contents = len({str(row) for row in case.X}) if "texts" in case.kind or case.kind == "sentences" else len(case.X)
    assert info.misses == contents
    assert info.continued == contents
    assert info.hits > 0


def test_results_do_not_depend_on_the_cache(case, tmp_path):
    sktransfer.clear_cache()
    results = [
        # Adam makes whole steps of gradients that are nothing but rounding.
        classifier(case, freeze_depth=1, feature_cache=cache, optimizer="sgd").fit(case.X, case.y).predict_proba(case.X)
        for cache in (None, "auto", "auto", tmp_path / "cache", tmp_path / "cache")
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)


def test_a_row_depends_on_itself_alone(case):
    model = extractor(case, feature_cache=None).fit(case.X)
    together = model.transform(case.X)
    order = np.random.default_rng(1).permutation(len(case.X))
    np.testing.assert_allclose(model.transform(case.X[order]), together[order], atol=1e-5)
    for row in (0, 5, 23):
        np.testing.assert_allclose(model.transform(case.X[row : row + 1])[0], together[row], atol=1e-5)
    tuned = classifier(case, freeze_depth=1, feature_cache=None).fit(case.X, case.y)
    np.testing.assert_allclose(tuned.predict_proba(case.X[order]), tuned.predict_proba(case.X)[order], atol=1e-5)
    np.testing.assert_allclose(tuned.predict_proba(case.X[3:4]), tuned.predict_proba(case.X)[3:4], atol=1e-5)


def test_predictions_repeat_and_fits_too(case):
    model = classifier(case, freeze_depth=1, dropout=0.5).fit(case.X, case.y)
    first = model.predict_proba(case.X)
    np.testing.assert_array_equal(model.predict_proba(case.X), first)
    assert not any(module.training for module in model.net_.module_.modules())
    again = clone(model).fit(case.X, case.y)
    np.testing.assert_array_equal(again.predict_proba(case.X), first)


@pytest.mark.parametrize("freeze_depth", rest_exhaustive(["all", 1, 0], 1))
def test_saved_and_loaded_models_predict_the_same(case, tmp_path, freeze_depth):
    model = classifier(case, freeze_depth=freeze_depth, max_epochs=1).fit(case.X, case.y)
    expected = model.predict_proba(case.X)
    sktransfer.save(model, tmp_path / "model.safetensors")
    own = case.backbone if callable(case.backbone) else None
    saved = sktransfer.load(tmp_path / "model.safetensors", backbone=own)
    for other in (saved, pickle.loads(pickle.dumps(model))):
        sktransfer.clear_cache()
        np.testing.assert_allclose(other.predict_proba(case.X), expected, atol=1e-6)
        assert other.backbone_.fingerprint == model.backbone_.fingerprint


def test_a_model_without_its_backbone_finds_it_again(case):
    model = extractor(case, store_backbone=False).fit(case.X)
    whole = len(pickle.dumps(extractor(case).fit(case.X)))
    lean = pickle.dumps(model)
    assert len(lean) < whole
    sktransfer.clear_cache()
    np.testing.assert_allclose(pickle.loads(lean).transform(case.X), model.transform(case.X), atol=1e-6)


@pytest.mark.parametrize("freeze_depth", rest_exhaustive(["all", 1], 1))
def test_another_runtime_computes_the_same(case, tmp_path, freeze_depth):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the runtime that reads ONNX")
    model = classifier(case, freeze_depth=freeze_depth, max_epochs=1).fit(case.X, case.y)
    model.to_onnx(tmp_path / "model.onnx")
    if NEWER_EXPORTER:
        assert json.loads((tmp_path / "model.onnx.json").read_text())["exporter"] == "torch.export"
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    expected = model.predict_proba(case.X)
    for row in range(4):
        (found,) = session.run(None, {"prepared": prepared(model, case.X, row).numpy()})
        np.testing.assert_allclose(found[0], expected[row], atol=1e-4)
    rows = [prepared(model, case.X, row)[0] for row in range(4)]
    padded = pad_sequence(rows, batch_first=True, padding_value=np.nan if rows[0].is_floating_point() else -1)
    (together,) = session.run(None, {"prepared": padded.numpy()})
    np.testing.assert_allclose(together, expected[:4], atol=1e-4)


def test_summary_and_html_show_each_block(case):
    model = classifier(case, freeze_depth=1, max_epochs=1).fit(case.X, case.y)
    summary = model.backbone_.summary()
    assert [row.name for row in summary.rows] == [block.name for block in model.backbone_.blocks]
    assert summary.rows[0].state == "frozen"
    assert summary.rows[-1].state == "trained"
    assert all(row.output_shape for row in summary.rows)
    for text in (str(summary), model.backbone_._repr_html_(), model._repr_html_()):
        assert "trained" in text or "FineTunedClassifier" in text


def test_it_stands_in_a_pipeline_and_is_cross_validated(case):
    pipeline = make_pipeline(extractor(case), StandardScaler(), LogisticRegression())
    predicted = cross_val_predict(pipeline, case.X, case.y, cv=3)
    assert set(predicted) <= set(case.y)
    assert pipeline.fit(case.X, case.y)[0].get_feature_names_out()[0] == "pretrainedfeatureextractor0"


def test_layers_are_chosen_by_number_and_by_name(case):
    model = extractor(case).fit(case.X)
    names = [block.name for block in model.backbone_.blocks]
    by_number = extractor(case, layer=[1, len(names)]).fit_transform(case.X)
    by_name = extractor(case, layer=[names[0], names[-1]]).fit_transform(case.X)
    np.testing.assert_array_equal(by_number, by_name)
    with pytest.raises(ValueError, match="has no block 'no_such_layer'"):
        extractor(case, layer="no_such_layer").fit(case.X)


def test_early_stopping_and_class_weights_work(case):
    model = classifier(
        case, freeze_depth=1, early_stopping=True, validation_fraction=0.25, class_weight="balanced", max_epochs=3
    ).fit(case.X, case.y)
    assert all("valid_loss" in row for row in model.history_ if row["phase"] == "fine_tune")


def test_warm_start_goes_on(case):
    model = classifier(case, freeze_depth=1, warm_start=True, max_epochs=1).fit(case.X, case.y)
    before = {name: tensor.clone() for name, tensor in model.net_.module_.tail.state_dict().items()}
    model.fit(case.X, case.y)
    after = model.net_.module_.tail.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("freeze_depth", rest_exhaustive(["all", 1, 0], "all", 1))
def test_numbers_are_learned_and_models_of_them_kept(case, tmp_path, freeze_depth):
    y = numbers_of(case)
    model = regressor(case, freeze_depth=freeze_depth).fit(case.X, y, X_val=case.X[:5], y_val=y[:5])
    expected = model.predict(case.X)
    assert expected.shape == y.shape
    assert np.corrcoef(expected, y)[0, 1] > 0.3
    assert all("valid_r2" in entry for entry in model.history_)
    fresh = regressor(case).fit(case.X, y).backbone_.network.state_dict()
    for name, tensor in model.backbone_.network.state_dict().items():
        assert torch.equal(tensor, fresh[name]), name
    sktransfer.save(model, tmp_path / "model.safetensors")
    own = case.backbone if callable(case.backbone) else None
    for other in (sktransfer.load(tmp_path / "model.safetensors", backbone=own), pickle.loads(pickle.dumps(model))):
        sktransfer.clear_cache()
        np.testing.assert_allclose(other.predict(case.X), expected, atol=1e-4)


def test_a_search_for_numbers_computes_each_sample_once(case):
    sktransfer.clear_cache()
    grid = {"freeze_depth": [1, 2], "lr": [1e-4, 1e-3]}
    search = GridSearchCV(regressor(case, max_epochs=1), grid, cv=3, error_score="raise").fit(case.X, numbers_of(case))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    if case.kind != "vectors":
        contents = (
            len({str(row) for row in case.X}) if "texts" in case.kind or case.kind == "sentences" else len(case.X)
        )
        assert sktransfer.cache_info().misses == sktransfer.cache_info().continued == contents


def test_several_labels_are_learned(case):
    first = np.asarray(case.y) == case.y[0]
    y = np.column_stack([first, ~first, np.arange(len(first)) % 3 == 0]).astype(int)
    model = classifier(case, freeze_depth=1).fit(case.X, y)
    assert model.predict(case.X).shape == y.shape
    assert (model.predict(case.X)[:, :2] == y[:, :2]).mean() > 0.5


def test_activations_of_different_lengths_are_joined_with_nan_and_may_hold_none():
    long, short = torch.ones(3, 2), torch.zeros(1, 2)
    joined = join([long, short])
    assert joined.shape == (2, 3, 2)
    assert joined.isnan().sum() == 4
    assert joined[1, 1:].isnan().all()
    with pytest.raises(ValueError, match="frozen part of the network returned NaN for a sample"):
        join([long, torch.full((1, 2), torch.nan)])
