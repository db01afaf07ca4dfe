"""Stacks of layers: prefix and suffix compute what the whole does, however long a sample is, or nothing is cut."""

import threading

import numpy as np
import pytest
import torch
from networks import rest_exhaustive
from pretrained_models import make_sound_model, make_text_model
from torch import nn

from sktransfer import FineTunedClassifier, clear_cache
from sktransfer.backbones import UntraceableError, load_backbone
from sktransfer.backbones.graphs._entries import Tokens, Windows
from sktransfer.backbones.graphs._layer_check import check
from sktransfer.backbones.graphs._layer_graph import LayerGraph
from sktransfer.inputs import SoundPreprocessing, TextPreprocessing

POSITIONS = {
    "Conformer, relative": ("wav2vec2-conformer", {"position_embeddings_type": "relative"}),
    "Conformer, rotary": ("wav2vec2-conformer", {"position_embeddings_type": "rotary"}),
    "w2v-BERT, relative": ("wav2vec2-bert", {"position_embeddings_type": "relative"}),
    "w2v-BERT, rotary": ("wav2vec2-bert", {"position_embeddings_type": "rotary"}),
    "w2v-BERT, relative keys": ("wav2vec2-bert", {"position_embeddings_type": "relative_key"}),
    "Moonshine": ("moonshine", {}),
}


@pytest.fixture(scope="module", params=rest_exhaustive(POSITIONS, *list(POSITIONS)[:3], "Moonshine"))
def positions(request, tmp_path_factory):
    """The folder of a network for sounds whose layers are handed positions."""
    kind, settings = POSITIONS[request.param]
    return make_sound_model(kind, tmp_path_factory.mktemp("positions"), **settings)


def prepared(backbone, seconds, n_samples, n_windows=1):
    """Return noise as the network takes it."""
    preprocessing, generator = backbone.preprocessing, np.random.default_rng(0)
    length = int(preprocessing.sampling_rate * seconds)
    noise = generator.uniform(-0.5, 0.5, (n_samples * n_windows, length)).astype(np.float32)
    windows = torch.stack([preprocessing.extract(one) for one in noise])
    return windows.view(n_samples, n_windows, *windows.shape[1:])


def assert_parts_give_the_whole(backbone, x):
    with torch.no_grad():
        whole = backbone.split(0)[1](x)
        for depth in range(1, len(backbone.blocks) + 1):
            prefix, suffix = backbone.split(depth)
            np.testing.assert_array_equal(suffix(prefix(x)), whole, err_msg=f"{tuple(x.shape)}, depth {depth}")


def test_positions_are_those_of_the_sound_at_hand(positions):
    backbone = load_backbone(positions)
    assert len(backbone.blocks) == 4
    for seconds in (0.3, 0.305, 1.0, 1.7, 3.0):
        assert_parts_give_the_whole(backbone, prepared(backbone, seconds, 2))
    several = prepared(backbone, 0.3, 2, 2)
    several[1, 1] = torch.nan
    assert_parts_give_the_whole(backbone, several)


def test_mixed_precision_counts_positions_in_full_on_both_sides_of_a_cut(positions):
    backbone = load_backbone(positions)
    x = prepared(backbone, 3.0, 1)
    with torch.no_grad():
        exact = backbone.split(0)[1](x)
        with torch.autocast("cpu", torch.bfloat16):
            whole = backbone.split(0)[1](x).float()
            parts = [suffix(prefix(x)).float() for prefix, suffix in map(backbone.split, (1, 2, 3))]
    for other in parts:
        assert torch.equal(other, whole)
    assert (whole - exact).norm() < 0.05 * exact.norm()


def test_a_tail_trained_on_sounds_of_one_length_hears_those_of_others(tmp_path):
    name = make_sound_model("moonshine", tmp_path)
    rng = np.random.default_rng(0)
    settings = {"freeze_depth": 1, "max_epochs": 1, "strategy": "fine_tune", "layer": None}
    settings |= {"sampling_rate": 16000, "random_state": 0}
    for seconds in (0.3, 0.9):  # one network, which both fits share
        sounds = [rng.normal(scale=0.1, size=int(16000 * seconds)).astype(np.float32) for _ in range(4)]
        model = FineTunedClassifier(name, precision="float32", **settings).fit(sounds, [0, 1, 0, 1])
        for other in (sounds[:1], [np.tile(sounds[0], 2)]):
            samples = model._reader.read(other)
            x = samples.prepare(samples.load(0)[None])
            network = model.backbone_.network
            with torch.no_grad():
                hidden = model.backbone_.split(1)[0](x)
                found = model.net_.module_.tail(hidden)
                state = {**network.state_dict(), **model.net_.module_.tail.state_dict()}
                whole = torch.func.functional_call(network, state, (x.flatten(0, 1),))
            torch.testing.assert_close(found[0], whole.last_hidden_state, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "kind", rest_exhaustive(["bloom", "modernbert", "llama", "deberta-v2", "mixtral"], "bloom", "mixtral")
)
def test_what_layers_are_given_fits_texts_of_any_length_and_any_number(kind, tmp_path):
    """Bloom's layers are given something of as many rows as there are texts; Mixtral rounds by how many come."""
    backbone = load_backbone(make_text_model(kind, tmp_path, max_position_embeddings=64))
    for n_samples, length in [(1, 1), (2, 1), (1, 2), (4, 7), (1, 18), (3, 20)]:
        x = torch.arange(n_samples * length).view(n_samples, length) % 29
        assert_parts_give_the_whole(backbone, x)
        if length > 2:
            x[0, 2:] = -1
            assert_parts_give_the_whole(backbone, x)


@pytest.mark.parametrize("window", [2, 4, 8, 16, [2, 4, 8]])
def test_a_network_that_lengthens_texts_inside_is_refused_whatever_its_windows(window, tmp_path):
    with pytest.raises(UntraceableError, match=r"[Uu]se another network") as caught:
        load_backbone(make_text_model("longformer", tmp_path, attention_window=window))
    assert len(str(caught.value)) < 600


def test_a_network_in_which_a_text_depends_on_the_padding_beside_it_is_refused(tmp_path):
    """Behind a cut nobody knows what padding was: of it nothing may reach the text."""
    with pytest.raises(UntraceableError, match="for 2 texts of 4 and 9 tokens; expected"):
        load_backbone(make_text_model("convbert", tmp_path))


def test_a_network_with_fewer_positions_than_its_tokenizer_says_is_refused(tmp_path):
    name = make_text_model("ibert", tmp_path, max_position_embeddings=14)
    with pytest.raises(UntraceableError, match=r"cannot be run with 1 text of 14 tokens .*smaller model_max_length"):
        load_backbone(name)


def test_weights_that_layers_are_handed_belong_to_the_first_block(tmp_path):
    """They are read in front of the first layer, so nothing behind it can train them."""
    backbone = load_backbone(make_text_model("deberta", tmp_path))
    assert "encoder.rel_embeddings.weight" in backbone.blocks[0].parameter_names
    assert "encoder.rel_embeddings.weight" in backbone.frozen_names(1)


# Networks of nobody's


class Layer(nn.Module):
    """Adds what it is given to hidden states."""

    def __init__(self, caches=False):
        super().__init__()
        self.linear, self.caches, self.length, self.kept = nn.Linear(4, 4), caches, None, None

    def forward(self, hidden_states, given=None):
        if self.caches and self.length != hidden_states.shape[1]:
            self.length, self.kept = hidden_states.shape[1], torch.arange(hidden_states.shape[1])[:, None] / 10
        return self.linear(hidden_states) + (0 if given is None else given) + (self.kept if self.caches else 0)


class Listener(nn.Module):
    """Hears a position in every 10 samples, and gives its layers what a function makes of samples and positions."""

    def __init__(self, give=lambda samples, hidden: None, caches=False):
        super().__init__()
        torch.manual_seed(0)
        self.front = nn.Conv1d(1, 4, 20, 10)
        self.layers = nn.ModuleList(Layer(caches) for _ in range(3))
        self.give = give

    def forward(self, input_values):
        hidden = self.front(input_values[:, None]).transpose(1, 2)
        given = self.give(input_values, hidden)
        for layer in self.layers:
            hidden = layer(hidden, given)
        return (hidden,)


class Reader(nn.Module):
    """The same for texts."""

    def __init__(self, give):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(29, 4)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.give = give

    def forward(self, input_ids, attention_mask):
        hidden = self.embedding(input_ids)
        given = self.give(input_ids, hidden)
        for layer in self.layers:
            hidden = layer(hidden, given)
        return (hidden,)


def listened(network, window=None):
    settings = '{"do_normalize": false, "sampling_rate": 1000}'
    preprocessing = SoundPreprocessing("Wav2Vec2FeatureExtractor", settings, "input_values", 1000, window)
    return check(LayerGraph(network.eval(), Windows(preprocessing, "input_values")))


def read(network):
    return check(LayerGraph(network.eval(), Tokens(TextPreprocessing("", 200, 29), 0)))


def in_parts(graph, x):
    for depth in range(1, len(graph.blocks) + 1):
        x = graph.between(graph.end_of_block(depth - 1), graph.end_of_block(depth))(x)
    return x


@pytest.mark.parametrize("length", [20, 21, 29, 30, 150, 999, 1000, 1001, 1700, 4003])
def test_positions_computed_from_the_number_of_positions_are_right_at_any_length(length):
    network = Listener(lambda samples, hidden: torch.linspace(0, 1, hidden.shape[1])[:, None])
    x = torch.rand(3, 2, length)
    with torch.no_grad():
        assert torch.equal(in_parts(listened(network), x).flatten(0, 1), network(x.flatten(0, 1))[0])


@pytest.mark.parametrize(
    "give",
    [
        lambda samples, hidden: samples.shape[1] / 1000,
        lambda samples, hidden: torch.linspace(0, samples.shape[1], hidden.shape[1])[:, None],
        lambda samples, hidden: samples.mean(1)[:, None, None],
        lambda samples, hidden: samples[:, :1, None] * 1e-30,  # no bit of a sum; but layers might learn to use it
        lambda samples, hidden: torch.rand(1),
    ],
    ids=["length", "positions by length", "values", "a value", "chance"],
)
def test_layers_that_are_given_what_positions_alone_do_not_say_are_refused(give):
    with pytest.raises(UntraceableError, match="depends on the number of positions alone"):
        listened(Listener(give))


@pytest.mark.parametrize(
    "give",
    [
        lambda tokens, hidden: (tokens % 3)[..., None].float(),
        lambda tokens, hidden: (tokens == 7)[..., None] * 1e-30,  # no bit of a sum; but layers might learn to use it
        lambda tokens, hidden: (tokens[:, :1] % 2)[..., None].float() if tokens.shape[1] > 100 else None,
    ],
    ids=["tokens", "a token", "tokens of long texts"],
)
def test_layers_for_texts_that_are_given_something_of_the_tokens_are_refused(give):
    with pytest.raises(UntraceableError, match=r"for \d+ texts? of \d+ tokens?; expected layers that hand on"):
        read(Reader(give))


def test_hidden_states_that_no_sound_gives_are_refused_in_a_sentence():
    graph = listened(Listener(lambda samples, hidden: torch.arange(hidden.shape[1])[:, None]), window=500)
    part = graph.between(graph.end_of_block(1))
    with pytest.raises(ValueError, match="Got hidden states of 77 positions; expected as many as a window of sound"):
        part(torch.rand(1, 1, 77, 4))


def test_what_layers_remember_of_one_length_is_seen_by_no_other_run_and_no_other_thread():
    graph = listened(Listener(caches=True))
    assert graph.layers_keep_state
    lengths = [100, 400, 1000, 2300]
    samples = [torch.rand(2, 1, length) for length in lengths]
    with torch.no_grad():
        expected = [Listener(caches=True)(x.flatten(0, 1))[0] for x in samples]
        found = {}

        def run(number):
            for turn in range(20):
                which = (number + turn) % len(lengths)
                with torch.no_grad():
                    found[number, turn] = which, in_parts(graph, samples[which]).flatten(0, 1)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 80
    assert all(torch.equal(value, expected[which]) for which, value in found.values())
    assert all(layer.kept is None and layer.length is None for layer in graph.network.layers)


def test_masks_of_long_texts_are_not_remembered_without_end(monkeypatch):
    from sktransfer.backbones.graphs import _layer_graph as _layers

    monkeypatch.setattr(_layers, "_BYTES_KEPT", 1000)
    graph = read(Reader(lambda tokens, hidden: torch.ones(hidden.shape[1], 4)))
    for length in range(1, 60):
        graph.calls(torch.zeros(1, length, 4), None)
    assert sum(size for _, size in graph._known.values()) <= 1000


def test_clear_cache_forgets_what_layers_were_called_with_on_a_device(tmp_path):
    classifier = FineTunedClassifier(make_text_model("bert", tmp_path), freeze_depth=1, max_epochs=1)
    texts = ["a b", "b c", "c a", "a c"]
    classifier.fit(texts, [0, 1, 0, 1])
    graph = classifier.backbone_.frozen_part(1, "avg").graph
    assert graph._known
    clear_cache()
    assert not graph._known
    assert classifier.predict(texts).shape == (4,)
