"""Sets of pictures that are more and more unlike photos, each with what it really is.

Real are the photos, the textures of scikit-image and the recordings behind the spectrograms. No radiograph was at hand:
both sets of them are made up here, from fixed seeds, and were not changed after the first measurement.
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from accuracy_sets import PIXELS, ants_and_bees, cifar10, drawn_digits, grey_findings, spoken_digits, turned_photos
from PIL import Image, ImageDraw, ImageFilter

NUMBER = 150


def photos(assets: Path) -> np.ndarray:
    return _some(ants_and_bees(assets).X)


def small_photos(assets: Path) -> np.ndarray:
    return _some(cifar10(assets).X)


def photo_parts(assets: Path) -> np.ndarray:
    return _some(turned_photos(assets).X)


def drawings(assets: Path) -> np.ndarray:
    return _some(drawn_digits(assets).X)


def textures(assets: Path) -> np.ndarray:
    """Return parts of three grey photos of brick, grass and gravel (CC0), which the package scikit-image carries."""
    try:
        package = distribution("scikit-image")
    except PackageNotFoundError:
        raise FileNotFoundError("textures: need `pip install scikit-image`") from None
    rng, parts = np.random.default_rng(3), []
    for number in range(NUMBER):
        name = ("brick", "grass", "gravel")[number % 3]
        with Image.open(str(package.locate_file(f"skimage/data/{name}.png"))) as opened:
            whole = np.asarray(opened.convert("L"))
        top, left = (rng.integers(0, side - 224) for side in whole.shape)
        parts.append(whole[top : top + 224, left : left + 224])
    return np.array(parts)


def waves(assets: Path) -> np.ndarray:
    """Return made-up textures: six coloured waves each, under a little grain."""
    rng, parts = np.random.default_rng(4), []
    down, across = np.mgrid[:PIXELS, :PIXELS]
    for _ in range(NUMBER):
        sum_of_waves = np.zeros((PIXELS, PIXELS, 3))
        for _ in range(6):
            angle, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
            phase = (across * np.cos(angle) + down * np.sin(angle)) * 2 * np.pi / period + rng.uniform(0, 6)
            sum_of_waves += np.sin(phase)[..., None] * rng.normal(0, 40, 3)
        parts.append((128 + sum_of_waves + rng.normal(0, 8, sum_of_waves.shape)).clip(0, 255).astype(np.uint8))
    return np.array(parts)


def blurred_radiographs(assets: Path) -> np.ndarray:
    """Return the made-up radiographs of accuracy.py: blurred negatives of photos under grain, with marks."""
    return _some(grey_findings(assets).X)


def drawn_radiographs(assets: Path) -> np.ndarray:
    """Return made-up radiographs of chests: what ellipses and arcs absorb, with scatter and grain."""
    rng = np.random.default_rng(5)
    return np.array([_chest(rng) for _ in range(NUMBER)])


def _chest(rng: np.random.Generator, side: int = 224) -> np.ndarray:
    def shape(draw: Callable[[ImageDraw.ImageDraw], None], blur: float) -> np.ndarray:
        picture = Image.new("L", (side, side))
        draw(ImageDraw.Draw(picture))
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)), dtype=float) / 255

    def box(x: float, y: float, wide: float, high: float) -> list[float]:
        x, y = x + rng.normal(0, 0.01), y + rng.normal(0, 0.01)
        return [side * (x - wide), side * (y - high), side * (x + wide), side * (y + high)]

    body, heart = box(0.5, 0.55, 0.46, 0.6), box(0.56, 0.62, rng.uniform(0.11, 0.15), 0.14)
    lungs = [box(x, 0.5, rng.uniform(0.13, 0.17), rng.uniform(0.28, 0.34)) for x in (0.29, 0.71)]
    absorbed = 1.6 * shape(lambda draw: draw.ellipse(body, fill=255), 6)
    absorbed -= 1.1 * shape(lambda draw: [draw.ellipse(lung, fill=255) for lung in lungs], 4)
    absorbed += 0.8 * shape(lambda draw: draw.ellipse(heart, fill=255), 4)
    absorbed += 0.9 * shape(lambda draw: draw.rectangle([side * 0.47, 0, side * 0.53, side], fill=255), 2)
    for rib in range(9):
        y = 0.16 + 0.085 * rib + rng.normal(0, 0.006)
        for x, start, end in ((0.27, 150, 330), (0.73, 210, 390)):
            arc = box(x, y + 0.05, 0.2, 0.09)
            absorbed += 0.22 * shape(lambda draw, a=arc, s=start, e=end: draw.arc(a, s, e, fill=255, width=7), 1.5)
    light = 4000 * np.exp(-absorbed) + 200  # what comes through, and what is scattered everywhere
    counted = rng.normal(light, np.sqrt(light))
    shown = 255 * (1 - (np.log(counted) - np.log(200)) / (np.log(4200) - np.log(200)))
    return shown.clip(0, 255).astype(np.uint8)


def spectrograms(assets: Path) -> np.ndarray:
    return _some(spoken_digits(assets).X)


def noise(assets: Path) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (NUMBER, PIXELS, PIXELS, 3), dtype=np.uint8)


def _some(X: np.ndarray) -> np.ndarray:
    return X[np.random.default_rng(0).permutation(len(X))[:NUMBER]]


# By title: the kind in the order that is to be shown, None beside it, what it really is, and where it comes from.
SETS: dict[str, tuple[str | None, str, Callable[[Path], np.ndarray]]] = {
    "photos of ants and bees": ("photos", "real", photos),
    "parts of two photos, turned": (None, "real", photo_parts),
    "CIFAR-10, 32 x 32 pixels": (None, "real", small_photos),
    "drawn digits": (None, "made up", drawings),
    "brick, grass, gravel": ("textures", "real", textures),
    "coloured waves": ("textures", "made up", waves),
    "drawn chests": ("radiographs", "made up", drawn_radiographs),
    "blurred negatives with marks": ("radiographs", "made up", blurred_radiographs),
    "spoken digits": ("spectrograms", "real", spectrograms),
    "uniform noise": ("noise", "made up", noise),
}
ORDER = ("photos", "textures", "radiographs", "spectrograms", "noise")
