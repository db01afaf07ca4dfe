"""Models of sentence-transformers give the vectors that `encode` gives, or are refused by what is not done."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained_models import make_sentence_model

import sktransfer
from sktransfer import PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources._sentence_models import SentencePooling

TEXTS = ["good film and bad story", "a", "the film is great but long and dull and slow"]
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
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pools by .*weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pools by .*3"),
        ("1_Pooling/config.json", {"pooling_mode_mean_sqrt_len_tokens": True}, "pools by .*mean_sqrt_len_tokens"),
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
        ["Router"], ["Transformer", "Pooling", "Dense"], ["Transformer", "Pooling", "LayerNorm"], ["WordEmbeddings"],
        ["BoW"], ["Transformer", "CNN", "Pooling"], ["Transformer", "Pooling", "Normalize", "Normalize"],
        ["Transformer", "LSTM", "Pooling"], ["CLIPModel"], ["Transformer", "Transformer"],
    ],
    ids=str,
)  # fmt: skip
def test_other_lines_of_modules_are_refused(kinds, folder):
    line = [{"path": "", "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r"sentence vectors pass .*; expected Transformer, Pooling and Norm"):
        load_backbone(f"hf:{folder}")


@pytest.mark.parametrize("module", [3, "x", None, {}, {"type": 3}, {"path": "x"}])
def test_modules_without_a_type_are_refused(module, folder):
    (folder / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ValueError, match=r"modules.json lists .*; expected modules with a type"):
        load_backbone(f"hf:{folder}")


def test_a_sentence_pooling_is_told_from_another_by_all_of_its_settings():
    """Networks are shared by what is printed."""
    settings = [{}, {"normalize": True}, {"poolings": ["cls"]}, {"prompt": 2}, {"length": 3}]
    told = {repr(SentencePooling(**{"poolings": ["mean"], "normalize": False, **one})) for one in settings}
    assert len(told) == len(settings)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
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
