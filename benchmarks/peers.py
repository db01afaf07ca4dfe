"""What one writes without the package: the loop of tutorials, skorch by hand, other libraries, or no library at all.

Each is written as its own documentation teaches it, with the same weights, on the GPU where there is one; bare_network
is the exception: the fastest forward pass that we know how to write, to see what is left between it and an estimator.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from skorch import NeuralNetClassifier
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.utils.data import DataLoader, Dataset
from torchvision.models import get_model
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from sktransfer._computing._execution import multiplies_bfloat16

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PREPARE = Compose([Resize(256), CenterCrop(224), ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
# What `precision="auto"` may take here: peers are compared in the same.
PRECISIONS = ["float32", *(["bfloat16"] if multiplies_bfloat16(DEVICE) else [])]
Extract = Callable[[Sequence[str]], np.ndarray]


def read(path: str) -> torch.Tensor:
    return PREPARE(Image.open(path).convert("RGB"))


class ImageFiles(Dataset):
    """The data set of tutorials: paths, and labels where there are any."""

    def __init__(self, X, y=None):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, number):
        return read(self.X[number]), 0 if self.y is None else int(self.y[number])


def loaded(network: str, weights: Path) -> nn.Module:
    model = get_model(network, weights=None)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


# The loop of tutorials


def tutorial_loop(weights: Path, precision: str) -> Extract:
    """Return a function that extracts the features of ResNet-18 as PyTorch's tutorials do."""
    model = loaded("resnet18", weights)
    model.fc = nn.Identity()
    return _loop_over(model.to(DEVICE), ImageFiles, precision)


def _loop_over(model: nn.Module, data_set: Callable[[Sequence[str]], Dataset], precision: str) -> Extract:
    def extract(paths):
        with torch.no_grad(), computed_in(precision):
            batches = DataLoader(data_set(paths), batch_size=32, num_workers=0)
            return torch.cat([model(batch.to(DEVICE)).float().cpu() for batch, _ in batches]).numpy()

    return extract


def computed_in(precision: str) -> contextlib.AbstractContextManager:
    """Let torch multiply in bfloat16, as its documentation teaches it, or leave it as it is."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


# skorch by hand


class FrozenMobileNet(nn.Module):
    """MobileNetV2 under a new linear head; its first modules are not trained, and their BatchNorm does not drift."""

    def __init__(self, weights, frozen=19, precision="float32"):
        super().__init__()
        self.features = loaded("mobilenet_v2", weights).features
        self.head = nn.Linear(1280, 2)
        self.frozen, self.precision = frozen, precision
        for parameter in self.features[:frozen].parameters():
            parameter.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        self.features[: self.frozen].eval()
        return self

    def forward(self, batch):
        with computed_in(self.precision):
            features = self.features(batch)
        return self.head(features.float().mean((2, 3)))


def skorch_by_hand(weights: Path, epochs: int, precision: str = "float32") -> NeuralNetClassifier:
    return NeuralNetClassifier(
        FrozenMobileNet,
        module__weights=weights,
        module__precision=precision,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        max_epochs=epochs,
        batch_size=32,
        dataset=ImageFiles,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        device=str(DEVICE),
    )


# Other libraries


def other_libraries(weights: Path, precision: str) -> Iterator[tuple[str, Extract]]:
    """Yield the libraries that are installed, with a function that extracts the features of ResNet-18."""
    for name, module, make in (
        ("timm", "timm", _timm),
        ("embetter", "embetter.vision", _embetter),
        ("OpenVINO", "openvino", _openvino),
    ):
        try:
            import_module(module)
        except ImportError:
            print(f"  {name} is not installed: left out", flush=True)
        else:
            yield name, make(weights, precision)


def _timm_network(weights: Path) -> nn.Module:
    import timm

    model = timm.create_model("resnet18", pretrained=False, num_classes=0)
    state = torch.load(weights, weights_only=True)
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    return model


def _timm(weights: Path, precision: str) -> Extract:
    from timm.data import create_transform, resolve_data_config

    model = _timm_network(weights).eval().to(DEVICE)
    prepare = create_transform(**resolve_data_config({}, model=model))

    class Prepared(ImageFiles):
        def __getitem__(self, number):
            return prepare(Image.open(self.X[number]).convert("RGB")), 0

    return _loop_over(model, Prepared, precision)


def _embetter(weights: Path, precision: str) -> Extract:
    from embetter.vision import ImageLoader, TimmEncoder
    from sklearn.pipeline import make_pipeline

    # The encoder downloads weights by itself: it is handed ours instead.
    with mock.patch("timm.create_model", return_value=_timm_network(weights)):
        encoder = TimmEncoder("resnet18")
    pipeline = make_pipeline(ImageLoader(convert="RGB"), encoder)

    def extract(paths):
        with computed_in(precision):
            return np.asarray(pipeline.fit_transform(paths), dtype=np.float32)

    return extract


def _openvino(weights: Path, precision: str) -> Extract:
    import openvino

    model = loaded("resnet18", weights)
    model.fc = nn.Identity()
    converted = openvino.convert_model(model, example_input=torch.zeros(1, 3, 224, 224))
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": {"float32": "f32"}.get(precision, "bf16")}
    compiled = openvino.compile_model(converted, "CPU", hints)

    def extract(paths):
        parts: dict[int, np.ndarray] = {}
        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(lambda request, first: parts.update({first: request.get_output_tensor().data.copy()}))
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for first in range(0, len(paths), 8):
                queue.start_async(torch.stack(list(threads.map(read, paths[first : first + 8]))).numpy(), first)
            queue.wait_all()
        return np.concatenate([parts[first] for first in sorted(parts)])

    return extract


# No library


def bare_network(network: str, weights: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the forward pass alone, as fast as plain torch makes it, in the precision that the package chooses."""
    model = fuse(loaded(network, weights)).to(DEVICE, memory_format=torch.channels_last)
    bfloat16 = multiplies_bfloat16(DEVICE)
    if bfloat16:
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(torch.bfloat16)  # once, where autocast would do it again in each pass

    def forward(batch):
        autocast = torch.autocast(DEVICE.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext()
        with torch.inference_mode(), autocast:
            return model(batch.to(DEVICE, memory_format=torch.channels_last)).float().cpu()

    return forward
