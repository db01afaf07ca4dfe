"""Models of sentence-transformers give the vectors that `encode` gives, or are refused by what is not done."""

import builtins
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive
from pretrained_models import add_sentence_layers, make_sentence_model
from safetensors.torch import load_file, save_file

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources._sentence_models import SentencePooling

TEXTS = ["good film and bad story", "a", "the film is great but long and dull and slow"]
IDENTITY = "torch.nn.modules.linear.Identity"
PROMPTS = {"prompts": {"query": "the story : ", "other": "x"}, "default_prompt_name": "query"}


def edit(file, **values):
    held = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**held, **values}))


@pytest.fixture
def folder(tmp_path):
    make_sentence_model(tmp_path / "model")
    return tmp_path / "model"


def features(folder, texts=TEXTS, **settings):
    return PretrainedFeatureExtractor(f"hf:{folder}", precision="float32", **settings).fit_transform(texts)


def test_the_prompt_that_is_used_by_default_is_put_in_front_of_each_text(folder):
    expected = features(folder, [f"the story : {text}" for text in TEXTS])
    edit(folder / "config_sentence_transformers.json", **PROMPTS)
    np.testing.assert_allclose(features(folder), expected, atol=1e-6)


def test_prompts_that_have_to_be_asked_for_change_nothing(folder):
    expected = features(folder)
    edit(folder / "config_sentence_transformers.json", prompts=PROMPTS["prompts"], default_prompt_name=None)
    np.testing.assert_array_equal(features(folder), expected)


def test_tokens_of_the_prompt_are_left_out_where_the_pooling_says_so(folder):
    edit(folder / "config_sentence_transformers.json", **PROMPTS)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:1]))
    hidden = load_backbone(f"hf:{folder}")
    reader = PretrainedFeatureExtractor(f"hf:{folder}").fit(TEXTS)._reader
    (folder / "modules.json").write_text(json.dumps(modules))
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)
    samples = reader.read(TEXTS)
    expected = []
    for row in range(len(TEXTS)):
        with torch.no_grad():
            tokens = hidden.split("all")[0](samples.load(row)[None])[0]
        expected.append(torch.nn.functional.normalize(tokens[4:].mean(0), dim=0))  # a mark, and three of the prompt
    np.testing.assert_allclose(features(folder), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("length", [1, 5, 100])
def test_vectors_are_cut_off_where_the_model_says_so(length, folder):
    expected = features(folder)[:, :length]
    edit(folder / "config_sentence_transformers.json", truncate_dim=length)
    np.testing.assert_array_equal(features(folder), expected)


def test_what_a_model_says_of_texts_is_saved_with_it(folder, tmp_path):
    edit(folder / "config_sentence_transformers.json", **PROMPTS, truncate_dim=5)
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)
    model = PretrainedFeatureExtractor(f"hf:{folder}").fit(TEXTS)
    expected = model.transform(TEXTS)
    sktransfer.save(model, tmp_path / "model.safetensors")
    shutil.rmtree(folder)
    np.testing.assert_allclose(sktransfer.load(tmp_path / "model.safetensors").transform(TEXTS), expected, atol=1e-6)


def test_the_network_may_be_in_a_folder_of_its_own(folder):
    expected = features(folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in list(folder.iterdir()):
        if file.is_file() and file.name != "modules.json":
            shutil.move(file, inner / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    np.testing.assert_array_equal(features(folder), expected)
    model = PretrainedFeatureExtractor(f"hf:{folder}", precision="float32", store_backbone=False).fit(TEXTS)
    path = folder.parent / "model.safetensors"
    sktransfer.save(model, path)
    sktransfer.clear_cache()
    np.testing.assert_array_equal(sktransfer.load(path).transform(TEXTS), expected)


@pytest.mark.parametrize(
    ("name", "values", "match"),
    [
        ("config_sentence_transformers.json", {"default_prompt_name": "none"}, "default_prompt_name: 'none'"),
        ("config_sentence_transformers.json", {"default_prompt_name": 3}, "default_prompt_name: 3"),
        ("config_sentence_transformers.json", {"default_prompt_name": "a", "prompts": []}, "default_prompt_name"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim: 0"),
        ("config_sentence_transformers.json", {"truncate_dim": True}, "truncate_dim: True"),
        ("config_sentence_transformers.json", {"truncate_dim": "8"}, "truncate_dim: '8'"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "a 'SparseEncoder' of sentence-trans"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pools by .*attention"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pools by .*3"),
        ("1_Pooling/config.json", {"pooling_mode_median_tokens": True}, "pools by .*median_tokens"),
        ("1_Pooling/config.json", {"include_prompt": "no"}, "include_prompt: 'no'"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length: 0"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "max_seq_length: True"),
        ("sentence_bert_config.json", {"max_seq_length": "12"}, "max_seq_length: '12'"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "texts of 2 tokens, 2 of them special"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case: 'yes'"),
        ("sentence_bert_config.json", {"model_args": {"num_hidden_layers": 1}}, "model_args: .*num_hidden_layers"),
        ("sentence_bert_config.json", {"config_kwargs": [1]}, "config_kwargs"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task: 'fill-mask'"),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "modality_config"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 3}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"processing_kwargs": [3]}, "processing_kwargs"),
    ],
)
def test_what_is_not_done_as_well_is_refused_by_name(name, values, match, folder):
    edit(folder / name, **values)
    with pytest.raises(ValueError, match=match) as caught:
        load_backbone(f"hf:{folder}")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("values", [{"max_seq_length": None}, {"model_args": {"torch_dtype": "float16"}}, {}])
def test_settings_that_change_no_vector_are_taken(values, folder):
    (folder / "sentence_bert_config.json").write_text(json.dumps(values))
    assert features(folder).shape == (3, 16)


@pytest.mark.parametrize(
    "kinds",
    [
        [], ["Pooling"], ["Transformer", "Normalize"], ["Transformer", "Normalize", "Pooling"], ["StaticEmbedding"],
        ["Router"], ["Transformer", "Dense"], ["Transformer", "Dense", "Pooling"], ["WordEmbeddings"],
        ["BoW"], ["Transformer", "CNN", "Pooling"], ["Transformer", "Pooling", "WeightedLayerPooling"],
        ["Transformer", "LSTM", "Pooling"], ["Asym"], ["CLIPModel"], ["Transformer", "Transformer"],
    ],
    ids=str,
)  # fmt: skip
def test_other_lines_of_modules_are_refused(kinds, folder):
    line = [{"path": "", "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r"sentence vectors pass .*; expected Transformer and Pooling, and") as caught:
        load_backbone(f"hf:{folder}")

    routed = kinds in (["Router"], ["Asym"])
    assert ("which sends queries and documents through networks of their own" in str(caught.value)) == routed


@pytest.mark.parametrize("module", [3, "x", None, {}, {"type": 3}, {"path": "x"}])
def test_modules_without_a_type_are_refused(module, folder):
    (folder / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ValueError, match=r"modules.json lists .*; expected modules with a type"):
        load_backbone(f"hf:{folder}")


def test_a_sentence_pooling_is_told_from_another_by_all_of_its_settings():
    """Networks are shared by what is printed."""
    dense = {"in_features": 4, "out_features": 3, "bias": True, "activation": "Tanh", "residual": False}
    changes = [{}, {"out_features": 5}, {"bias": False}, {"activation": "ReLU"}, {"residual": True}]
    layers = [[{"kind": "Dense", "path": "2_Dense", "settings": {**dense, **change}}] for change in changes]
    settings = [{}, {"normalize": True}, {"poolings": ["cls"]}, {"prompt": 2}, {"length": 3}]
    settings += [{"layers": one} for one in (*layers, [{"kind": "Normalize", "path": "", "settings": {}}])]
    told = {repr(SentencePooling(**{"poolings": ["mean"], "normalize": False, **one})) for one in settings}
    assert len(told) == len(settings)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last", "weightedmean", "mean_sqrt_len"])
@pytest.mark.parametrize("include", [True, False])
def test_vectors_are_those_of_sentence_transformers(pooling, include, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="the library that such models are made with")
    make_sentence_model(tmp_path, pooling)
    edit(tmp_path / "config_sentence_transformers.json", **PROMPTS, truncate_dim=7)
    edit(tmp_path / "1_Pooling" / "config.json", include_prompt=include)
    expected = library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(features(tmp_path), expected, atol=1e-5)


def test_models_are_read_as_the_library_writes_them_today(tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="the library that such models are made with")
    make_sentence_model(tmp_path / "old")
    edit(tmp_path / "old" / "config_sentence_transformers.json", **PROMPTS)
    model = library.SentenceTransformer(str(tmp_path / "old"), device="cpu")
    model.save(str(tmp_path / "new"))
    assert Path(tmp_path, "new", "modules.json").exists()
    np.testing.assert_allclose(features(tmp_path / "new"), model.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("new_names", [False, True], ids=["old names", "new names"])
def test_several_poolings_are_joined_in_the_order_of_the_library(new_names, folder):
    library = pytest.importorskip("sentence_transformers", reason="the library that such models are made with")
    old = ["pooling_mode_weightedmean_tokens", "pooling_mode_mean_tokens", "pooling_mode_max_tokens"]
    config = dict.fromkeys(old, True)
    if new_names:
        config = {"pooling_mode": ["weightedmean", "mean", "max"]}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **config}))
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(features(folder), expected, atol=1e-5)


# Layers behind the pooling

LINES = {
    "LaBSE": (["Dense", "Normalize"], {"out_features": 16}),
    "EmbeddingGemma": (["Dense", "Dense", "Normalize"], {"bias": False, "activation_function": IDENTITY}),
    "GELU": (["Dense"], {"activation_function": "torch.nn.modules.activation.GELU"}),
    "not said": (["Dense"], {"out_features": 3}),
    "narrow residual": (["Dense", "Normalize"], {"use_residual": True, "out_features": 16}),
    "wide residual": (["Dense"], {"use_residual": True}),
    "others": (["LayerNorm", "Dropout", "Normalize", "Dense", "Dropout"], {}),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_layers_behind_the_pooling_are_those_of_sentence_transformers(line, folder):
    library = pytest.importorskip("sentence_transformers", reason="the library that such models are made with")
    kinds, settings = LINES[line]
    add_sentence_layers(folder, *kinds, **({"width": 16} | settings))
    edit(folder / "config_sentence_transformers.json", **PROMPTS)
    model = library.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(features(folder), model.encode(TEXTS), atol=1e-5, rtol=1e-5)
    model.save(str(folder.parent / "new"))
    np.testing.assert_array_equal(features(folder.parent / "new"), features(folder))


@pytest.mark.parametrize("kind", rest_exhaustive(["gemma3_text", "t5", "mt5", "mpnet"], "gemma3_text"))
def test_networks_of_other_families_carry_them_too(kind, tmp_path):
    """As EmbeddingGemma and sentence-T5 do."""
    library = pytest.importorskip("sentence_transformers", reason="the library that such models are made with")
    make_sentence_model(tmp_path, kind=kind)
    add_sentence_layers(tmp_path, "Dense", "Dense", "Normalize", bias=False, activation_function=IDENTITY)
    edit(tmp_path / "config_sentence_transformers.json", **PROMPTS)
    expected = library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(features(tmp_path), expected, atol=1e-5)


def with_layers(folder):
    add_sentence_layers(folder, "Dense", "LayerNorm", "Normalize")
    return load_backbone(f"hf:{folder}")


def test_layers_with_weights_belong_to_the_last_block(folder):
    plain, backbone = load_backbone(f"hf:{folder}"), with_layers(folder)
    own = {"finish.layers.0.linear.weight", "finish.layers.0.linear.bias"}
    own |= {"finish.layers.1.norm.weight", "finish.layers.1.norm.bias"}
    assert set(backbone.blocks[-1].parameter_names) == set(plain.blocks[-1].parameter_names) | own
    assert backbone.frozen_names(len(plain.blocks) - 1).isdisjoint(own)
    assert own <= backbone.frozen_names("all")
    rows, before = backbone.summary().rows, plain.summary().rows
    assert rows[-1].n_parameters - before[-1].n_parameters == 16 * 20 + 20 + 20 + 20
    assert rows[-1].output_shape == (20,)
    assert [row.n_parameters for row in rows[:-1]] == [row.n_parameters for row in before[:-1]]
    x = backbone.preprocessing.example(None, 3)
    with torch.no_grad():
        whole = backbone.split("all")[0](x)
        for depth in range(len(backbone.blocks) + 1):
            prefix, suffix = backbone.split(depth)
            np.testing.assert_array_equal(suffix(prefix(x)), whole)


@pytest.mark.parametrize(("freeze_depth", "moves"), [("all", False), (3, True), (0, True)])
def test_layers_with_weights_are_tuned_with_the_last_block_and_frozen_with_it(freeze_depth, moves, folder, tmp_path):
    backbone = with_layers(folder)
    settings = {"max_epochs": 1, "random_state": 0, "strategy": "fine_tune", "store_backbone": False}
    settings |= {"lr": 1e-2} if moves else {}
    model = FineTunedClassifier(f"hf:{folder}", freeze_depth=freeze_depth, **settings)
    model.fit(TEXTS * 4, ["good", "bad", "good"] * 4)
    assert model.backbone_.fingerprint == load_backbone(f"hf:{folder}").fingerprint == backbone.fingerprint
    tail = model.net_.module_.tail
    moved = tail is not None and not torch.equal(
        tail.get_parameter("finish.layers.0.linear.weight"), backbone.network.finish.layers[0].linear.weight
    )
    assert moved == moves
    expected = model.predict_proba(TEXTS)
    sktransfer.save(model, tmp_path / "model.safetensors")
    sktransfer.clear_cache()
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.safetensors").predict_proba(TEXTS), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(TEXTS), expected)


def test_layers_with_weights_are_saved_with_a_model(folder, tmp_path):
    add_sentence_layers(folder, "Dense", "Normalize")
    model = PretrainedFeatureExtractor(f"hf:{folder}").fit(TEXTS)
    expected = model.transform(TEXTS)
    sktransfer.save(model, tmp_path / "model.safetensors")
    shutil.rmtree(folder)
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.safetensors").transform(TEXTS), expected)


def test_other_weights_of_a_layer_are_another_network_in_the_same_process(folder):
    add_sentence_layers(folder, "Dense")
    before, weights = features(folder), folder / "2_Dense" / "model.safetensors"
    state = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    weights.unlink()
    torch.save(state, folder / "2_Dense" / "pytorch_model.bin")
    assert not np.allclose(features(folder), before)


def test_weights_of_the_network_alone_leave_its_layers_as_they_are(folder, tmp_path):
    add_sentence_layers(folder, "Dense")
    shutil.copy(folder / "model.safetensors", tmp_path / "mine.safetensors")
    np.testing.assert_array_equal(features(folder, weights=tmp_path / "mine.safetensors"), features(folder))
    state = load_backbone(f"hf:{folder}").network.state_dict()
    state = {name: tensor + ("finish" in name) for name, tensor in state.items()}
    save_file(state, tmp_path / "tuned.safetensors")
    assert not np.allclose(features(folder, weights=tmp_path / "tuned.safetensors"), features(folder))
    random = [features(folder, weights=None, random_state=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(random[0], random[1])
    assert not np.allclose(random[0], random[2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_run_in_either_precision(precision, folder):
    add_sentence_layers(folder, "Dense", "Normalize")
    found = PretrainedFeatureExtractor(f"hf:{folder}", precision=precision).fit_transform(TEXTS)
    assert found.dtype == np.float32
    assert (found * features(folder)).sum(1).min() > 0.98


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"activation_function": "os.system"}, "activation_function: 'os.system'"),
        ({"activation_function": "torch.hub.load"}, "activation_function"),
        ({"activation_function": "torch.nn.modules.activation.MultiheadAttention"}, "activation_function"),
        ({"activation_function": None}, "activation_function: None"),
        ({"activation_function": 3}, "activation_function: 3"),
        ({"in_features": 7}, "a width of what goes in: 7"),
        ({"out_features": 10**12}, "out_features"),
        ({"out_features": 2**19, "in_features": 2**19}, "a width of what goes in"),
        ({"out_features": None}, "out_features: None"),
        ({"bias": "yes"}, "bias: 'yes'"),
        ({"bias": False}, "not those of its config.json .*linear.bias"),
        ({"out_features": 5}, "not those of its config.json .*linear.weight"),
        ({"use_residual": 1}, "use_residual: 1"),
        ({"use_residual": True}, "not those of its config.json .*residual.weight"),
        ({"module_input_name": "token_embeddings"}, "module_input_name"),
    ],
)
def test_a_layer_that_is_not_understood_is_refused_by_what_it_says(values, match, folder):
    add_sentence_layers(folder, "Dense")
    edit(folder / "2_Dense" / "config.json", **values)
    with pytest.raises(ValueError, match=match) as caught:
        load_backbone(f"hf:{folder}")
    assert len(str(caught.value)) < 600


def test_a_layer_without_weights_and_one_with_code_for_weights_are_refused(folder, tmp_path):
    add_sentence_layers(folder, "Dense")
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="the folder '2_Dense' has no weights"):
        load_backbone(f"hf:{folder}")
    torch.save({"linear.weight": Boom(tmp_path / "ran")}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="it holds more than tensors"):
        load_backbone(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


class Boom:
    """Pickled, this runs code when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return builtins.open, (self.path, "w")


@pytest.mark.parametrize("name", ["0_Transformer", "0_BERT"])
def test_old_layouts_have_the_network_in_a_folder_of_its_own(name, folder):
    add_sentence_layers(folder, "Dense", "Normalize")
    expected = features(folder)
    inner = folder / name
    inner.mkdir()
    kept = ("modules.json", "config_sentence_transformers.json", "README.md")
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in kept:
            shutil.move(file, inner / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0] |= {"path": name, "type": f"sentence_transformers.models.{name.partition('_')[2]}"}
    (folder / "modules.json").write_text(json.dumps(modules))
    np.testing.assert_array_equal(features(folder), expected)
