"""Whatever the files of a model say, they are read as data within bounds, and answered by a sentence."""

import builtins
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from networks import rest_exhaustive
from pretrained_models import make_sentence_model, make_sound_model, make_text_model
from safetensors.torch import load_file, save_file

import sktransfer
from sktransfer import PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources import _hub_architectures

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
CONTENTS = {
    "empty": b"",
    "a list": b"[1, 2]",
    "a string": b'"text"',
    "null": b"null",
    "a number": b"7",
    "not JSON": b"{'model_type': 'bert'}",
    "not UTF-8": '{"a": "é"}'.encode("latin-1"),
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "a pointer": POINTER,
}
TEXT_FILES = [
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "model.safetensors.index.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_sentence_model(folder / "sentences")
    make_text_model("bert", folder / "texts")
    make_sound_model("wav2vec2", folder / "sounds")
    return folder


@pytest.fixture
def sentences(made, tmp_path):
    return Path(shutil.copytree(made / "sentences", tmp_path / "model"))


@pytest.fixture
def bert(made, tmp_path):
    return Path(shutil.copytree(made / "texts", tmp_path / "model"))


@pytest.fixture
def wav2vec2(made, tmp_path):
    return Path(shutil.copytree(made / "sounds", tmp_path / "model"))


def edit(file, **values):
    held = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**held, **values}))


def refusal(folder, weights="DEFAULT", error=ValueError):
    with pytest.raises(error) as caught:
        load_backbone(f"hf:{folder}", weights)
    said = str(caught.value)
    assert len(said) < 600
    assert "huggingface.co" not in said
    return said


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_file_that_says_nothing_sensible_is_named(name, content, sentences):
    if name.endswith("index.json"):
        (sentences / "model.safetensors").unlink()
    if content == "a list" and name == "modules.json":
        pytest.skip("a list is what it has to be")
    (sentences / name).write_bytes(CONTENTS[content])
    said = refusal(sentences)
    assert name in said
    assert "expected" in said.lower()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_file_of_a_feature_extractor_that_says_nothing_sensible_is_named(name, content, wav2vec2):
    (wav2vec2 / name).write_bytes(CONTENTS[content])
    assert name in refusal(wav2vec2)


def test_a_file_of_settings_that_is_far_too_long_is_not_read(bert):
    with (bert / "config.json").open("r+b") as file:
        file.truncate(10 * 2**30)  # takes no room on the disk
    assert "config.json has more than 32 MiB" in refusal(bert)


def test_weights_that_git_left_out_are_told_from_damaged_ones(bert):
    (bert / "model.safetensors").write_bytes(POINTER)
    assert "model.safetensors is a Git LFS pointer" in refusal(bert)
    assert "git lfs pull" in refusal(bert)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_hidden_layers": 200_000},
        {"num_hidden_layers": 10**12},
        {"hidden_size": 0},
        {"hidden_size": -16},
        {"hidden_size": 65_536, "intermediate_size": 65_536},
        {"num_attention_heads": 7},
        {"num_attention_heads": 0},
        {"vocab_size": 10**9},
        {"vocab_size": 10**12},
        {"vocab_size": 10**30},
        {"vocab_size": "many"},
        {"vocab_size": None},
        {"vocab_size": 0},
        {"max_position_embeddings": 10**9},
        {"max_position_embeddings": 2},
        {"hidden_act": "no such"},
        {"hidden_act": ["gelu"]},
        {"layer_norm_eps": "small"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"model_type": "no_such_type"},
        {"model_type": ["bert"]},
        pytest.param({"num_hidden_layers": 99_999}, marks=pytest.mark.exhaustive),
        {"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]},
    ],
    ids=str,
)
def test_sizes_that_no_network_has_are_refused_before_memory_is_taken(settings, bert):
    edit(bert / "config.json", **settings)
    said = refusal(bert)
    assert "Got backbone=" in said


def test_a_network_of_far_too_many_modules_is_not_put_together(bert, monkeypatch):
    monkeypatch.setattr(_hub_architectures, "_MOST_MODULES", 20)
    assert "more than 20 modules" in refusal(bert)


def test_a_network_that_this_machine_cannot_hold_is_refused(bert, monkeypatch):
    monkeypatch.setattr(_hub_architectures.os, "sysconf", lambda name: 100)
    assert "GiB of memory of this machine" in refusal(bert, weights=None)


def test_a_description_far_larger_than_the_weights_is_refused(bert, tmp_path):
    weights = shutil.copy(bert / "model.safetensors", tmp_path / "mine.safetensors")
    edit(bert / "config.json", hidden_size=2048, intermediate_size=8192)
    assert "whose description claims" in refusal(bert)
    assert "whose description claims" in refusal(bert, weights)


def test_settings_that_are_carry_the_names_of_methods_change_nothing(bert):
    edit(bert / "config.json", to_diff_dict="x", get_text_config=1, sub_configs=None, return_dict=False, dtype="load")
    assert len(load_backbone(f"hf:{bert}").blocks) == 4


def test_an_adapter_without_its_network_is_told_to_be_merged(bert):
    (bert / "config.json").unlink()
    (bert / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/one"}))
    assert "merge_and_unload" in refusal(bert)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b", 7, "C:\\x", None])
def test_modules_outside_of_the_folder_are_not_looked_at(path, sentences):
    modules = json.loads((sentences / "modules.json").read_text())
    modules[1]["path"] = path
    (sentences / "modules.json").write_text(json.dumps(modules))
    assert "expected a folder inside" in refusal(sentences)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": {}}, {"weight_map": {"a": "../other.safetensors"}}, {"weight_map": {"a": 7}}]
)
def test_parts_of_weights_are_files_beside_their_index(index, bert):
    (bert / "model.safetensors").rename(bert.parent / "other.safetensors")
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json lists" in refusal(bert)


def test_weights_in_parts_are_put_together(bert):
    whole = load_backbone(f"hf:{bert}").fingerprint
    state = load_file(bert / "model.safetensors")
    names = sorted(state)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: state[name] for name in held}, bert / part)
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    (bert / "model.safetensors").unlink()
    assert load_backbone(f"hf:{bert}").fingerprint == whole
    (bert / "two.safetensors").unlink()
    assert "lacks 'two.safetensors'" in refusal(bert)


@pytest.mark.parametrize("place", ["~nosuchuser/x", "/nowhere", "./nowhere", "nowhere/", "a/b/c"])
def test_folders_that_are_not_there_are_told(place):
    refusal(place, error=FileNotFoundError)


def test_a_file_in_place_of_a_folder_is_told(bert):
    assert "which is not a folder" in refusal(bert / "config.json")


# Code and other places


@contextlib.contextmanager
def watched(folder):
    """Fail where something is asked, connected to, run, or opened that belongs to nobody here."""
    seen = []

    def hook(event, arguments):
        if not seen or seen[0] != "on":
            return
        if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "builtins.input"):
            seen.append((event, str(arguments)[:100]))
        if event == "open" and isinstance(arguments[0], str) and "elsewhere" in arguments[0]:
            seen.append((event, arguments[0]))
        if (
            event in ("open", "import", "compile")
            and str(arguments[0]).endswith(".py")
            and str(folder) in str(arguments)
        ):
            seen.append((event, str(arguments)[:100]))

    sys.addaudithook(hook)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)}
    environment, path = dict(os.environ), list(sys.path)
    seen.append("on")
    try:
        yield
    finally:
        seen[0] = "off"
    assert seen[1:] == []
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert dict(os.environ) == environment
    assert sys.path == path


def no_answer(*_):
    raise AssertionError("asked a question")


CLASSES = dict.fromkeys(("AutoConfig", "AutoModel", "AutoFeatureExtractor", "AutoProcessor"), "code.Model")
MAP = {**CLASSES, "AutoTokenizer": ["code.Model", "code.Model"]}
CRAFTED = {
    "an unknown type": ("config.json", {"model_type": "new", "auto_map": MAP}),
    "a type of no plain network": ("config.json", {"model_type": "blip_text_model", "auto_map": MAP}),
    "a known type": ("config.json", {"auto_map": MAP}),
    "another's code": ("config.json", {"model_type": "clap_text_model", "auto_map": {"AutoModel": "o/r--c.M"}}),
    "parts": (
        "config.json",
        {"model_type": "encoder-decoder", "encoder": {"model_type": "new", "auto_map": MAP}, "auto_map": MAP},
    ),
    "a part of a network for texts": ("config.json", {"text_config": {"model_type": "new", "auto_map": MAP}}),
    "attention of a repository": ("config.json", {"attn_implementation": "org/repo:f"}),
    "private attention of a repository": ("config.json", {"_attn_implementation": "org/repo"}),
    "internal attention of a repository": ("config.json", {"_attn_implementation_internal": "org/repo"}),
    "experts of a repository": ("config.json", {"_experts_implementation": "org/repo", "use_kernels": True}),
    "another name": ("config.json", {"_name_or_path": "org/repo", "name_or_path": "org/repo"}),
    "other weights": ("config.json", {"transformers_weights": "../elsewhere/model.safetensors"}),
    "a processor for a tokenizer": ("config.json", {"tokenizer_class": "AutoProcessor", "auto_map": MAP}),
    "another network": ("config.json", {"model_type": "dpt", "backbone": "o/r", "use_pretrained_backbone": True}),
    "a tokenizer's code": ("tokenizer_config.json", {"tokenizer_class": "NewTokenizer", "auto_map": MAP}),
    "an old tokenizer's code": ("tokenizer_config.json", {"auto_map": ["code.Model", "code.Model"]}),
    "a network for a tokenizer": ("tokenizer_config.json", {"tokenizer_class": "AutoModel", "auto_map": MAP}),
    "a chooser for a tokenizer": ("tokenizer_config.json", {"tokenizer_class": "AutoTokenizer", "auto_map": MAP}),
    "a pipeline for a tokenizer": ("tokenizer_config.json", {"tokenizer_class": "pipeline"}),
    "another vocabulary": ("tokenizer_config.json", {"vocab_file": "elsewhere/v.txt", "tokenizer_file": "elsewhere/t"}),
    "other vocabularies": ("tokenizer_config.json", {"vocab": "elsewhere/v.txt", "merges": "elsewhere/m.txt"}),
    "another whole tokenizer": ("tokenizer_config.json", {"fast_tokenizer_files": ["../elsewhere/tokenizer.4.0.json"]}),
    "a tokenizer in a file of weights": ("tokenizer_config.json", {"gguf_file": "elsewhere/x.gguf"}),
    "trust": ("tokenizer_config.json", {"trust_remote_code": True, "auto_map": MAP}),
    "arguments": ("tokenizer_config.json", {"init_inputs": ["elsewhere/v.txt"]}),
    "tokens that are files": ("special_tokens_map.json", {"vocab_file": "elsewhere/v.txt"}),
    "an adapter": ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "../elsewhere"}),
    "how to generate": ("generation_config.json", {"custom_generate": "org/repo"}),
    "a module": ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "code.Model"}]),
    "arguments of a network": ("sentence_bert_config.json", {"model_args": {"trust_remote_code": True}}),
}  # fmt: skip


@pytest.mark.parametrize("crafted", rest_exhaustive(CRAFTED, *list(CRAFTED)[::3]))
@pytest.mark.parametrize("weights", rest_exhaustive(["DEFAULT", None], "DEFAULT"))
def test_nothing_runs_asks_connects_or_looks_elsewhere(crafted, weights, bert, monkeypatch):
    monkeypatch.setattr(builtins, "input", no_answer)
    monkeypatch.setattr(signal, "signal", no_answer)
    monkeypatch.setattr(socket.socket, "connect", no_answer)
    ran = bert.parent / "ran"
    (bert / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model:\n    pass\n")
    (bert.parent / "elsewhere").mkdir()
    for name in ("v.txt", "m.txt", "t", "tokenizer.4.0.json"):
        (bert.parent / "elsewhere" / name).write_text("[UNK]\n")
    name, values = CRAFTED[crafted]
    if isinstance(values, list):
        (bert / name).write_text(json.dumps(values))
    else:
        edit(bert / name, **values)
    monkeypatch.chdir(bert.parent)
    with watched(bert), contextlib.suppress(ValueError):
        PretrainedFeatureExtractor(f"hf:{bert}", weights=weights).fit(["good film", "bad story"])
    assert not ran.exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("values", [values for name, values in CRAFTED.values() if name == "config.json"], ids=list)
def test_a_saved_model_runs_no_code_of_its_description_either(values, bert, monkeypatch, tmp_path):
    monkeypatch.setattr(builtins, "input", no_answer)
    model = PretrainedFeatureExtractor(f"hf:{bert}", weights=None).fit(["good film", "bad story"])
    source = model.backbone_._source
    object.__setattr__(source, "config", {**source.config, **values})
    sktransfer.save(model, tmp_path / "model.safetensors")
    ran = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    with watched(tmp_path), contextlib.suppress(ValueError):
        sktransfer.load(tmp_path / "model.safetensors").transform(["good"])
    assert not ran.exists()


# Kinds of networks


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("clip", 'expected tower="image" or tower="text"'),
        ("siglip", 'expected tower="image" or tower="text"'),
        ("blip", 'expected tower="image" or tower="text"'),
        ("clap", "takes input_ids and input_features together"),
        ("clip_text_model", "expected a network|claims|cannot be loaded|without a tokenizer|whose tokenizer knows"),
        ("vit", "without an image processor"),
        ("dinov2", "without an image processor"),
        ("videomae", "without an image processor"),
        ("timm_wrapper", 'backbone="timm:NAME"'),
        ("encoder-decoder", "transformers makes no plain network"),
        ("patchtst", "which takes 'past_values'"),
    ],
)
def test_networks_that_are_not_for_samples_of_one_kind_are_told_apart(kind, match, bert):
    (bert / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ValueError, match=match) as caught:
        load_backbone(f"hf:{bert}")
    assert len(str(caught.value)) < 600


def test_all_kinds_that_the_library_knows_are_answered_by_a_sentence(tmp_path):
    """Those that may be built come to nothing for want of weights and a tokenizer."""
    from transformers import CONFIG_MAPPING

    unclear = {}
    for kind in list(CONFIG_MAPPING.keys())[::23]:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        try:
            load_backbone(f"hf:{tmp_path}")
        except ValueError as error:
            if len(str(error)) >= 600 or not str(error).startswith("Got "):
                unclear[kind] = str(error)
    assert unclear == {}


# A folder that changes


def to_lower(folder):
    edit(folder / "sentence_bert_config.json", do_lower_case=True)


def fewer_tokens(folder):
    edit(folder / "sentence_bert_config.json", max_seq_length=5)


def fewer_tokens_of_the_tokenizer(folder):
    edit(folder / "tokenizer_config.json", model_max_length=5)


def class_token(folder):
    edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)


def without_modules(folder):
    (folder / "modules.json").unlink()


def without_normalize(folder):
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))


def a_prompt(folder):
    edit(folder / "config_sentence_transformers.json", prompts={"a": "good "}, default_prompt_name="a")


def shorter_vectors(folder):
    edit(folder / "config_sentence_transformers.json", truncate_dim=3)


def other_activation(folder):
    edit(folder / "config.json", hidden_act="relu")


def other_vocabulary(folder):
    held = json.loads((folder / "tokenizer.json").read_text())
    words = held["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    (folder / "tokenizer.json").write_text(json.dumps(held))


def a_token_more(folder):
    held = json.loads((folder / "tokenizer.json").read_text())
    held["model"]["vocab"].pop("story")
    held["added_tokens"].append({**held["added_tokens"][0], "id": 9, "content": "good bad"})
    (folder / "tokenizer.json").write_text(json.dumps(held))


def weights_in_place(folder):
    """Of the same size, by the same name, with the same date."""
    file = folder / "model.safetensors"
    dates, held = file.stat(), bytearray(file.read_bytes())
    start = 8 + int.from_bytes(held[:8], "little")
    held[start:] = held[start + 64 :] + held[start : start + 64]
    with file.open("r+b") as opened:
        opened.write(held)
    os.utime(file, ns=(dates.st_atime_ns, dates.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    rest_exhaustive([
        to_lower, fewer_tokens, fewer_tokens_of_the_tokenizer, class_token, without_modules, without_normalize,
        a_prompt, shorter_vectors, other_activation, other_vocabulary, a_token_more, weights_in_place,
    ], to_lower, a_prompt, without_modules),
)  # fmt: skip
def test_an_edited_folder_is_another_network_in_the_same_process(change, sentences):
    texts = ["good film and bad story of the film", "GREAT", "good bad"]

    def features():
        model = PretrainedFeatureExtractor(f"hf:{sentences}", precision="float32", feature_cache=None)
        return torch.from_numpy(model.fit_transform(texts))

    before = features()
    change(sentences)
    found = features()
    sktransfer.clear_cache()
    expected = features()
    torch.testing.assert_close(found, expected)
    changed = before.shape != expected.shape or not torch.allclose(before, expected)
    assert changed or change is to_lower  # this tokenizer makes texts lower case already


def test_a_loaded_network_does_not_change_with_its_file(bert):
    backbone = load_backbone(f"hf:{bert}")
    state = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    size = (bert / "model.safetensors").stat().st_size
    with (bert / "model.safetensors").open("r+b") as file:
        file.seek(size - 4096)
        file.write(bytes(4096))
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_link_that_is_turned_to_another_folder_is_another_network(made, tmp_path):
    make_text_model("bert", tmp_path / "other", hidden_act="relu", num_hidden_layers=2)
    link = tmp_path / "link"
    link.symlink_to(made / "texts")
    assert len(load_backbone(f"hf:{link}").blocks) == 4
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert len(load_backbone(f"hf:{link}").blocks) == 3


def test_a_relative_folder_is_where_the_process_is(made, tmp_path, monkeypatch):
    shutil.copytree(made / "texts", tmp_path / "one" / "model")
    make_text_model("bert", tmp_path / "two" / "model", type_vocab_size=3)
    monkeypatch.chdir(tmp_path / "one")
    one = load_backbone("hf:./model").fingerprint
    monkeypatch.chdir(tmp_path / "two")
    assert load_backbone("hf:./model").fingerprint != one
    monkeypatch.setenv("HOME", str(tmp_path / "one"))
    assert load_backbone("hf:~/model").fingerprint == one
