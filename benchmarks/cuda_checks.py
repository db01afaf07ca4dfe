"""What has to hold on a device: little memory, memory left, files that go elsewhere, threads, seeds, frozen weights.

On a CPU all of it runs too. What only a card can show is said to be not checked there.
"""

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import joblib
import numpy as np
import torch
from cuda_trial import Trial
from measuring import Record
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, clear_cache

HERE = Path(__file__).resolve().parent

# How far probabilities of one model in float32 may be apart on two devices: convolutions use TF32 on a card.
TOLERANCE = 0.01

# The same, of one model in one precision on one device, with samples in other batches.
ROUNDING = 1e-4


def tests(trial: Trial) -> None:
    """Run the tests that are marked for a GPU; without one they are skipped."""
    folder = HERE.parent / "tests"
    files = [path for path in sorted(folder.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    report = trial.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", *map(str, files)]
    subprocess.run(command, cwd=HERE.parent, check=False)  # noqa: S603
    counts = [
        {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        for suite in ElementTree.parse(report).iter("testsuite")  # noqa: S314
    ]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    ran, failed = total["tests"] - total["skipped"], total["failures"] + total["errors"]
    for what, count in (("ran", ran), ("were skipped", total["skipped"]), ("failed", failed)):
        trial.measured(Record(f"tests marked gpu that {what}", "tests", [count]))
    trial.checked("no test failed", failed == 0, f"{failed} of {ran}")
    none_skipped = total["skipped"] == 0 and ran > 0
    trial.checked("no test was skipped", none_skipped if trial.on_cuda else None, f"{total['skipped']} skipped")


# Little memory


def ration(x: torch.Tensor) -> torch.Tensor:
    """Fail as CUDA does where there is no memory, if a batch is larger than `Rationed.most`."""
    if len(x) > Rationed.most:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory: only made up, for a CPU")
    return x


torch.fx.wrap("ration")


class Rationed(nn.Module):
    """A network that runs out of memory on a CPU."""

    most = 10**9

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=4), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(ration(x)).mean((2, 3))


def halving(trial: Trial) -> None:
    """Fit and transform where a batch does not fit; each ends, with one warning."""
    batch_size, n = trial.size(256, 16), trial.size(512, 32)
    images = np.random.default_rng(0).integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)
    labels = np.arange(n) % 2
    torch.manual_seed(0)
    backbone: Any = "resnet50" if trial.on_cuda else Rationed()
    weights = trial.pictures.weights("resnet50") if trial.on_cuda else None
    how = {"weights": weights, "device": str(trial.device), "precision": "float32", "batch_size": batch_size}
    extractor = PretrainedFeatureExtractor(backbone, feature_cache=None, **how)
    classifier = FineTunedClassifier(
        backbone, freeze_depth=0, strategy="fine_tune", max_epochs=1, random_state=0, feature_cache=None, **how
    )
    extractor.fit(images[:1])
    plenty = extractor.transform(images[:batch_size])
    with _little_left(trial, lambda: extractor.transform(images[:batch_size]), "transform"):
        scarce = _warned(trial, "transform", lambda: extractor.transform(images[:batch_size]))
    least = np.abs(plenty - scarce).max() / np.abs(plenty).max()
    trial.checked("features are those of before, to rounding", bool(least < TOLERANCE), f"{least:.1e} apart")
    with _little_left(trial, lambda: classifier.fit(images[:batch_size], labels[:batch_size]), "fit"):
        _warned(trial, "fit", lambda: classifier.fit(images, labels))
    finite = np.isfinite(classifier.predict_proba(images[:batch_size])).all()
    trial.checked("what was fitted predicts", bool(finite))


class _little_left:  # noqa: N801
    """Leave less memory than a task needs: fill the card, or on a CPU let the network say that there is none."""

    def __init__(self, trial: Trial, task: Callable[[], object], name: str):
        self.trial, self.task, self.name, self.filling = trial, task, name, None

    def __enter__(self) -> None:
        if not self.trial.on_cuda:
            Rationed.most = 5
            return
        device = self.trial.device
        _settle(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        self.task()
        needed = torch.cuda.max_memory_allocated(device) - before
        _settle(device)
        free, _ = torch.cuda.mem_get_info(device)
        left = int(needed * 0.4)
        self.filling = torch.empty(max(0, free - left), dtype=torch.uint8, device=device)
        print(f"  {self.name} needs {needed / 2**20:.0f} MiB; {left / 2**20:.0f} MiB are left to it", flush=True)

    def __exit__(self, *raised: object) -> None:
        Rationed.most, self.filling = 10**9, None
        if self.trial.on_cuda:
            _settle(self.trial.device)


def _warned(trial: Trial, name: str, task: Callable[[], Any]) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        result = task()
        seconds = time.perf_counter() - start
    told = sum("ran out of memory" in str(warning.message) for warning in caught)
    trial.checked(f"{name} on a filled card ends, with one warning", told == 1, f"{told} warnings, {seconds:.1f} s")
    return result


# Memory that is left


def _settle(device: torch.device) -> None:
    """Wait for the device, and let go of what torch holds on to for later."""
    gc.collect()
    if device.type != "cuda":
        return
    torch.cuda.synchronize(device)
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)  # torch's own, which count as allocated
    if clear is not None:
        clear()
    torch.cuda.empty_cache()


def _allocated(device: torch.device) -> int:
    _settle(device)
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def memory(trial: Trial) -> None:
    """See what stays on the device: parts of shared networks that are ready to run, until `clear_cache`."""
    n, network = trial.size(128, 8), "resnet18" if trial.quick else "resnet50"
    images = np.random.default_rng(0).integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)
    weights, labels, device = trial.pictures.weights(network), np.arange(n) % 2, trial.device
    linear = nn.Linear(8, 8).to(device)
    linear(torch.zeros(8, 8, device=device))  # brings up what torch keeps for itself
    del linear
    before = _allocated(device)
    how = {"weights": weights, "device": str(device)}
    extractor = PretrainedFeatureExtractor(network, feature_cache=None, **how).fit(images[:1])
    classifier = FineTunedClassifier(network, freeze_depth=0.5, max_epochs=1, random_state=0, **how)
    extractor.transform(images)
    size = sum(parameter.nbytes for parameter in extractor.backbone_.network.parameters())
    for name, task in (
        ("transform", lambda: extractor.transform(images)),
        ("fit", lambda: classifier.fit(images, labels)),
        ("predict", lambda: classifier.predict(images)),
    ):
        task()
        left = _allocated(device) - before
        trial.measured(Record(f"left on the device after {name}", "bytes", [left]))
        # The extractor's part and the classifier's share their layers, but for the norms that only one of them folds.
        held = left <= 1.1 * size + 2**21 if trial.on_cuda else None
        trial.checked(f"after {name} no more than the network's weights stay", held, f"{left:,} of {size:,} bytes")
    clear_cache()
    left = _allocated(device) - before
    trial.measured(Record("left on the device after clear_cache", "bytes", [left]))
    trial.checked("after clear_cache nothing stays", left == 0 if trial.on_cuda else None, f"{left:,} bytes")
    on_cpu = {tensor.device.type for tensor in classifier.net_.module_.state_dict().values()} == {"cpu"}
    trial.checked("the tuned network is on the CPU", on_cpu)


# There and back


def _tuned(trial: Trial, **parameters: Any) -> tuple[FineTunedClassifier, np.ndarray, np.ndarray]:
    """Return a classifier that was tuned on few pictures, these, and their labels."""
    paths, labels = trial.pictures.labelled(trial.size(64, 8))
    weights = trial.pictures.weights("resnet18")
    how = {"freeze_depth": 0.5, "max_epochs": trial.size(3, 1), "random_state": 0, "precision": "float32"}
    settings = {"weights": weights, "device": str(trial.device), **how, **parameters}
    return FineTunedClassifier("resnet18", **settings).fit(paths, labels), paths, labels


def round_trips(trial: Trial) -> None:
    """Predict elsewhere: what was fitted on the device without it, and what was fitted on a CPU on the device."""
    classifier, paths, _ = _tuned(trial)
    here = classifier.predict_proba(paths)
    classifier.set_params(device="auto")  # as anyone sets who takes a model elsewhere
    folder = trial.folder / "elsewhere"
    folder.mkdir(exist_ok=True)
    joblib.dump(classifier, folder / "model.joblib")
    sktransfer.save(classifier, folder / "model.sktransfer")
    np.save(folder / "paths.npy", paths.astype(str))  # which is read without pickle
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(HERE / "cuda.py"), "--predict", str(folder)]
    subprocess.run(command, check=True, env=environment)  # noqa: S603
    for name in ("joblib", "sktransfer"):
        _same(trial, f"model.{name}, in a process without a card", here, np.load(folder / f"{name}.npy"))
    made, paths, _ = _tuned(trial, device="cpu")
    _same(trial, "a model of the CPU on the device", made.predict_proba(paths), _moved(made, trial, paths))


def _moved(model: FineTunedClassifier, trial: Trial, paths: np.ndarray) -> np.ndarray:
    clear_cache()  # else activations of the CPU were found, if the device is one too
    return model.set_params(device=str(trial.device)).predict_proba(paths)


def _same(trial: Trial, name: str, here: np.ndarray, there: np.ndarray) -> None:
    apart = float(np.abs(here - there).max())
    trial.measured(Record(f"{name}: probabilities differ by at most", "", [apart]))
    trial.checked(f"{name}: probabilities within {TOLERANCE}", apart <= TOLERANCE, f"{apart:.1e}")
    same = (here.argmax(1) == there.argmax(1)) | (np.abs(here[:, 0] - 0.5) < TOLERANCE)
    trial.checked(f"{name}: same labels", bool(same.all()), f"{same.sum()} of {len(same)}")


def predict_elsewhere(folder: Path) -> None:
    """Load both models of a folder in this process, which sees no card, and write down what they predict."""
    if torch.cuda.is_available():
        raise RuntimeError("expected a process without a card")
    paths = np.load(folder / "paths.npy")
    for name, model in (
        ("joblib", joblib.load(folder / "model.joblib")),
        ("sktransfer", sktransfer.load(folder / "model.sktransfer")),
    ):
        np.save(folder / f"{name}.npy", model.predict_proba(paths))


# Threads, seeds, frozen weights


def threads(trial: Trial) -> None:
    """Predict in four threads at once with one estimator; each has pictures of its own."""
    classifier, paths, labels = _tuned(trial, feature_cache=None)
    parts = [paths[start::4] for start in range(4)]
    alone = [classifier.predict_proba(part) for part in parts]
    together: list[Any] = [None] * 4
    problems: list[BaseException] = []

    def predict(number: int) -> None:
        try:
            for _ in range(trial.size(5, 1)):
                together[number] = classifier.predict_proba(parts[number])
        except BaseException as error:  # told below, in the thread that waits for this one
            problems.append(error)

    workers = [threading.Thread(target=predict, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if problems:
        raise problems[0]
    apart = max(float(np.abs(one - other).max()) for one, other in zip(alone, together, strict=True))
    trial.checked("four threads at once get what each gets alone", apart <= ROUNDING, f"{apart:.1e} apart")
    _frozen_weights(trial, classifier)
    again = FineTunedClassifier(**classifier.get_params()).fit(paths, labels)
    first, second = (model.predict_proba(paths) for model in (classifier, again))
    apart = float(np.abs(first - second).max())
    trial.measured(Record("two fits of one seed: probabilities differ by at most", "", [apart]))


def _frozen_weights(trial: Trial, classifier: FineTunedClassifier) -> None:
    original = torch.load(trial.pictures.weights("resnet18"), weights_only=True)
    held = classifier.backbone_.network.state_dict()
    same = all(torch.equal(held[name], original[name]) for name in held)
    trial.checked("a fit leaves the backbone as it was, to the bit", same, f"{len(held)} tensors")
    tail = classifier.net_.module_.tail
    buffers = dict(tail.named_buffers())
    same = all(torch.equal(buffer.cpu(), original[name]) for name, buffer in buffers.items())
    trial.checked("statistics of BatchNorm among tuned blocks stay, to the bit", same, f"{len(buffers)} tensors")
    moved = sum(not torch.equal(one.cpu(), original[name]) for name, one in tail.named_parameters())
    trial.checked("tuned blocks were tuned", moved > 0, f"{moved} tensors changed")
