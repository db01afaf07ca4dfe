"""One image at a time: what an estimator adds to preprocessing and a forward pass, in a running process and a new one.

Both sides see other pictures each time, so that nothing is found in the cache. The peer is the whole network in eval
mode with the same weights, and torchvision's transforms.
"""

import statistics
import subprocess
import sys

import numpy as np
import torch
from measuring import Record, Setting, stopwatch
from peers import PREPARE, loaded, read
from PIL import Image

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer._cache._memory_store import PROCESS_CACHE

NETWORK = "mobilenet_v2"
PEER = "PIL, torchvision's transforms, one forward pass"

BARE = """
import sys
import torch
from PIL import Image
from torchvision.models import get_model
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor
network, weights, picture = sys.argv[1:]
model = get_model(network, weights=None)
model.load_state_dict(torch.load(weights, weights_only=True))
model.eval()
prepare = Compose([Resize(256), CenterCrop(224), ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
with torch.inference_mode():
    print(model(prepare(Image.open(picture).convert("RGB"))[None]).argmax().item())
"""
OURS = """
import sys
import sktransfer
print(sktransfer.load(sys.argv[1]).predict([sys.argv[2]])[0])
"""


def one_image(setting: Setting) -> list[Record]:
    """Transform and predict arrays and JPEGs one by one, with the cache and without."""
    n_fit, n_warm, n = 8, 4, setting.size(40, 3)
    paths = setting.pictures.distinct(n_fit + 5 * (n_warm + n))
    weights = setting.pictures.weights(NETWORK)
    model = loaded(NETWORK, weights)

    def bare(picture):
        with torch.inference_mode():
            return model(read(picture)[None] if isinstance(picture, str) else PREPARE(Image.fromarray(picture))[None])

    tasks, how = {"bare network": bare}, {"weights": weights, "random_state": 0}
    y = np.arange(n_fit) % 2
    for cache in (None, "auto"):
        extractor = PretrainedFeatureExtractor(NETWORK, feature_cache=cache, **how).fit(paths[:n_fit])
        classifier = FineTunedClassifier(NETWORK, feature_cache=cache, **how).fit(paths[:n_fit], y)
        tasks[f"transform, feature_cache={cache!r}"] = lambda picture, one=extractor: one.transform([picture])
        tasks[f"predict, feature_cache={cache!r}"] = lambda picture, one=classifier: one.predict([picture])
    records = []
    for form, given in (("JPEG", str), ("array", _pixels)):
        PROCESS_CACHE.clear()
        milliseconds: dict[str, list[float]] = {name: [] for name in tasks}
        coming = iter(paths[n_fit:])
        for _ in range(n_warm + n):
            for name, task in tasks.items():
                picture = given(next(coming))
                milliseconds[name].append(1000 * stopwatch(lambda task=task, picture=picture: task(picture)))
        peer = milliseconds.pop("bare network")[n_warm:]
        records += [
            Record(
                f"{name}, one {form}, {NETWORK}",
                "ms",
                spent[n_warm:],
                peer,
                "bare network",
                note=f"the peer: {PEER}",
                label=f"Predict one array, {NETWORK}"
                if (name, form) == ("predict, feature_cache='auto'", "array")
                else "",
            )
            for name, spent in milliseconds.items()
        ]
    return records


def new_process(setting: Setting) -> list[Record]:
    """Time whole commands, in turns: load a saved model and predict one JPEG, against a script without the package."""
    paths = setting.pictures.distinct(8)
    weights, folder = setting.pictures.weights(NETWORK), setting.pictures.folder
    commands = {"bare": (BARE, NETWORK, weights, paths[0])}
    for name, how in (("solved head", {}), ("tuned blocks", {"freeze_depth": 0.75, "max_epochs": 1})):
        model = FineTunedClassifier(NETWORK, weights=weights, random_state=0, feature_cache=None, **how)
        sktransfer.save(model.fit(paths, np.arange(8) % 2), folder / f"{name}.safetensors")
        commands[name] = (OURS, folder / f"{name}.safetensors", paths[0])
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(setting.size(9, 1)):
        for name, (script, *arguments) in commands.items():
            command = [sys.executable, "-c", script, *map(str, arguments)]
            seconds[name].append(stopwatch(lambda command=command: _run(command)))
    peer = seconds.pop("bare")
    print(f"  a bare script: {statistics.median(peer):.2f} s", flush=True)
    return [
        Record(
            f"new process to first prediction, {name}, {NETWORK}",
            "s",
            spent,
            peer,
            "bare script",
            note=f"the peer: import torch and torchvision, torch.load, {PEER}",
            label=f"Load a model and predict, {name}",
        )
        for name, spent in seconds.items()
    ]


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((224, 224)))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
