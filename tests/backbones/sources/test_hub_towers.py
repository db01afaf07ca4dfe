"""Networks for texts beside networks for pictures: the vector that the library gives, of texts as it prepares them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive
from pretrained_models import TEXT_TOWERS, make_texts, make_tokenizer, make_two_towers
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoTokenizer

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, clear_cache
from sktransfer.backbones import UntraceableError, load_backbone
from sktransfer.backbones.sources._hub_towers import compares_pooled_vectors, reads_padding
from sktransfer.inputs import TextPreprocessing, make_reader

FILLED = ("siglip", "siglip2")
# Families whose vector a module behind the last hidden states makes, and its name.
WITH_MODULE = {"siglip": "head", "siglip2": "head", "blip": "pooler"}
# Families that have a pooler, and compare texts with pictures by the first of the last hidden states.
POOLER_UNUSED = ("align", "flava")
TEXTS = ["a good film", "dull", "the story was not good and it was very long"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return the folder of a family's tiny network, made when first asked for."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = make_two_towers(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture
def copy_of(folder_of, tmp_path):
    """Return a copy of a family's folder that a test may spoil."""
    return lambda kind: Path(shutil.copytree(folder_of(kind).removeprefix("hf:"), tmp_path / kind))


def library(folder, kind):
    """Return the library's own network for texts, and tokens of texts as its authors say how to call the tokenizer."""
    place = str(folder).removeprefix("hf:")
    tokenizer = AutoTokenizer.from_pretrained(place)
    how = {"padding": "max_length", "truncation": True} if kind in FILLED else {"truncation": True}
    tokens = [tokenizer(text, return_tensors="pt", **how)["input_ids"] for text in TEXTS]
    return AutoModel.from_pretrained(place, dtype=torch.float32).eval().text_model, tokens


@pytest.mark.parametrize("kind", rest_exhaustive(list(TEXT_TOWERS), "siglip", "blip"))
def test_each_family_gives_the_vector_of_the_library_at_every_cut(kind, folder_of):
    backbone = load_backbone(folder_of(kind), tower="text")
    network, tokens = library(folder_of(kind), kind)
    samples = make_reader("texts", backbone.preprocessing).read(TEXTS)
    assert len(backbone.blocks) == 3
    with torch.no_grad():
        for row, expected_tokens in enumerate(tokens):
            x = samples.load(row)[None]
            assert torch.equal(x, expected_tokens)
            output = network(input_ids=expected_tokens)
            expected = output.pooler_output
            if expected is None or kind in POOLER_UNUSED:
                expected = output.last_hidden_state[:, 0]
            for depth in range(len(backbone.blocks) + 1):
                prefix, suffix = backbone.split(depth)
                assert torch.equal(suffix(prefix(x)), expected), (TEXTS[row], depth)
    at_end = {name.partition(".")[0] for name in backbone.blocks[-1].parameter_names}
    assert (WITH_MODULE.get(kind, "head") in at_end) == (kind in WITH_MODULE)
    assert ("pooler_output" in str(backbone.summary())) == (kind in WITH_MODULE)


@pytest.mark.parametrize("kind", [*POOLER_UNUSED, "blip", "siglip"])
def test_a_pooler_counts_where_texts_are_compared_with_pictures_by_it(kind, folder_of):
    place = folder_of(kind).removeprefix("hf:")
    whole = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in whole.text_model.get_submodule(WITH_MODULE.get(kind, "pooler")).parameters():
            parameter.fill_(0.5)
    changed = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    tokens = library(folder_of(kind), kind)[1][0]
    features = [network.get_text_features(input_ids=tokens).pooler_output for network in (whole, changed)]
    assert torch.equal(*features) == (kind in POOLER_UNUSED)
    assert compares_pooled_vectors(_on_paper(place), "text") == (kind not in POOLER_UNUSED)


def _on_paper(place):
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.from_pretrained(place))


def test_several_texts_at_once_give_what_each_gives(folder_of):
    backbone = load_backbone(folder_of("siglip"), tower="text")
    network, tokens = library(folder_of("siglip"), "siglip")
    with torch.no_grad():
        found = backbone.split("all")[0](torch.cat(tokens))
        assert torch.equal(found, network(input_ids=torch.cat(tokens)).pooler_output)


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_are_filled_up_as_the_tokenizer_of_the_model_does(side, copy_of):
    folder = copy_of("siglip")
    make_tokenizer(folder, padding_side=side, pad_token="[MASK]", model_max_length=10**30)
    backbone = load_backbone(f"hf:{folder}", tower="text")
    assert (backbone.preprocessing.max_length, backbone.preprocessing.pad_token) == (24, 4)
    expected = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=24)["input_ids"]
    samples = make_reader("texts", backbone.preprocessing).read(TEXTS)
    assert [samples.load(row).tolist() for row in range(3)] == expected
    long = make_reader("texts", backbone.preprocessing, max_length=6).read([" ".join(TEXTS)]).load(0).tolist()
    words = long[:6] if side == "right" else long[-6:]
    assert len(long) == 24
    assert long.count(4) == 18
    assert words[-1] == 3
    shorter = load_backbone(f"hf:{folder}", weights=None, tower="text")
    assert shorter.preprocessing == backbone.preprocessing


def test_another_padding_is_another_network(copy_of):
    folder, known = copy_of("siglip"), []
    for pad in ("[PAD]", "[MASK]"):
        make_tokenizer(folder, pad_token=pad)
        model = PretrainedFeatureExtractor(f"hf:{folder}", tower="text", precision="float32").fit(TEXTS)
        known.append(model.transform(TEXTS))
    assert np.abs(known[0] - known[1]).max() > 1e-3


def test_estimators_give_the_vectors_of_the_library_however_they_come_by_them(folder_of, tmp_path):
    folder = folder_of("siglip")
    network, tokens = library(folder, "siglip")
    with torch.no_grad():
        expected = np.concatenate([network(input_ids=one).pooler_output for one in tokens])
    how = {"precision": "float32", "feature_cache": str(tmp_path / "cache")}
    model = PretrainedFeatureExtractor(folder, **how).fit(TEXTS)  # X says which network
    first = model.transform(TEXTS)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    clear_cache()
    np.testing.assert_array_equal(model.transform(TEXTS), first)
    sktransfer.save(model, tmp_path / "model.skt")
    again = sktransfer.load(tmp_path / "model.skt")
    assert again.backbone_.preprocessing == model.backbone_.preprocessing
    again.set_params(feature_cache=None)
    np.testing.assert_allclose(again.transform(TEXTS), expected, atol=1e-5)


def test_a_row_without_a_text_stands_beside_texts_of_the_one_length(folder_of):
    model = PretrainedFeatureExtractor(folder_of("siglip"), on_bad_sample="nan", precision="float32").fit(TEXTS)
    with pytest.warns(UserWarning, match="1 of 4 samples could not be read"):
        found = model.transform([TEXTS[0], None, *TEXTS[1:]])
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(np.delete(found, 1, axis=0), model.transform(TEXTS), atol=1e-6)


def test_records_of_texts_that_earlier_versions_wrote_say_nothing_of_padding():
    record = TextPreprocessing("{}", 20, 29).record
    assert TextPreprocessing.from_record({k: v for k, v in record.items() if not k.startswith("pad")}).pad_token is None


@pytest.mark.exhaustive
def test_onnx_takes_texts_of_the_one_length(folder_of, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = PretrainedFeatureExtractor(folder_of("siglip"), precision="float32").fit(TEXTS)
    model.to_onnx(tmp_path / "model.onnx")
    said = json.loads((tmp_path / "model.onnx.json").read_text())
    assert said["input"]["shape"] == ["batch", 20]
    assert said["preprocessing"]["pad_token"] == 0
    _, tokens = library(folder_of("siglip"), "siglip")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: torch.cat(tokens).numpy()})
    np.testing.assert_allclose(found, model.transform(TEXTS), atol=1e-4)


# What is trained and filled


@pytest.mark.parametrize("kind", rest_exhaustive(["siglip", "blip"], "siglip"))
@pytest.mark.parametrize("trainable", rest_exhaustive(["all", "lora", "bias"], "all"))
def test_the_module_behind_the_hidden_states_is_tuned_with_the_last_block(kind, trainable, folder_of, tmp_path):
    if trainable == "lora":
        pytest.importorskip("peft")
    texts, y = make_texts(24)
    before = load_backbone(folder_of(kind), tower="text").network.state_dict()
    how = {"max_epochs": 1, "lr": 1e-2, "random_state": 0, "strategy": "fine_tune", "precision": "float32"}
    model = FineTunedClassifier(folder_of(kind), freeze_depth=2, tower="text", trainable=trainable, **how).fit(texts, y)
    model.save_backbone(tmp_path / "tuned.safetensors")
    after = load_file(tmp_path / "tuned.safetensors")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith(f"{WITH_MODULE[kind]}.") for name in moved)
    frozen = load_backbone(folder_of(kind), tower="text").blocks[:2]
    assert not moved & {name for block in frozen for name in block.parameter_names}
    tuned = load_backbone(folder_of(kind), tmp_path / "tuned.safetensors", tower="text")
    assert all(torch.equal(tensor, after[name]) for name, tensor in tuned.network.state_dict().items() if name in after)


@pytest.mark.parametrize("kind", rest_exhaustive(list(WITH_MODULE), "siglip"))
def test_weights_come_from_files_of_both_networks_or_of_one(kind, folder_of, tmp_path):
    place = folder_of(kind).removeprefix("hf:")
    state = {name: tensor * 2 for name, tensor in load_file(f"{place}/model.safetensors").items()}
    save_file(state, tmp_path / "both.safetensors")
    usual = load_backbone(folder_of(kind), tower="text")
    with pytest.warns(UserWarning, match="Left out of"):
        backbone = load_backbone(folder_of(kind), tmp_path / "both.safetensors", tower="text")
    doubled, used = backbone.network.state_dict(), {name for one in usual.blocks for name in one.parameter_names}
    for name, tensor in usual.network.state_dict().items():
        if name in used:
            assert torch.equal(doubled[name], tensor * 2), name
    save_file(doubled, tmp_path / "one.safetensors")
    again = load_backbone(folder_of(kind), tmp_path / "one.safetensors", tower="text")
    assert again.fingerprint == backbone.fingerprint


def test_weights_without_the_module_that_makes_the_vector_are_refused(copy_of, tmp_path):
    folder = copy_of("siglip")
    state = load_file(folder / "model.safetensors")
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("text_model.head.")}
    save_file(rest, tmp_path / "headless.safetensors")
    with pytest.raises(ValueError, match=r"head\.(weight|bias)"):
        load_backbone(f"hf:{folder}", tmp_path / "headless.safetensors", tower="text")
    save_file(rest, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lack 2 tensors of the network \(head\.bias, head\.weight\)"):
        load_backbone(f"hf:{folder}", tower="text")


# Tokenizers of which the library has none that runs tokenizer.json, as of SigLIP


@pytest.mark.parametrize("named", [True, False])
def test_tokenizer_json_is_read_whatever_else_is_installed(named, folder_of, copy_of):
    folder = copy_of("siglip")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {**settings, "tokenizer_class": "SiglipTokenizer"}
    if not named:
        del settings["tokenizer_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    record = load_backbone(f"hf:{folder}", tower="text").preprocessing
    assert record.encode(TEXTS, 20) == load_backbone(folder_of("siglip"), tower="text").preprocessing.encode(TEXTS, 20)


def test_tokenizer_json_must_find_the_tokens_of_the_named_tokenizer(copy_of):
    folder = copy_of("siglip")
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(known, key=known.__getitem__)))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "EsmTokenizer", "eos_token": "[SEP]"}  # which splits words otherwise
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="finds other tokens in a text than its own tokenizer \\(EsmTokenizer"):
        load_backbone(f"hf:{folder}", tower="text")


# What is refused


@pytest.mark.parametrize("kind", rest_exhaustive(["tipsv2", "owlvit"], "tipsv2"))
def test_vectors_that_cannot_be_repeated_are_refused_and_the_other_network_is_named(kind, tmp_path):
    folder = make_two_towers(kind, tmp_path)
    make_tokenizer(tmp_path)  # whose closing mark is not the token of the largest number, which OWL-ViT takes
    with pytest.raises(UntraceableError, match=r'cannot repeat; expected .* Use .* pictures \(tower="image"\)'):
        load_backbone(folder, tower="text")


def test_a_network_that_reads_padding_needs_a_padding_token(copy_of):
    folder = copy_of("siglip")
    make_tokenizer(folder, pad_token=None)
    with pytest.raises(ValueError, match=r"has pad_token_id=None; expected a padding token .* tower=\"image\""):
        load_backbone(f"hf:{folder}", tower="text")


@pytest.mark.parametrize(
    ("tower", "file", "match"),
    [
        (
            "text",
            "tokenizer.json",
            r'without a tokenizer.* For pictures, this model has another network: tower="image"',
        ),
        ("image", "preprocessor_config.json", r'processor.* For texts, this model has another network: tower="text"'),
    ],
)
def test_what_one_network_lacks_says_how_the_other_is_loaded(tower, file, match, copy_of):
    folder = copy_of("clip")
    (folder / file).unlink()
    with pytest.raises(ValueError, match=match):
        load_backbone(f"hf:{folder}", tower=tower)
    other = {"text": "image", "image": "text"}[tower]
    assert load_backbone(f"hf:{folder}", tower=other).preprocessing.kind == f"{other}s"


def test_pictures_of_any_size_are_refused_where_texts_are_taken(copy_of):
    folder = copy_of("siglip2")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Siglip2ImageProcessor"}))
    with pytest.raises(ValueError, match=r'image processor.* For texts, .* tower="text"'):
        load_backbone(f"hf:{folder}", tower="image")


def test_only_networks_that_there_are_are_offered(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    for tower in ("auto", "text"):
        with pytest.raises(ValueError, match=rf"tower='{tower}'; expected tower=\"image\"\. Set it\."):
            load_backbone(f"hf:{tmp_path}", tower=tower)


# How it is seen that padding is read


@pytest.mark.parametrize(
    "kind", rest_exhaustive(["siglip", "siglip2", "clip", "blip", "owlvit", "altclip"], "siglip", "clip")
)
def test_networks_that_read_padding_are_told_on_paper(kind):
    with torch.device("meta"):
        network = AutoModel.from_config(CONFIG_MAPPING[kind]()).text_model
    assert reads_padding(network) == (kind in FILLED)
