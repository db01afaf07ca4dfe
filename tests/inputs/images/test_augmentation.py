"""What a user may rely on when training images are changed at random."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from sktransfer.inputs.images._augmentation import augment_batch, make_augmentation

LEVELS = ["light", "standard", "strong"]


@pytest.fixture
def batch():
    """Six equal smooth pictures: what differs afterwards was changed."""
    y, x = np.mgrid[:24, :32]
    picture = np.stack([y * 10, x * 7, (x + y) * 4]).astype(np.uint8)
    return torch.tensor(picture).repeat(6, 1, 1, 1)


def changed(batch, level, seed=0):
    torch.manual_seed(seed)
    return augment_batch(batch, make_augmentation(level))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("level", LEVELS)
def test_shape_and_type_are_kept(level, dtype, channels, batch):
    given = batch[:, :channels]
    given = given if dtype == torch.uint8 else given / 255
    result = changed(given, level)
    assert result.shape == given.shape
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= (255 if dtype == torch.uint8 else 1)
    assert not torch.equal(result, given)


@pytest.mark.parametrize("level", LEVELS)
def test_each_image_is_changed_by_a_draw_of_its_own(level, batch):
    result = changed(batch, level)
    assert len({image.numpy().tobytes() for image in result}) > 1


@pytest.mark.parametrize("level", LEVELS)
def test_torchs_seed_decides_the_draw(level, batch):
    assert torch.equal(changed(batch, level), changed(batch, level))
    assert not torch.equal(changed(batch, level), changed(batch, level, seed=1))


@pytest.mark.parametrize("level", LEVELS)
def test_the_given_batch_stays_as_it_is(level, batch):
    before = batch.clone()
    changed(batch, level)
    assert torch.equal(batch, before)


def test_levels_grow_stronger(batch):
    distances = [
        np.mean([(changed(batch, level, seed).float() - batch).abs().mean().item() for seed in range(20)])
        for level in LEVELS
    ]
    assert distances[0] < distances[1] < distances[2]


def test_mirroring_happens_to_about_half_of_the_images(batch):
    light = make_augmentation("light")
    torch.manual_seed(0)
    # The second channel grows from left to right.
    mirrored = [
        bool(image[1, 12, :16].float().mean() > image[1, 12, 16:].float().mean())
        for image in map(light, batch.repeat(20, 1, 1, 1))
    ]
    assert 0.35 < np.mean(mirrored) < 0.65


@pytest.mark.parametrize("level", ["standart", "Strong", "", 3, ["light"]])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(ValueError, match=r"Got augment=.*; expected 'light', 'standard' or 'strong'"):
        make_augmentation(level)


def test_an_unknown_level_is_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"Got augment='standart'.*Did you mean 'standard'"):
        make_augmentation("standart")


def test_none_is_no_augmentation():
    assert make_augmentation(None) is None


@pytest.mark.parametrize("transform", [v2.RandomVerticalFlip(p=1.0), lambda image: image.flip(-2)], ids=["v2", "own"])
def test_any_callable_of_one_image_will_do(transform, batch):
    assert make_augmentation(transform) is transform
    assert torch.equal(augment_batch(batch, transform), batch.flip(-2))


@pytest.mark.parametrize(
    ("transform", "got"),
    [
        (v2.Resize((8, 8)), r"\(3, 8, 8\) torch.uint8"),
        (v2.ToDtype(torch.float32, scale=True), r"\(3, 24, 32\) torch.float32"),
        (v2.ToPILImage(), "Image"),
        (lambda image: None, "NoneType"),
        (lambda image: image.numpy(), "ndarray"),
        (lambda image: image[None], r"\(1, 3, 24, 32\) torch.uint8"),
    ],
    ids=["resized", "normalised", "picture", "nothing", "array", "batch"],
)
def test_a_callable_that_returns_anything_else_is_refused(transform, got, batch):
    with pytest.raises(
        ValueError, match=rf"that returns {got}; expected a tensor as it takes, \(3, 24, 32\) torch.uint8\. Leave"
    ):
        augment_batch(batch, transform)


def test_a_callable_that_fails_for_a_later_image_alone_is_refused_too(batch):
    batch[4] = 0

    def crop_black(image):
        return image if image.any() else image[:, :8]

    with pytest.raises(ValueError, match=r"that returns \(3, 8, 32\) torch.uint8; expected"):
        augment_batch(batch, crop_black)


@pytest.mark.parametrize("transform", [v2.ColorJitter(0.4), v2.RandomGrayscale(1.0), v2.RandomAutocontrast(1.0)])
def test_a_transform_for_grey_or_colours_says_so_where_images_have_other_channels(transform):
    images = torch.zeros(2, 13, 8, 8, dtype=torch.uint8)
    message = (
        r"cannot take images of 13 channels \(.*13.*\); expected one .*\(13, 8, 8\)\. Leave out transforms for grey"
    )
    with pytest.raises(ValueError, match=message):
        augment_batch(images, v2.Compose([v2.RandomHorizontalFlip(), transform]))


def test_other_errors_of_a_callable_stay_what_they_are():
    def fails(image):
        raise TypeError("of my own")

    with pytest.raises(TypeError, match=r"^of my own$"):
        augment_batch(torch.zeros(1, 13, 8, 8), fails)
