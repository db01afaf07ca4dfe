"""Each block of Python in README and guide runs: page by page, in order, in one namespace, offline, with stand-ins.

What a page takes for granted (photos, labels, weights, models of the hub) is small and made here. A block that does not
run here says why in a comment in front of it: `<!-- not run: REASON -->`, or `<!-- run by tests/FILE -->`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from model_hub import ask, playing_hub
from networks import rest_exhaustive, tiny_cnn
from PIL import Image
from pretrained_models import (
    make_picture_model,
    make_sound_model,
    make_sounds,
    make_text_model,
    make_texts,
    make_two_towers,
)

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, inspection
from sktransfer.backbones._loaded_network import forget_networks

ROOT = Path(__file__).resolve().parents[1]
BUILT = {ROOT / "docs" / name for name in ("_build", "auto_examples")}
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if not BUILT.intersection(path.parents) and "```python\n" in path.read_text(encoding="utf-8")
]
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# What a newcomer reads first, and so what every run tries.
FIRST = [ROOT / "README.md", ROOT / "docs" / "index.md"]

# Networks of torchvision that pages name.
NETWORKS = ["squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "resnet18"]
# Networks that are too large to be passed here, and what stands for them.
SMALLER = {"timm:convnext_tiny.fb_in22k": "timm:test_resnet.r160_in1k", '"resnet50"': '"resnet18"'}

# How many blocks of all pages need what no test has.
MOST_NOT_RUN = 8


@dataclass(frozen=True)
class Block:
    """A block of a page, the line where it begins, and the comment in front of it, which says why it is not run."""

    page: Path
    line: int
    code: str
    note: str


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [Block(page, text[: one.start(2)].count("\n"), one[2], one[1] or "") for one in BLOCK.finditer(text)]


# Stand-ins


def write_photos(folder):
    """Write twelve photos of two classes into class folders; return their paths and labels."""
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for number in range(12):
        labels.append(("ants", "bees")[number % 2])
        pixels = rng.integers(0, 100, size=(40, 48, 3)) + np.array([number % 2, 0, 1 - number % 2]) * 150
        paths.append(folder / labels[-1] / f"{number:02}.png")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return np.array([str(path) for path in paths], dtype=object), np.array(labels)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of photos, weights of torchvision's networks, and a hub of tiny models, under the names of real ones."""
    from torchvision.models import get_model, get_model_weights

    folder = tmp_path_factory.mktemp("reader")
    write_photos(folder / "my_photos")
    write_photos(folder / "photos")
    Image.new("RGB", (48, 40), "olive").save(folder / "photo.jpg")
    make_sound_model("wav2vec2", folder / "FOLDER")
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    weights = {name: get_model_weights(name).DEFAULT for name in NETWORKS}
    for name, default in weights.items():
        network = get_model(name, weights=None)
        with torch.no_grad():  # so that samples differ behind BatchNorms
            for layer in network.modules():
                layer.momentum = None
            network.train()(torch.randn(8, 3, 1, 1) + torch.randn(8, 3, 64, 64))
        torch.save(network.state_dict(), checkpoints / default.url.rpartition("/")[2])
    make = {
        "distilbert-base-uncased": lambda place: make_text_model("distilbert", place, n_layers=6),
        "facebook/dinov2-small": lambda place: make_picture_model("dinov2", place),
        "openai/clip-vit-base-patch32": lambda place: make_two_towers("clip", place),
        "facebook/wav2vec2-base": lambda place: make_sound_model("wav2vec2", place),
        "openai/whisper-tiny": lambda place: make_sound_model("whisper", place),
        "timm/test_resnet.r160_in1k": make_timm_weights,
    }
    with playing_hub() as hub, pytest.MonkeyPatch.context() as patch:
        for name, write in make.items():
            write(folder / "models" / name)
            hub.add(name, main=folder / "models" / name)
        ask(patch, hub.address, folder / "cache")
        patch.setattr("torch.hub._hub_dir", str(folder / "torch" / "hub"))
        patch.chdir(folder)
        # Pages show how to tune; how well is not asked here: one epoch, of photos of 64 x 64 pixels.
        for default in weights.values():
            patch.setitem(default.transforms.keywords, "crop_size", 64)
            patch.setitem(default.transforms.keywords, "resize_size", 64)
        for estimator in (FineTunedClassifier, FineTunedRegressor):
            patch.setitem(estimator.__init__.__kwdefaults__, "max_epochs", 1)
        yield folder
    forget_networks()


def make_timm_weights(folder):
    import timm
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")


def of_channels(paths, y):
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 60_000, size=(12, 13, 32, 32), dtype=np.uint16)
    pictures = rng.integers(0, 256, size=(12, 4, 32, 32), dtype=np.uint8)
    return {"bands": bands, "pictures": pictures, "means": [5000.0] * 13, "deviations": [2000.0] * 13}


def of_faults(paths, y):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, size=(*rng.integers(2, 9, size=2), 3), dtype=np.uint8) for _ in range(12)]
    return {"photos": [*pictures, pictures[0]], "y": np.array([*y, y[0]]), "predicted": np.array([*y[::-1], y[0]])}


def of_inside(paths, y):
    X = np.stack([np.asarray(Image.open(path)) for path in paths])
    return {"X": X, "classifier": FineTunedClassifier(tiny_cnn, random_state=0).fit(X, y)}


def of_seeing(paths, y):
    from sklearn.datasets import load_digits

    digits, numbers = load_digits(return_X_y=True)
    waves, words = make_sounds()
    model = FineTunedClassifier("mobilenet_v2").fit(paths, y)
    return {"digits": digits[:50], "numbers": numbers[:50], "waves": waves, "words": words, "model": model}


def of_sounds(paths, y):
    import soundfile

    waves, labels = make_sounds(n=8)
    for number, wave in enumerate(waves):
        soundfile.write(f"{number}.wav", wave, 1000)
    return {"paths": [f"{number}.wav" for number in range(8)], "y": labels, "arrays": waves}


STAND_INS = {
    "channels": of_channels,
    "faults": of_faults,
    "inside": of_inside,
    "onnx": lambda paths, y: {"model": FineTunedClassifier("mobilenet_v2").fit(paths, y)},
    "saving": lambda paths, y: {"model": FineTunedClassifier("mobilenet_v2").fit(paths, y)},
    "seeing": of_seeing,
    "sounds": of_sounds,
    "targets": lambda paths, y: {
        "portraits": paths, "years": np.arange(12.0), "names": [["dog", "grass"], ["cat"]] * 6, "others": paths[:3],
    },
    "texts": lambda paths, y: dict(zip(("sentences", "labels"), make_texts(), strict=True)),
    "unbalanced": lambda paths, y: {"y": np.arange(12) % 3 == 0},
    "what_learns": lambda paths, y: {
        f"{name}_{part}": value
        for name, value in (("X", paths), ("y", y))
        for part in ("valid", "val", "large", "small")
    },
    "README": lambda paths, y: {
        name: getattr(module, name) for module in (sktransfer, inspection) for name in module.__all__
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", rest_exhaustive(PAGES, *FIRST), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_of_the_page_run(page, place):
    paths, y = write_photos(place / "photos")
    usual = {"X": paths, "photos": paths, "paths": paths, "y": y, "X_test": paths, "y_test": y}
    names = {**usual, **STAND_INS.get(page.stem, lambda paths, y: {})(paths, y), "__name__": "__main__"}
    for block in blocks(page):
        if block.note.startswith(("not run: ", "run by ")):
            continue
        code = block.code
        for large, small in SMALLER.items():
            code = code.replace(large, small)
        exec(compile("\n" * block.line + code, str(page), "exec"), names)
    plt.close("all")


def test_examples_of_how_long_use_the_speeds_of_its_table():
    table = (ROOT / "benchmarks" / "results" / "networks.md").read_text(encoding="utf-8")
    row = r"^\| ([^|(]+?)(?: \([^|]*)? \| (?:images|sentences) \| ([\d.,]+) \|"
    speeds = dict(re.findall(row, table, re.MULTILINE))
    page = (ROOT / "docs" / "guide" / "how_long.md").read_text(encoding="utf-8")
    example = r"^\| ([\d,]+) \w+, ([^|]+) \| ([\d,]+) / ([\d.,]+) \| (\d+) (s|minutes) \|$"
    rows = re.findall(example, page, re.MULTILINE)
    assert len(rows) == 5
    for samples, network, divided, speed, time, unit in rows:
        assert (divided, speed) == (samples, speeds[network])
        seconds = float(samples.replace(",", "")) / float(speed.replace(",", ""))
        assert int(time) == round(seconds if unit == "s" else seconds / 60), network


def test_few_blocks_are_not_run_and_each_says_why():
    notes = [block for page in PAGES for block in blocks(page) if block.note]
    not_run = [block for block in notes if block.note.startswith("not run: ")]
    for block in not_run:
        print(f"{block.page.relative_to(ROOT)}:{block.line}: {block.note}")
    assert len(not_run) <= MOST_NOT_RUN
    assert all(len(block.note.split()) > 4 for block in not_run)
    elsewhere = [block for block in notes if block.note.startswith("run by ")]
    for block in elsewhere:
        test = (ROOT / block.note.removeprefix("run by ")).read_text(encoding="utf-8")
        assert block.page.name in test or "run_snippet" in test, block
