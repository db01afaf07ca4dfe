"""Features come to the head at one scale, and what scales them is a layer like any other."""

import numpy as np
import pytest
import torch

from sktransfer._training._feature_scaling import EARLIER, fit_scaling, restore_scaling

RNG = np.random.default_rng(0)
POSITIVE = RNG.gamma(0.5, size=(40, 12)) * np.geomspace(0.01, 100, 12)
SIGNED = RNG.normal(size=(40, 9)) * np.geomspace(0.1, 10, 9) + 3
ONES = np.ones(40)


def scaled(features, widths=None, weights=ONES):
    scaling = fit_scaling(features, widths or [features.shape[1]], weights)
    return scaling, scaling(torch.from_numpy(features)).numpy()


@pytest.mark.parametrize("features", [POSITIVE, SIGNED, POSITIVE * 1e18, SIGNED * 1e-18])
def test_scaled_features_are_centred_and_have_a_mean_squared_norm_of_1(features):
    _, found = scaled(features)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    assert (found**2).sum(axis=1).mean() == pytest.approx(1)


def test_the_scale_of_a_sample_that_is_never_negative_does_not_matter():
    scaling, found = scaled(POSITIVE)
    assert scaling.square_roots == [True]
    with torch.no_grad():
        scaling.floor.zero_()
        expected = scaling(torch.from_numpy(POSITIVE))
        torch.testing.assert_close(scaling(torch.from_numpy(POSITIVE * 7)), expected)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_signed_features_are_pareto_scaled():
    scaling, found = scaled(SIGNED)
    assert scaling.square_roots == [False]
    expected = (SIGNED - SIGNED.mean(0)) / np.sqrt(SIGNED.std(0))
    np.testing.assert_allclose(found / found[0, 0], expected / expected[0, 0], rtol=1e-6)


def test_earlier_layers_weigh_less():
    _, found = scaled(np.hstack([POSITIVE, SIGNED]), [12, 9])
    early, last = ((part**2).sum(1).mean() for part in (found[:, :12], found[:, 12:]))
    assert early / last == pytest.approx(EARLIER**2)
    assert early + last == pytest.approx(1)


def test_a_weight_is_how_often_a_sample_is_there():
    weights = RNG.integers(0, 4, 40)
    often, few = (
        fit_scaling(SIGNED.repeat(weights, axis=0), [9], np.ones(weights.sum())),
        fit_scaling(SIGNED, [9], weights),
    )
    torch.testing.assert_close(often.mean, few.mean)
    torch.testing.assert_close(often.factor, few.factor)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e30])
def test_constant_features_stay_finite(value):
    _, found = scaled(np.full((40, 5), value))
    assert np.isfinite(found).all()


def test_a_sample_of_zeros_and_one_below_zero_stay_finite_and_let_gradients_through():
    scaling, _ = scaled(POSITIVE)
    x = torch.tensor(np.vstack([POSITIVE[:2], np.zeros((1, 12)), -POSITIVE[:1]]), requires_grad=True)
    scaling(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_it_is_written_down_and_restored():
    scaling, expected = scaled(np.hstack([POSITIVE, SIGNED]), [12, 9])
    again = restore_scaling(scaling.to_record()).double()
    again.load_state_dict(scaling.state_dict())
    np.testing.assert_array_equal(again(torch.from_numpy(np.hstack([POSITIVE, SIGNED]))), expected)
