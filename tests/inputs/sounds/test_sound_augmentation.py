"""What a user may rely on when training sounds are changed at random."""

import numpy as np
import pytest
import torch
from pretrained_models import make_sound_model, make_sounds

from sktransfer import FineTunedClassifier
from sktransfer.inputs import make_reader
from sktransfer.inputs.images._augmentation import augment_batch
from sktransfer.inputs.sounds._preprocessing import SoundPreprocessing

LEVELS = {"light": (3, 0.05, 0.0), "standard": (6, 0.1, 0.02), "strong": (12, 0.2, 0.1)}
LENGTH = 1000


@pytest.fixture
def samples():
    settings = SoundPreprocessing("Wav2Vec2FeatureExtractor", "{}", "input_values", 1000)
    return make_reader("sounds", settings, sampling_rate=1000).learn(make_sounds(2)[0])


@pytest.fixture
def batch():
    """Forty equal sounds of two windows: half a tone each, and silence behind it."""
    tone = torch.zeros(2, LENGTH)
    tone[:, :600] = torch.sin(torch.arange(600) / 3) * 0.5
    return tone.repeat(40, 1, 1)


@pytest.fixture
def changed(samples, batch):
    def changed(level, seed=0):
        torch.manual_seed(seed)
        return augment_batch(batch, samples.augmentation(level))

    return changed


@pytest.mark.parametrize("level", LEVELS)
def test_shape_and_type_are_kept_and_the_given_batch_stays_as_it_is(level, batch, changed):
    before = batch.clone()
    result = changed(level)
    assert (result.shape, result.dtype) == (batch.shape, batch.dtype)
    assert torch.equal(batch, before)
    assert bool(result.isfinite().all())


@pytest.mark.parametrize("level", LEVELS)
def test_each_sound_is_changed_by_a_draw_of_its_own_that_torchs_seed_decides(level, changed):
    assert len({sound.numpy().tobytes() for sound in changed(level)}) == 40
    assert torch.equal(changed(level), changed(level))
    assert not torch.equal(changed(level), changed(level, seed=1))


@pytest.mark.parametrize("level", LEVELS)
def test_gain_and_shift_keep_to_what_is_documented_and_come_near_it(level, batch, changed):
    decibels, shift, _ = LEVELS[level]
    peaks = changed(level).abs().amax((1, 2)) / 0.5
    gains = 20 * torch.log10(peaks)
    assert gains.abs().max() <= decibels + 1.5 * (level == "strong") + 0.3 * (level == "standard") + 0.01
    assert gains.max() > decibels / 2
    assert gains.min() < -decibels / 2
    # The silence behind the tone stays silent, so where it begins says by how much the tone was moved.
    ends = torch.tensor([int(sound[0].nonzero().max()) + 1 for sound in changed(level)]) - 600
    assert ends.abs().max() <= shift * LENGTH
    assert ends.max() > shift * LENGTH / 2
    assert ends.min() < -shift * LENGTH / 2


@pytest.mark.parametrize("level", LEVELS)
def test_noise_keeps_to_what_is_documented(level, samples):
    _, _, noise = LEVELS[level]
    torch.manual_seed(0)
    steady = torch.full((60, 1, LENGTH), 0.25)  # without noise, each is of one value where there is any
    result = augment_batch(steady, samples.augmentation(level))[:, 0, 250:750]
    ratios = result.std(-1) / result.mean(-1)
    assert ratios.max() <= noise * 1.15 + 1e-6
    assert ratios.max() >= noise * 0.8
    assert ratios.min() < 0.2 * noise + 1e-6


def test_levels_grow_stronger(batch, changed):
    distances = [(changed(level) - batch).abs().mean() for level in LEVELS]
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("level", LEVELS)
def test_silence_stays_silent(level, samples):
    silent = torch.zeros(4, 1, LENGTH)
    assert torch.equal(augment_batch(silent, samples.augmentation(level)), silent)


def test_an_unknown_level_is_answered_with_the_closest(samples):
    with pytest.raises(ValueError, match=r"Got augment='standart'.*Did you mean 'standard'"):
        samples.augmentation("standart")
    assert samples.augmentation(None) is None


def test_any_callable_of_one_sound_will_do_if_it_returns_one(samples, batch):
    assert torch.equal(augment_batch(batch, samples.augmentation(lambda windows: -windows)), -batch)
    with pytest.raises(
        ValueError, match=r"that returns \(2, 500\) torch.float32; expected a tensor as it takes, \(2, 1"
    ):
        augment_batch(batch, lambda windows: windows[:, :500])


@pytest.mark.parametrize("views", [None, 2])
def test_a_fit_with_augmentation_is_repeatable_and_differs_from_one_without(views, tmp_path):
    name = make_sound_model("wav2vec2", tmp_path / "model")
    X, y = make_sounds(12)
    X[3] = np.tile(X[3], 8)  # of several windows
    X[0] = np.tile(X[0], 40)

    def fitted(augment):
        classifier = FineTunedClassifier(
            name, freeze_depth=2, strategy="fine_tune", augment=augment, augment_views=views if augment else None,
            sampling_rate=1000, max_epochs=2, random_state=0, precision="float32",
        )  # fmt: skip
        return classifier.fit(X, y).predict_proba(X)

    first = fitted("strong")
    np.testing.assert_array_equal(first, fitted("strong"))
    assert not np.allclose(first, fitted(None), atol=1e-6)
