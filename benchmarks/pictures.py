"""Pictures, labels and weights to measure on: real ones where a folder has them, else drawn from a fixed seed.

How long a network takes does not depend on what its weights are or what a JPEG shows, so every speed can be measured
offline; what accuracies are worth does depend on it, so whoever reports them says which pictures they are of.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models import get_model

from sktransfer import load_image_folder

WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2-int8-dequantized.pth",
    "squeezenet1_1": "squeezenet1_1-float16-rounded.pth",
}
# Width and height of the photos of ants and bees, and of those of ImageNet, more often than not.
PHOTO = (500, 375)


@dataclass(frozen=True)
class Pictures:
    """Where pictures come from: `assets`, or where that is `None` a seed; and a temporary folder to write into."""

    assets: Path | None
    folder: Path
    n_drawn: int  # of both classes together

    @property
    def kind(self) -> str:
        return "generated pictures" if self.assets is None else "photos of ants and bees"

    def labelled(self, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return paths and labels of two classes, in turns where only n of them are wanted."""
        X, y = self._all
        if n is None:
            return X, y
        turns = np.argsort([np.sum(y[:row] == y[row]) for row in range(len(y))], kind="stable")
        chosen = np.sort(turns[:n])
        return X[chosen], y[chosen]

    def distinct(self, n: int) -> np.ndarray:
        """Return paths of n JPEGs of a photo's size, no two of which have the same content."""
        folder = self.folder / "distinct"
        folder.mkdir(exist_ok=True)
        sources = self._all[0]
        paths = [folder / f"{number:06d}.jpg" for number in range(n)]
        for number, path in enumerate(paths):
            if not path.exists():
                with Image.open(sources[number % len(sources)]) as photo:
                    # Each time round the same photo is compressed a little more, which changes its pixels.
                    quality = 95 - number // len(sources)
                    photo.convert("RGB").resize(PHOTO).save(path, quality=quality)
        return np.array([str(path) for path in paths])

    def small(self, n: int) -> Path:
        """Return a folder of at least n JPEGs of 64 x 64 pixels, for measurements that need very many."""
        folder = self.folder / "small"
        folder.mkdir(exist_ok=True)
        for number in range(len(list(folder.iterdir())), n):
            noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((64, 64)).save(folder / f"{number:06d}.jpg")
        return folder

    def weights(self, network: str) -> Path:
        """Return a file of weights, which all that is compared loads: real ones where there are, else random ones."""
        real = self.assets and self.assets / "weights" / WEIGHTS.get(network, "none")
        if real and real.is_file():
            return real
        path = self.folder / f"{network}-random.pth"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(0)
                torch.save(get_model(network, weights=None).state_dict(), path)
        return path

    @cached_property
    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        if self.assets is None:
            return self._drawn()
        parts = [load_image_folder(self.assets / "data" / "hymenoptera" / part) for part in ("train", "val")]
        return np.concatenate([p.data for p in parts]), np.concatenate([p.target_index for p in parts])

    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        for number in range(self.n_drawn):
            path = self.folder / "drawn" / ("blobs", "stripes")[number % 2] / f"{number:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(number).save(path, quality=90)
        loaded = load_image_folder(self.folder / "drawn")
        return np.asarray(loaded.data), np.asarray(loaded.target_index)


def draw(number: int) -> Image.Image:
    """Draw blobs where the number is even and stripes where it is odd, under noise that gives a JPEG a photo's size."""
    rng, (width, height) = np.random.default_rng(number), PHOTO
    if number % 2:
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        angle, period = rng.uniform(0, np.pi), rng.uniform(15, 40)
        wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 2 * np.pi / period)
        texture = 128 + 60 * wave[..., None] * rng.uniform(0.3, 1, 3)
    else:
        few = Image.fromarray(rng.integers(40, 216, (12, 16, 3), dtype=np.uint8))
        texture = np.asarray(few.resize(PHOTO, Image.Resampling.BICUBIC), dtype=float)
    noisy = texture + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
