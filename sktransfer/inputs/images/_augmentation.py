"""Change training images at random, by level. The changes must not change the class."""

from typing import Any

import torch

from sktransfer._messages import check_choice, first_line
from sktransfer.inputs._base import Augmentation

LEVELS = ("light", "standard", "strong")


def make_augmentation(augment: Any, channels: int = 3) -> Augmentation | None:
    """Return the transform that a level, or a callable, stands for.

    Parameters
    ----------
    augment : {"light", "standard", "strong"}, callable or None
        `"light"`: mirrored, shifted by up to 5 %. `"standard"`: mirrored, rotated by up to 15 degrees, zoomed by up to
        15 %, brightness and contrast changed by up to 20 %. `"strong"`: a random part of at least half the area,
        mirrored, rotated by up to 30 degrees, colours changed by up to 40 %, a part erased in one of four. Brightness,
        contrast and colours of pictures that are neither grey nor RGB stay as they are.
    channels : int, default=3
        How many an image has.

    Returns
    -------
    callable or None
        Takes and returns a uint8 or float32 tensor of shape (channels, height, width); draws from torch's generator.

    Raises
    ------
    ValueError
        If the level is unknown.
    """
    if augment is None or callable(augment):
        return augment
    check_choice("augment", augment, LEVELS)
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR
    flip = v2.RandomHorizontalFlip()
    if augment == "light":
        return v2.Compose([flip, v2.RandomAffine(0, translate=(0.05, 0.05), interpolation=bilinear)])
    coloured = channels in (1, 3)
    if augment == "standard":
        jitter = [v2.ColorJitter(brightness=0.2, contrast=0.2)] if coloured else []
        return v2.Compose([flip, v2.RandomAffine(15, scale=(0.85, 1.15), interpolation=bilinear), *jitter])
    jitter = [v2.ColorJitter(0.4, 0.4, 0.4)] if coloured else []
    return v2.Compose([flip, _RandomPart(0.5), v2.RandomRotation(30, bilinear), *jitter, _erase()])


class _RandomPart:
    """A random part of an image, of at least `smallest` of its area, brought back to the size the image had."""

    def __init__(self, smallest: float):
        self.smallest = smallest

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms import v2

        size = (int(image.shape[-2]), int(image.shape[-1]))
        return v2.RandomResizedCrop(size, scale=(self.smallest, 1.0), antialias=True)(image)


def _erase() -> Augmentation:
    from torchvision.transforms import v2

    return v2.RandomErasing(p=0.25)


def _changed(sample: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Change one sample; where a transform of torchvision wants grey or colours, say so."""
    try:
        return augmentation(sample)
    except (TypeError, ValueError) as error:
        if sample.ndim != 3 or len(sample) in (1, 3) or "channel" not in str(error):
            raise
        raise ValueError(
            f"Got an augment callable that cannot take images of {len(sample)} channels ({first_line(error)}); "
            f"expected one that takes and returns tensors of shape {tuple(sample.shape)}. Leave out transforms for "
            "grey or RGB alone, such as torchvision's ColorJitter and RandomGrayscale. Flips and crops take all."
        ) from error


def augment_batch(batch: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Change each sample of a batch by a draw of its own.

    Parameters
    ----------
    batch : Tensor of shape (n, ...)
        Loaded, not yet normalised: images of shape (channels, height, width), sounds of shape (windows, n_samples).
    augmentation : callable
        For one sample.

    Returns
    -------
    Tensor
        Of the same shape and type.

    Raises
    ------
    ValueError
        If the callable does not return a sample of the same shape, or cannot take as many channels.
    """
    changed = [_changed(sample, augmentation) for sample in batch]
    for sample in changed:
        if not isinstance(sample, torch.Tensor) or sample.shape != batch.shape[1:] or sample.dtype != batch.dtype:
            got = f"{tuple(sample.shape)} {sample.dtype}" if isinstance(sample, torch.Tensor) else type(sample).__name__
            raise ValueError(
                f"Got an augment callable that returns {got}; expected a tensor as it takes, "
                f"{tuple(batch.shape[1:])} {batch.dtype}. Leave resizing and normalising to the backbone."
            )
    return torch.stack(changed)
