"""What layers hand on besides hidden states: taken where it depends on the number of positions alone, else refused."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from networks import rest_exhaustive
from pretrained_models import make_sound_model, make_text_model, make_texts
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import UntraceableError, load_backbone
from sktransfer.backbones.graphs import _layer_relays
from sktransfer.backbones.graphs._entries import Tokens
from sktransfer.backbones.graphs._layer_check import check
from sktransfer.backbones.graphs._layer_graph import LayerGraph
from sktransfer.inputs import TextPreprocessing

HANDING_ON = ["t5", "mt5", "wavlm"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    def folder(kind, **settings):
        make = make_sound_model if kind == "wavlm" else make_text_model
        return make(kind, tmp_path_factory.mktemp(kind), **settings)

    return folder


def samples_of(kind, backbone):
    if kind == "wavlm":
        return backbone.preprocessing.example(None, 3)
    x = torch.randint(5, 25, (4, 9), generator=torch.Generator().manual_seed(0))
    x[1, 4:] = x[2, 8:] = x[3, 1:] = -1
    return x


@pytest.mark.parametrize("kind", HANDING_ON)
def test_every_cut_gives_the_bits_of_the_library(kind, folder_of):
    from transformers import AutoModel

    name = folder_of(kind)
    backbone = load_backbone(name)
    assert len(backbone.blocks) == 4
    network = AutoModel.from_pretrained(name.removeprefix("hf:"), dtype=torch.float32).eval()
    x = samples_of(kind, backbone)
    with torch.no_grad():
        for rows in (x, x[:1], x[:2]):
            if kind == "wavlm":
                expected, there = network(rows[:, 0]).last_hidden_state[:, None], slice(None)
            else:
                there = rows >= 0
                network = network.get_encoder() if network.config.is_encoder_decoder else network
                expected = network(input_ids=rows.clamp(min=0), attention_mask=there.long()).last_hidden_state
            for depth in range(len(backbone.blocks) + 1):
                prefix, suffix = backbone.split(depth)
                np.testing.assert_array_equal(suffix(prefix(rows))[there], expected[there], err_msg=str(depth))


@pytest.mark.parametrize("kind", rest_exhaustive(["t5", "mt5"], "t5"))
def test_an_encoder_that_was_saved_alone_is_the_same(kind, folder_of, tmp_path):
    """As models of sentence-transformers are, whose description says that there is no decoder."""
    import transformers

    name = folder_of(kind)
    shutil.copytree(name.removeprefix("hf:"), tmp_path / "alone")
    getattr(transformers, f"{kind.upper()}EncoderModel").from_pretrained(name.removeprefix("hf:")).save_pretrained(
        tmp_path / "alone"
    )
    settings = {"precision": "float32", "feature_cache": None}
    expected = PretrainedFeatureExtractor(name, **settings).fit_transform(make_texts(6)[0])
    found = PretrainedFeatureExtractor(f"hf:{tmp_path / 'alone'}", **settings).fit_transform(make_texts(6)[0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", HANDING_ON)
def test_what_makes_it_is_frozen_and_trained_with_its_own_layer(kind, folder_of):
    backbone = load_backbone(folder_of(kind))
    bias = [name for name in backbone.network.state_dict() if "relative_attention" in name or "rel_attn_embed" in name]
    assert len(bias) == 1
    assert bias[0] in backbone.blocks[1].parameter_names
    assert [bias[0] in backbone.frozen_names(depth) for depth in range(5)] == [False, False, True, True, True]
    tail = backbone.tail(1).requires_grad_(True)
    prefix = backbone.split(1)[0]
    tail(prefix(samples_of(kind, backbone))).nan_to_num().square().sum().backward()
    gradients = {name: one.grad for name, one in tail.named_parameters()}
    assert gradients[bias[0]].abs().max() > 0
    behind = backbone.tail(2).requires_grad_(True)
    assert bias[0] not in dict(behind.named_parameters())


@pytest.mark.parametrize("kind", HANDING_ON[:1])
@pytest.mark.parametrize("freeze_depth", rest_exhaustive([0, 1, 2, 3], 2))
def test_a_tail_that_begins_behind_it_is_tuned_kept_and_read_again(kind, freeze_depth, folder_of, tmp_path):
    X, y = make_texts(12)
    settings = {"max_epochs": 2, "lr": 1e-2, "random_state": 0, "strategy": "fine_tune", "precision": "float32"}
    settings |= {"layer": None}
    name = folder_of(kind)
    model = FineTunedClassifier(name, freeze_depth=freeze_depth, **settings).fit(X, y)
    assert model.backbone_.fingerprint == load_backbone(name).fingerprint
    expected = model.predict_proba(X)
    sktransfer.save(model, tmp_path / "model.safetensors")
    sktransfer.clear_cache()
    np.testing.assert_allclose(sktransfer.load(tmp_path / "model.safetensors").predict_proba(X), expected, atol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(X), expected, atol=1e-6)
    # The whole network, with what was tuned put into it.
    state = {**model.backbone_.network.state_dict(), **model.net_.module_.tail.state_dict()}
    samples = model._reader.read(X)
    for row in range(3):
        x = samples.load(row)[None]
        with torch.no_grad():
            whole = torch.func.functional_call(
                model.backbone_.network, state, kwargs={"input_ids": x, "attention_mask": torch.ones_like(x)}
            ).last_hidden_state.mean(1)
        np.testing.assert_allclose(model.transform(X[row : row + 1]), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", rest_exhaustive(HANDING_ON, "t5"))
def test_several_layers_are_read_in_one_pass(kind, folder_of):
    name = folder_of(kind)
    X = make_texts(6)[0] if kind != "wavlm" else [np.sin(np.arange(300 + 50 * i) / 9) for i in range(6)]
    settings = {"precision": "float32", "feature_cache": None} | ({"sampling_rate": 1000} if kind == "wavlm" else {})
    together = PretrainedFeatureExtractor(name, layer=[2, 3, None], **settings).fit_transform(X)
    alone = [PretrainedFeatureExtractor(name, layer=one, **settings).fit_transform(X) for one in (2, 3, None)]
    np.testing.assert_allclose(together, np.hstack(alone), atol=1e-6)


@pytest.mark.parametrize("kind", rest_exhaustive(["t5", "wavlm"]))
def test_mixed_precision_is_near_the_exact_result_at_every_cut(kind, folder_of):
    backbone = load_backbone(folder_of(kind))
    x = samples_of(kind, backbone)[:1]
    with torch.no_grad():
        exact = backbone.split(0)[1](x)
        with torch.autocast("cpu", torch.bfloat16):
            for depth in range(4):
                prefix, suffix = backbone.split(depth)
                assert (suffix(prefix(x)).float() - exact).norm() < 0.1 * exact.norm()


# Networks of nobody's


class Layer(nn.Module):
    """Adds to hidden states what it is handed, or else makes that; hands on what it was handed, changed or not."""

    def __init__(self, make, change):
        super().__init__()
        self.linear, self.make, self.change = nn.Linear(4, 4), make, change

    def forward(self, hidden_states, handed=None):
        handed = self.make(hidden_states) if handed is None else self.change(handed)
        return self.linear(hidden_states) + handed, None, handed


class Reader(nn.Module):
    """Embeds tokens, and lets layers hand on what the first of them, or of the rest, makes."""

    def __init__(self, make, change=lambda handed: handed, named=False, first=0):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(29, 4)
        self.layers = nn.ModuleList(Layer(make, change) for _ in range(4))
        self.named, self.first = named, first

    def forward(self, input_ids, attention_mask):
        hidden, handed = self.embedding(input_ids), None
        for number, layer in enumerate(self.layers):
            given = handed if number > self.first else None
            hidden, _, handed = layer(hidden, handed=given) if self.named else layer(hidden, given)
        return (hidden,)


def read(network):
    return check(LayerGraph(network.eval(), Tokens(TextPreprocessing("", 200, 29), 0)))


def by_positions(hidden):
    return torch.linspace(0, 1, hidden.shape[1])[None, :, None]


@pytest.mark.parametrize("named", [False, True], ids=["by place", "by name"])
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("change", [lambda handed: handed, lambda handed: 2 * handed + 1], ids=["as it is", "changed"])
def test_what_positions_alone_say_may_be_handed_on_in_any_way(named, first, change):
    network = Reader(by_positions, change, named, first)
    graph = read(network)
    assert len(graph.blocks) == 5
    for n_samples, length in [(1, 1), (3, 7), (2, 150)]:
        x = torch.randint(0, 29, (n_samples, length))
        with torch.no_grad():
            whole = network(x, torch.ones_like(x))[0]
            for depth in range(6):
                at = graph.end_of_block(depth)
                found = (
                    graph.between(at)(graph.between(graph.end_of_block(0), at)(x)) if depth else graph.between(at)(x)
                )
                assert torch.equal(found, whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda hidden: hidden.mean(1, keepdim=True),
        lambda hidden: hidden[:, :1] * 1e-30,  # no bit of a sum; but layers might learn to use it
        lambda hidden: hidden[:, :1] if hidden.shape[1] > 100 else torch.zeros(1),
        lambda hidden: torch.rand(1),
    ],
    ids=["values", "a value", "values of long texts", "chance"],
)
@pytest.mark.parametrize("first", [0, 2])
def test_what_depends_on_samples_may_not_be_handed_on(make, first):
    with pytest.raises(UntraceableError, match="expected layers that hand on hidden states alone"):
        read(Reader(make, first=first))


def test_what_was_made_is_not_remembered_without_end(monkeypatch):
    monkeypatch.setattr(_layer_relays, "_BYTES_KEPT", 1000)
    graph = read(Reader(by_positions))
    part = graph.between(graph.end_of_block(3))
    with torch.no_grad():
        for length in range(1, 60):
            part(torch.zeros(1, length, 4))
    assert graph.relays._count_bytes() <= 1000
    graph.forget_calls()
    assert graph.relays._count_bytes() == 0
