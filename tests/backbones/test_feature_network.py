"""Vectors of layers travel with the value at a cut, as one tensor, and come out of it as they went in."""

import pytest
import torch
from networks import ResidualBlock, tiny_cnn
from torch import nn

from sktransfer.backbones import load_backbone
from sktransfer.backbones._feature_network import pack, unpack

SHAPES = [(3, 5, 4, 4), (3, 7, 6), (3, 2, 5, 6), (3, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("widths", [[1], [16], [17, 3], [64, 1, 30]])
def test_what_is_packed_is_unpacked_to_the_bit(shape, widths):
    vectors, value = [torch.rand(3, width) for width in widths], torch.rand(shape)
    packed = pack(vectors, value)
    assert packed.shape[2:] == value.shape[2:]
    found, rest = unpack(packed, widths)
    assert torch.equal(rest, value)
    assert all(torch.equal(one, other) for one, other in zip(found, vectors, strict=True))


def test_without_vectors_the_value_is_as_it_was():
    value = torch.rand(2, 3, 4)
    assert pack([], value) is value
    assert unpack(value, [])[1] is value


def test_padding_behind_a_short_value_stays_behind_it():
    short, long = torch.rand(1, 3, 4), torch.rand(1, 5, 4)
    vectors = [torch.rand(1, 6)]
    rows = [pack(vectors, value)[0] for value in (short, long)]
    joined = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)
    found, value = unpack(joined, [6])
    assert torch.equal(found[0][:1], vectors[0])
    assert torch.equal(value[:1, :3], short)
    assert value[0, 3:].isnan().all()


@pytest.mark.parametrize("end", range(1, 5))
@pytest.mark.parametrize("start", range(5))
def test_a_part_goes_on_with_the_vectors_of_layers_before_it(start, end):
    backbone = load_backbone(tiny_cnn(), weights=None)
    x, layers = torch.rand(2, 3, 16, 16), ["0", "4", "5"]
    whole = backbone.frozen_part("all", "avg", layers)
    before = backbone.frozen_part(start, "avg", layers)
    later = backbone.frozen_part(end, "avg", layers)
    if start < end < 4:
        widths = [vector.shape[1] for vector in before.network().run(x)[0]]
        assert torch.equal(later.behind(before, widths).network()(before.network()(x)), later.network()(x))
    passed = [vector.shape[1] for vector in before.network().run(x)[0]]
    if start < 4:
        assert torch.equal(whole.behind(before, passed).network()(before.network()(x)), whole.network()(x))


def test_the_frozen_part_and_the_tail_give_all_layers_whatever_the_cut():
    from sktransfer._training._suffix_network import SuffixNetwork

    network = nn.Sequential(nn.Conv2d(3, 8, 3), *[ResidualBlock(8) for _ in range(4)], nn.ReLU(inplace=True))
    backbone, x, layers = load_backbone(network, weights=None), torch.rand(2, 3, 12, 12), ["0", "1", "3"]
    expected = backbone.feature_part([*layers, None]).network()(x)
    for depth in range(5):
        part = backbone.frozen_part(depth, "avg", layers)
        widths = [vector.shape[1] for vector in part.network().run(x)[0]]
        tail = backbone.tail(depth, layers=layers)
        suffix = SuffixNetwork(tail, nn.Identity(), "avg", False, False, depth, layers, widths).eval()
        torch.testing.assert_close(suffix.features(part.network()(x)), expected)
