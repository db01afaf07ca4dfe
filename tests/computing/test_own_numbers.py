"""Each thread draws its own numbers: the same for a seed, whatever others draw, and none of the process's."""

import pytest
import torch
from torch import fx, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from sktransfer._computing._own_numbers import OwnNumbers
from sktransfer.inputs.images._augmentation import LEVELS, make_augmentation
from sktransfer.inputs.sounds._augmentation import make_sound_augmentation

X = torch.ones(6, 8, 5, 5)


def attention(x):
    query = x.flatten(2)
    return functional.scaled_dot_product_attention(query, query, query, dropout_p=0.3)


DRAWING = {
    "dropout layer": nn.Dropout(0.5),
    "dropout": lambda x: functional.dropout(x, 0.5),
    "dropout in place": lambda x: functional.dropout(x.clone(), 0.5, inplace=True),
    "torch.dropout": lambda x: torch.dropout(x, 0.5, True),
    "traced": fx.symbolic_trace(nn.Sequential(nn.Dropout(0.5), StochasticDepth(0.5, "row"))),
    "stochastic depth": StochasticDepth(0.5, "row"),
    "batch": StochasticDepth(0.5, "batch"),
    "rand": lambda x: x * torch.rand(6, 1, 1, 1),
    "randn": lambda x: x + torch.randn(6, 1, 1, 1),
    "rand_like": lambda x: x + torch.rand_like(x),
    "randn_like": lambda x: x + torch.randn_like(x),
    "randint": lambda x: x + torch.randint(9, (6, 1, 1, 1)),
    "randperm": lambda x: x[torch.randperm(6)] + torch.randperm(6)[:, None, None, None],
    "bernoulli": lambda x: torch.bernoulli(x * 0.5),
    "uniform_": lambda x: x * torch.empty(6, 1, 1, 1).uniform_(1, 2),
    "attention": attention,
}


def run(function, seed):
    before = torch.get_rng_state()
    with OwnNumbers(seed) as numbers:
        result = function(X * torch.arange(1.0, 7.0)[:, None, None, None] if function is attention else X)
    assert torch.equal(before, torch.get_rng_state())
    assert numbers.drew
    return result


@pytest.mark.parametrize("name", DRAWING)
def test_what_is_drawn_depends_on_the_seed_alone(name):
    function = DRAWING[name]
    one = run(function, 1)
    torch.manual_seed(7)
    assert torch.equal(run(function, 1), one)
    assert any(not torch.equal(run(function, seed), one) for seed in range(2, 9))


@pytest.mark.parametrize("name", ["dropout layer", "dropout", "torch.dropout"])
def test_without_a_seed_nothing_is_dropped(name):
    assert torch.equal(run(DRAWING[name], None), X)


@pytest.mark.parametrize("name", ["stochastic depth", "traced", "bernoulli"])
def test_without_a_seed_the_draw_is_the_same_for_all_samples(name):
    found = run(DRAWING[name], None)
    assert found.any()
    assert torch.equal(found, found[:1].expand_as(found))


def test_dropout_keeps_the_mean_and_drops_the_share():
    with OwnNumbers(0):
        dropped = functional.dropout(torch.ones(100_000), 0.3)
    assert (dropped == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    with OwnNumbers(0):
        assert not functional.dropout(torch.ones(9), 1.0).any()


@pytest.mark.parametrize("given", ["nothing", "causal", "mask", "bias", "scale", "nowhere"])
def test_attention_is_torchs_but_for_what_is_dropped(given):
    q, k, v = torch.randn(3, 2, 4, 6, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    mask = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)) > 0.4
    mask |= torch.eye(6, dtype=torch.bool)
    how = {
        "nothing": {},
        "causal": {"is_causal": True},
        "mask": {"attn_mask": mask},
        "bias": {"attn_mask": torch.randn(6, 6)},
        "scale": {"scale": 0.2},
        "nowhere": {"attn_mask": mask & (torch.arange(6) != 2)[:, None]},
    }[given]
    expected = functional.scaled_dot_product_attention(q, k, v, **how)
    with OwnNumbers(None):
        torch.testing.assert_close(
            functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5, **how), expected.nan_to_num()
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["images", "sounds"])
def test_augmentation_by_level_draws_by_torchs_functions_alone(kind, level):
    """So any thread may do it."""
    augmentation = make_augmentation(level) if kind == "images" else make_sound_augmentation(level)
    shape = (3, 32, 32) if kind == "images" else (2, 400)
    sample = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for seed in range(8):
        before = torch.get_rng_state()
        results = []
        for _ in range(2):
            with OwnNumbers(seed) as numbers:
                results.append(augmentation(sample.clone()))
        assert numbers.drew
        assert torch.equal(*results)
        assert torch.equal(before, torch.get_rng_state())
