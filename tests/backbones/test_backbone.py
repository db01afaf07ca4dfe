"""The record of a pretrained network: its depth, its layers, its summary, and how it travels."""

import copy
import itertools
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from pretrained_models import make_text_model
from torch import nn

from sktransfer.backbones import Backbone, load_backbone, restore_backbone
from sktransfer.backbones.graphs._pooling import pool


@pytest.fixture(scope="module")
def mobilenet() -> Backbone:
    return load_backbone("mobilenet_v2", weights=None)


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    """Four blocks, `0`, `4`, `5` and `6`, then a classification layer."""
    return load_backbone(tiny_cnn)


def same_depth(backbone: Backbone, one: object, other: object) -> bool:
    return backbone.frozen_names(one) == backbone.frozen_names(other)


# Depth: how many blocks, which share, up to which name


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (0, 0),
        (5, 5),
        (19, 19),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (0.0, 0),
        (0.75, 14),
        (np.float32(0.75), 14),
        (0.5, 10),
        (1.0, 19),
        (1, 1),
        ("features.0", 1),
        ("features.17", 18),
        ("features.18", 19),
        ("all", 19),
    ],
)
def test_a_depth_is_a_number_a_share_or_a_name(mobilenet: Backbone, depth: object, blocks: int):
    frozen = {n for b in mobilenet.blocks[:blocks] for n in (*b.parameter_names, *b.buffer_names)}
    assert mobilenet.frozen_names(depth) == frozen
    assert {n for n, _ in mobilenet.split(depth)[0].named_parameters()} == frozen & set(
        dict(mobilenet.network.named_parameters())
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp_path: load_backbone(tiny_cnn),
        lambda tmp_path: load_backbone("mobilenet_v2", weights=None),
        lambda tmp_path: load_backbone("squeezenet1_1", weights=None),
        lambda tmp_path: load_backbone("vit_b_32", weights=None),
        lambda tmp_path: load_backbone(make_text_model("bert", tmp_path), weights=None),
        lambda tmp_path: load_backbone(tiny_cnn).ending_at("5"),
    ],
    ids=["tiny", "mobilenet_v2", "squeezenet1_1", "vit_b_32", "bert", "part of tiny"],
)
def test_a_negative_depth_counts_from_the_end_as_in_a_slice(make, tmp_path):
    backbone = make(tmp_path)
    count = len(backbone.blocks)
    for depth in range(-count, 0):
        assert same_depth(backbone, depth, count + depth)
        frozen = backbone.blocks[:depth]
        assert {n for b in frozen for n in (*b.parameter_names, *b.buffer_names)} <= backbone.frozen_names(depth)
        assert [block.name for block in backbone.trained_blocks(depth)] == [
            block.name for block in backbone.trained_blocks(count + depth)
        ]
        assert backbone.frozen_part(depth, "avg").end == backbone.frozen_part(count + depth, "avg").end
    assert backbone.frozen_names(-count) == backbone.frozen_names(0)
    with pytest.raises(ValueError, match="negative ones count from the end"):
        backbone.split(-count - 1)


@pytest.mark.parametrize("layer", [-1, -4, np.int8(-2), [-1, 1]], ids=str)
def test_a_negative_layer_counts_from_the_end(tiny: Backbone, layer):
    images = torch.rand(2, 3, 8, 8)
    positive = [one + 5 if one < 0 else one for one in layer] if isinstance(layer, list) else layer + 5
    features = [tiny.feature_part(one).network().eval()(images) for one in (layer, positive)]
    assert torch.equal(*features)


def test_a_depth_may_be_any_module_at_whose_end_the_network_can_be_cut(mobilenet: Backbone):
    assert mobilenet.frozen_names("features.0.0") == {"features.0.0.weight"}
    assert same_depth(mobilenet, "features", "all")
    within = mobilenet.frozen_names("features.18.0")
    assert mobilenet.frozen_names("features.17") < within < mobilenet.frozen_names("features.18")


@pytest.mark.parametrize("depth", [True, False, -20, 20, np.int64(20), 1.5, -0.1, float("nan"), None, [1], b"all"])
def test_what_is_no_depth_is_refused_with_what_is_one(mobilenet: Backbone, depth: object):
    with pytest.raises(ValueError, match=r"Got freeze_depth=.*; expected a number of blocks from 0 to 19 .*\"all\""):
        mobilenet.split(depth)


@pytest.mark.parametrize(
    ("depth", "closest"),
    [
        ("feature.17", "'features.17'"),
        ("classifier", "'classifier.0'"),
        ("classifier.1", "'classifier.0'"),
        ("features.2.conv.0.00", "'features.2.conv.0.0'"),
        ("qqq", "Its 19 blocks are 'features.0', 'features.1', "),
    ],
)
def test_a_name_where_the_network_cannot_be_cut_is_answered_with_the_closest(mobilenet, depth: str, closest: str):
    with pytest.raises(ValueError, match=r"Got freeze_depth=.*; 'mobilenet_v2' has no block '") as caught:
        mobilenet.split(depth)
    assert closest in str(caught.value)


def test_the_inside_of_a_residual_block_is_no_place_to_cut(tiny: Backbone):
    with pytest.raises(ValueError, match=r"Got freeze_depth='4\.conv1'; .* cannot be cut after a module of that name"):
        tiny.split("4.conv1")


# Cutting


def test_prefix_and_suffix_compute_what_the_network_computes(tiny: Backbone):
    x = torch.rand(3, 3, 8, 8)
    for depth in range(5):
        prefix, suffix = tiny.split(depth)
        assert torch.equal(suffix(prefix(x)), tiny.network(x))


def test_without_the_classification_layer_they_compute_the_features(tiny: Backbone):
    x = torch.rand(3, 3, 8, 8)
    features = tiny.split("all")[0](x)
    assert features.shape == (3, 16)
    for depth in range(4):
        prefix, tail = tiny.split(depth)[0], tiny.tail(depth, train_bn=True)
        assert torch.equal(tail(prefix(x)), features)
        assert not {name for name, _ in tail.named_parameters()} & {"11.weight", "11.bias"}


def test_parts_are_frozen_and_in_eval_mode(tiny: Backbone):
    for part in tiny.split(2):
        assert not any(module.training for module in part.modules())
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_trained_blocks_are_those_behind_the_cut_with_what_is_not_frozen(mobilenet: Backbone):
    assert mobilenet.trained_blocks(0) == list(mobilenet.blocks)
    assert mobilenet.trained_blocks(17) == list(mobilenet.blocks[17:])
    assert mobilenet.trained_blocks("all") == []
    (block,) = mobilenet.trained_blocks("features.18.0")
    assert block.name == "features.18"
    assert block.parameter_names == ("features.18.1.weight", "features.18.1.bias")
    assert set(block.buffer_names) == {
        f"features.18.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.parametrize("depth", [0, 1, 9, "features.18.0", "all"])
def test_what_is_frozen_and_what_is_trained_is_all_there_is_and_nothing_twice(mobilenet: Backbone, depth: object):
    trained = [n for b in mobilenet.trained_blocks(depth) for n in (*b.parameter_names, *b.buffer_names)]
    frozen = mobilenet.frozen_names(depth)
    assert not frozen & set(trained)
    assert frozen | set(trained) == {n for n in mobilenet.network.state_dict() if not n.startswith("classifier")}


# Layers


def test_the_default_layer_is_what_enters_the_classification_layer(tiny: Backbone):
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(tiny.feature_part().network()(x), tiny.split("all")[0](x))


@pytest.mark.parametrize(("layer", "depth"), [(1, 1), (4, 4), (np.int64(2), 2), ("0", 1), ("5", 3)])
def test_a_layer_is_a_block_by_name_or_by_number_from_one(tiny: Backbone, layer: object, depth: int):
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(tiny.feature_part(layer).network()(x), pool(tiny.split(depth)[0](x), "avg"))


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
def test_several_layers_are_joined_in_the_order_asked_for(tiny: Backbone, pooling: str):
    x = torch.rand(3, 3, 8, 8)
    alone = {layer: tiny.feature_part(layer, pooling).network()(x) for layer in ("0", 2, 3, None)}
    for layers in ([3, "0", None], [None, 2], ("0", 2), ["0"], [2, 2], [None, "0", 2, "0"]):
        expected = torch.cat([alone[layer] for layer in layers], dim=1)
        assert torch.equal(tiny.feature_part(layers, pooling).network()(x), expected)


@pytest.mark.parametrize("pooling", ["avg", "flatten"])
def test_a_layer_is_not_changed_by_what_works_in_place_behind_it(pooling: str):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Sequential(nn.Linear(144, 6), nn.ReLU(inplace=True)),
        nn.Linear(6, 5),
    )
    backbone = load_backbone(network)
    x = torch.randn(3, 3, 8, 8)
    layers = ["1", "4.0", None]
    alone = [backbone.feature_part(layer, pooling).network()(x) for layer in layers]
    assert alone[1].min() < 0 <= alone[2].min()
    assert torch.equal(backbone.feature_part(layers, pooling).network()(x), torch.cat(alone, dim=1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ([], r"Got layer=\[\]; expected at least one"),
        (0, "Got layer=0; expected a block from 1 to 4, or from -1, the last, to -4. 'tiny_cnn' has 4 blocks"),
        (5, "Got layer=5; expected a block from 1 to 4"),
        (-5, "Got layer=-5; expected a block from 1 to 4, or from -1, the last, to -4"),
        (True, "Got layer=True; expected None, a block's name or number, or a list of them"),
        (0.5, "Got layer=0.5; expected None, a block's name or number"),
        ({"0"}, "Got layer={'0'}; expected None"),
        ("O", "Got layer='O'; 'tiny_cnn' has no block 'O'"),
        (["0", "40"], "Got layer='40'; 'tiny_cnn' has no block '40', .*'4'"),
        ([1, [2]], r"Got layer=\[2\]; expected None, a block's name or number"),
    ],
)
def test_what_is_no_layer_is_refused_with_what_is_one(tiny: Backbone, layer: object, message: str):
    with pytest.raises(ValueError, match=message):
        tiny.feature_part(layer).network()


def test_maps_have_no_class_token(tiny: Backbone):
    with pytest.raises(ValueError, match='Got pooling="cls" for activations of shape'):
        tiny.feature_part(1, "cls").network()(torch.rand(1, 3, 8, 8))


def test_features_may_be_moved_to_an_earlier_layer(tiny: Backbone):
    x = torch.rand(3, 3, 8, 8)
    shorter = tiny.ending_at("4")
    assert [block.name for block in shorter.blocks] == ["0", "4"]
    assert len(tiny.blocks) == 4
    assert torch.equal(shorter.split("all")[0](x), tiny.split(2)[0](x))
    assert torch.equal(shorter.split("all")[1](tiny.split(2)[0](x)), tiny.network(x))
    assert shorter.network is tiny.network, "the weights are held once"
    assert tiny.ending_at(None) is tiny
    assert [block.name for block in shorter.ending_at(1).blocks] == ["0"]
    with pytest.raises(ValueError, match="Got layer=9; expected a block from 1 to 4"):
        tiny.ending_at(9)


def test_features_may_be_moved_into_a_block(mobilenet: Backbone):
    shorter = mobilenet.ending_at("features.18.0")
    assert len(shorter.blocks) == 19
    assert shorter.blocks[-1].parameter_names == ("features.18.0.weight",)
    assert same_depth(shorter, "all", 19)
    with pytest.raises(ValueError, match="has no block"):
        shorter.split("features.18.1")


# What a person sees


def test_a_summary_has_a_row_a_block_and_counts_each_parameter_once():
    backbone = load_backbone("resnet18", weights=None)
    backbone = backbone.showing("layer2.1", (3, 64, 64))
    summary = backbone.summary()
    assert [row.number for row in summary.rows] == list(range(1, 10))
    assert [row.name for row in summary.rows] == [block.name for block in backbone.blocks]
    assert [row.output_shape for row in summary.rows[:4]] == [(64, 16, 16)] * 3 + [(128, 8, 8)]
    assert summary.rows[-1].output_shape == (512,)
    assert [row.state for row in summary.rows] == ["frozen"] * 5 + ["trained"] * 4
    in_front = sum(p.numel() for n, p in backbone.network.named_parameters() if not n.startswith("fc."))
    assert summary.n_frozen + summary.n_trainable == in_front == 11_176_512
    assert summary.n_frozen == sum(row.n_parameters for row in summary.rows[:5])


def test_a_summary_may_be_asked_of_another_depth(tiny: Backbone):
    assert tiny.summary().n_trainable == 0
    assert [row.state for row in tiny.summary(0).rows] == ["trained"] * 4
    assert tiny.summary(0).n_frozen == 0
    assert [row.state for row in tiny.summary(0.5).rows] == ["frozen", "frozen", "trained", "trained"]


def test_a_block_that_is_cut_through_is_partly_frozen(mobilenet: Backbone):
    row = mobilenet.summary("features.18.0").rows[-1]
    assert row.state == "partly frozen"
    assert (row.n_frozen, row.n_parameters) == (320 * 1280, 320 * 1280 + 2 * 1280)


def test_a_summary_prints_as_a_table(tiny: Backbone):
    text = str(tiny.summary(2))
    assert text == repr(tiny.summary(2))
    lines = text.splitlines()
    assert lines[0] == "<Backbone 'tiny_cnn', weights='its own', 4 blocks>"
    assert lines[2].split() == ["block", "output", "shape", "parameters", "state"]
    assert lines[4].split() == ["1", "0", "8", "x", "112", "x", "112", "240", "frozen"]
    assert lines[7].split() == ["4", "6", "16", "1,200", "trained"]
    assert lines[-3] == "size: 0.02 MB of parameters and buffers"
    assert lines[-2] == "trainable 2,376, frozen 1,416 parameters, before the head"
    assert lines[-1] == "weights: the network that was given; data: not stated; licence: not stated"


def test_a_summary_shows_in_a_notebook_as_a_table_of_escaped_text():
    def network() -> nn.Module:
        return nn.Sequential(OrderedDict({"<b>": nn.Linear(4, 4), "next": nn.Linear(4, 4), "head": nn.Linear(4, 2)}))

    network.__name__ = "<script>alert(1)</script>"
    backbone = load_backbone(network)
    backbone = backbone.showing(1, (4,))
    html = backbone.summary()._repr_html_()
    assert html.count("<tr>") == 1 + 2 + 1
    assert html.count("<td>frozen</td>") == html.count("<td>trained</td>") == 1
    assert "trainable 20, frozen 20 parameters" in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<td>&lt;b&gt;</td>" in html
    assert backbone._repr_html_() == html


def test_a_summary_of_a_network_whose_samples_nobody_has_seen_leaves_their_shapes_open():
    backbone = load_backbone(tiny_vectors)
    assert [row.output_shape for row in backbone.summary().rows] == [(), ()]
    assert "?" in str(backbone.summary())
    backbone = backbone.showing(1, (4,))
    assert [row.output_shape for row in backbone.summary().rows] == [(32,), (16,)]
    assert [row.state for row in backbone.summary().rows] == ["frozen", "trained"]


def test_a_backbone_says_what_it_is(mobilenet: Backbone):
    assert repr(mobilenet) == "<Backbone 'mobilenet_v2', weights='random, seed 0', 19 blocks>"
    assert (mobilenet.name, mobilenet.weights_name) == ("mobilenet_v2", "random, seed 0")


def test_what_a_summary_shows_is_a_depth_that_there_is_and_leaves_the_backbone_as_it_was(tiny: Backbone):
    with pytest.raises(ValueError, match="Got freeze_depth=9"):
        tiny.showing(9, (3, 8, 8))
    assert tiny.showing(0, (3, 8, 8)).summary().n_frozen == 0
    assert tiny.summary().n_trainable == 0


# How it travels


def through_a_pickle(backbone: Backbone) -> Backbone:
    return pickle.loads(pickle.dumps(backbone))


@pytest.mark.parametrize("travel", [through_a_pickle, copy.deepcopy])
@pytest.mark.parametrize("network", ["squeezenet1_1", tiny_cnn, tiny_cnn()], ids=["name", "function", "module"])
def test_a_copy_has_the_same_bits_and_shares_the_one_network_of_the_process(travel, network):
    backbone = load_backbone(network, weights=None)
    again = travel(backbone)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.network(x), backbone.network(x))
    assert again.fingerprint == backbone.fingerprint
    assert again.blocks == backbone.blocks
    assert again.preprocessing == backbone.preprocessing
    assert again.network is backbone.network
    assert {p.device.type for p in again.network.parameters()} == {"cpu"}
    assert not any(p.requires_grad for p in again.network.parameters())
    assert not any(module.training for module in again.network.modules())


def test_a_copy_remembers_what_it_shows_and_where_it_ends(tiny: Backbone):
    shorter = tiny.ending_at("5")
    shorter = shorter.showing(2, (3, 8, 8))
    again = through_a_pickle(shorter)
    assert [row.output_shape for row in again.summary().rows] == [row.output_shape for row in shorter.summary().rows]
    assert [row.state for row in again.summary().rows] == ["frozen", "frozen", "trained"]
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.split("all")[0](x), shorter.split("all")[0](x))


def test_a_pickle_leaves_the_traced_graph_out(tiny: Backbone):
    assert b"fx" not in pickle.dumps(tiny)
    assert tiny._graph is not None, "but the backbone itself keeps it"


def test_a_pickle_can_be_read_where_the_weights_file_is_gone(tmp_path: Path):
    torch.save(load_backbone("squeezenet1_1", weights=None, seed=1).network.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("squeezenet1_1", weights=tmp_path / "w.pth")
    written = pickle.dumps(backbone)
    (tmp_path / "w.pth").unlink()
    assert pickle.loads(written).fingerprint == backbone.fingerprint


def left_out(backbone: Backbone) -> bytes:
    """A pickle without the weights."""
    record, tensors = backbone.showing(3, (3, 64, 64)).to_record(store_weights=False)
    assert not tensors
    return pickle.dumps(restore_backbone(record, tensors))


@pytest.fixture
def on_file(tmp_path: Path) -> Backbone:
    """A backbone whose weights are a file that may change."""
    torch.save(load_backbone("squeezenet1_1", weights=None, seed=1).network.state_dict(), tmp_path / "w.pth")
    return load_backbone("squeezenet1_1", weights=tmp_path / "w.pth")


def test_weights_may_be_left_out_of_a_pickle_and_are_found_again(on_file: Backbone):
    written = left_out(on_file)
    assert len(written) < 10_000
    again = pickle.loads(written)
    assert len(pickle.dumps(again)) < 10_000, "unread, it can be written again"
    assert (again.name, len(again.blocks)) == ("squeezenet1_1", 9)
    assert again._loaded is None, "and they are looked for only once they are needed"
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.split("all")[0](x), on_file.split("all")[0](x))
    assert again.fingerprint == on_file.fingerprint
    assert [row.state for row in again.summary().rows] == ["frozen"] * 3 + ["trained"] * 6


def test_random_weights_that_were_left_out_are_drawn_again():
    backbone = load_backbone("squeezenet1_1", weights=None, seed=5)
    assert pickle.loads(left_out(backbone)).fingerprint == backbone.fingerprint


USES = {
    "network": lambda b: b.network,
    "fingerprint": lambda b: b.fingerprint,
    "split": lambda b: b.split(1),
    "tail": lambda b: b.tail(1),
    "feature_part": lambda b: b.feature_part().network(),
    "frozen_names": lambda b: b.frozen_names(1),
    "trained_blocks": lambda b: b.trained_blocks(1),
    "summary": lambda b: b.summary(),
    "ending_at": lambda b: b.ending_at(1),
}


@pytest.mark.parametrize("use", USES)
def test_weights_that_changed_since_are_refused_whatever_is_asked(use: str, on_file: Backbone):
    again = pickle.loads(left_out(on_file))
    other = load_backbone("squeezenet1_1", weights=None, seed=2)
    torch.save(other.network.state_dict(), on_file.weights_name)
    with pytest.raises(ValueError, match=r"Got weights .*expected .*Put the original weights back") as caught:
        USES[use](again)
    assert other.fingerprint[:12] in str(caught.value)
    assert on_file.fingerprint[:12] in str(caught.value)


@pytest.mark.parametrize("use", USES)
def test_weights_that_were_left_out_serve_whatever_is_asked(use: str, on_file: Backbone):
    again = pickle.loads(left_out(on_file))
    USES[use](again)
    assert again._loaded is not None


def test_weights_that_are_gone_are_missed_only_when_they_are_needed(on_file: Backbone):
    again = pickle.loads(left_out(on_file))
    Path(on_file.weights_name).unlink()
    assert repr(again) == repr(on_file)
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        again.split(1)


def test_a_backbone_that_ends_early_finds_its_weights_and_its_end_again(on_file: Backbone):
    shorter = on_file.ending_at("features.4")
    again = pickle.loads(left_out(shorter))
    assert [block.name for block in again.blocks] == ["features.0", "features.3", "features.4"]
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.split("all")[0](x), shorter.split("all")[0](x))


def test_training_a_tail_leaves_the_backbone_as_it_was(tiny: Backbone):
    before = tiny.fingerprint
    tail = tiny.tail(2, train_bn=True).train().requires_grad_(True)
    optimizer = torch.optim.SGD(tail.parameters(), lr=1.0)
    for _ in range(3):
        tail(tiny.split(2)[0](torch.rand(4, 3, 8, 8))).sum().backward()
        optimizer.step()
    assert tiny.fingerprint == before
    own, copied = dict(tiny.network.named_parameters()), dict(tail.named_parameters())
    assert copied.keys() == set(itertools.chain(*(block.parameter_names for block in tiny.trained_blocks(2))))
    assert not any(torch.equal(copied[name], own[name]) for name in copied if name.endswith("weight"))
