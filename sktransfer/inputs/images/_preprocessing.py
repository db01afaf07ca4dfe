"""How a network expects its images: the size, the crop and the normalisation that travel with its weights.

The operations, and their order, are those of torchvision's own presets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image

from sktransfer.inputs._base import Preprocessing


@dataclass(frozen=True)
class ImagePreprocessing(Preprocessing):
    """How a network expects its images. It belongs to the weights of the network.

    Your own network may have one as its attribute `preprocessing`.

    Parameters
    ----------
    resize : int, tuple of int or None, default=None
        Length of the shorter side after resizing, in pixels. A tuple is height and width, for images of any shape.
        `None` resizes to `crop` directly.
    crop : tuple of int or None, default=None
        Height and width of the crop from the centre, in pixels. `None` keeps arrays of one size as they are, and crops
        everything else to 224 x 224 from 256.
    interpolation : str, default="bilinear"
        `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`, with antialiasing.
    mean, std : tuple of float, default=(0.0,), (1.0,)
        Mean and standard deviation of each channel, for values in [0, 1]. A single value holds for all channels.
    channels : int, default=3
        Number of channels. For images and files: 3 is RGB, 1 is grey, and 4 is RGB with transparency. Arrays with 4
        channels or other numbers hold what the network was made for.
    manner : {"torchvision", "transformers"}, default="torchvision"
        Which library to reproduce, to one of 255 levels. `"transformers"` resizes the whole image before cropping it,
        and rounds the corner of the crop down.

    Raises
    ------
    ValueError
        If the number of means or deviations is neither 1 nor the number of channels.
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: int = 3
    manner: str = "torchvision"
    kind: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        # Plain values: how they print is a part of what activations are kept under, and files hold them.
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None:
                object.__setattr__(self, name, tuple(map(int, size)) if isinstance(size, Iterable) else int(size))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(
                    f"Got {name}={values} of {len(values)} values and channels={self.channels}; expected one value, or "
                    "one for each channel."
                )

    def example(self, shape: tuple[int, ...] | None, n_samples: int) -> torch.Tensor:
        return torch.zeros(n_samples, *(shape or (self.channels, *(self.crop or (224, 224)))))

    @classmethod
    def from_torchvision(cls, preset: Any) -> "ImagePreprocessing":
        """Create it from a preset that torchvision's `weights.transforms()` returns.

        Parameters
        ----------
        preset : torchvision.transforms._presets.ImageClassification
            The preset.

        Returns
        -------
        ImagePreprocessing
            The same settings.
        """
        height, width = (preset.crop_size * 2)[:2]
        return cls(
            resize=preset.resize_size[0],
            crop=(height, width),
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )

    def with_channels(self, n_channels: int) -> "ImagePreprocessing":
        """Return the preprocessing for a network whose first layer was adapted to another number of channels.

        Parameters
        ----------
        n_channels : int
            Number of channels of the adapted network.

        Returns
        -------
        ImagePreprocessing
            Mean and deviation of the first channels do not change. Additional channels, or a single one, get the
            average of them.
        """
        if self.channels == n_channels:
            return self

        def spread(values: tuple[float, ...]) -> tuple[float, ...]:
            if len(values) == 1:
                return values
            middle = sum(values) / len(values)
            return (middle,) if n_channels == 1 else (*values, *[middle] * (n_channels - len(values)))[:n_channels]

        return replace(self, channels=n_channels, mean=spread(self.mean), std=spread(self.std))

    def fit_size(self, image: Any) -> Any:
        """Resize and crop one image or tensor.

        For an image, only the area of the crop is resized. Values may differ from those of torchvision, which crops the
        whole resized image. In upright photos, one value in seven differs by one of 255 levels. With bicubic filters,
        whose intermediate values Pillow clips, one in 10,000 differs by more than two levels, up to five.

        Parameters
        ----------
        image : PIL.Image.Image or float Tensor of shape (channels, height, width)
            Image of any size.

        Returns
        -------
        PIL.Image.Image or Tensor
            Image of `crop` size.
        """
        if self.crop is None:
            return image
        if isinstance(image, torch.Tensor):
            return self._fit_tensor(image, self.crop)
        (height, width), (inner_height, inner_width) = self._sizes(image.height, image.width, self.crop)
        if (image.height, image.width) == (height, width) == (inner_height, inner_width):
            return image
        if self._rounds_down:
            return self._fit_as_transformers(image, (height, width), self.crop)
        if height < inner_height or width < inner_width:  # a crop larger than the picture has a black border
            return self._fit_whole(image, (height, width), self.crop)
        top, left = round((height - inner_height) / 2), round((width - inner_width) / 2)
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + inner_width) * across, (top + inner_height) * down)
        how = Image.Resampling[self.interpolation.upper()]
        return image.resize((inner_width, inner_height), how, box=box)

    @property
    def shorter_side(self) -> int | None:
        """Length of the shorter side after resizing, in pixels. `None` if the full resolution of a file is needed."""
        if self._rounds_down:
            return None
        resized = self.crop if self.resize is None else self.resize
        return max(resized) if isinstance(resized, tuple) else resized

    def _sizes(self, height: int, width: int, crop: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the resized picture, and of what is cut from it."""
        if self.resize is None:
            return crop, crop
        if isinstance(self.resize, tuple):
            return self.resize, crop
        if width <= height:
            return (int(self.resize * height / width), self.resize), crop
        return (self.resize, int(self.resize * width / height)), crop

    @property
    def _rounds_down(self) -> bool:
        return self.manner == "transformers"

    def _fit_as_transformers(self, image: Any, size: tuple[int, int], crop: tuple[int, int]) -> Any:
        whole = image.resize((size[1], size[0]), Image.Resampling[self.interpolation.upper()])
        top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
        return whole.crop((left, top, left + crop[1], top + crop[0]))  # black where it is outside

    def _fit_whole(self, image: Any, size: tuple[int, int], crop: tuple[int, int]) -> Any:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import center_crop, resize

        image = resize(image, list(size), interpolation=InterpolationMode(self.interpolation), antialias=True)
        return center_crop(image, list(crop))

    def _fit_tensor(self, image: torch.Tensor, crop: tuple[int, int]) -> torch.Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import center_crop, resize

        size = [self.resize] if isinstance(self.resize, int) else list(self.resize or crop)
        if tuple(image.shape[-2:]) == tuple(size):
            return image
        # For tensors, torch's "nearest" takes other pixels than Pillow's; "nearest-exact" takes the same.
        mode = InterpolationMode("nearest-exact" if self.interpolation == "nearest" else self.interpolation)
        image = resize(image, size, interpolation=mode, antialias=True)
        if self.resize is None:
            return image
        down = [side - inner for side, inner in zip(image.shape[-2:], crop, strict=True)]
        if self._rounds_down and min(down) >= 0:
            return image[..., down[0] // 2 :, down[1] // 2 :][..., : crop[0], : crop[1]]
        return center_crop(image, list(crop))

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Scale 8-bit values to [0, 1], then subtract the mean and divide by the deviation.

        Parameters
        ----------
        batch : uint8 or float32 Tensor of shape (n, channels, height, width)
            Values of 8 bits, or already within [0, 1].

        Returns
        -------
        float32 Tensor
            Normalised values, of the same shape.
        """
        if batch.dtype == torch.uint8:
            batch = batch.to(torch.float32).div_(255)
        if set(self.mean) == {0.0} and set(self.std) == {1.0}:
            return batch
        mean, std = (_per_channel(values, batch.device) for values in (self.mean, self.std))
        return batch.sub(mean).div_(std)


def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return values for each channel on a device, float32 of shape (n, 1, 1).

    To a GPU they go from page-locked memory: else the copy would wait for all that the GPU has been given to do.
    """
    column = torch.tensor(values).view(-1, 1, 1)
    return column.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else column.to(device)
