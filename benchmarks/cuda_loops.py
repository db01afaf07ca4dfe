"""What one writes for a GPU without the package, at its best: channels last, bfloat16, workers that load.

The bare network is given batches of 8 bits that are in pinned memory already; the loops read files with as many
workers as there are processors. All of them normalise on the device.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from cuda_trial import cores
from peers import loaded
from PIL import Image
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.functional import pil_to_tensor

from sktransfer._computing._execution import multiplies_bfloat16

HEADS = {"mobilenet_v2": "classifier", "resnet18": "fc", "resnet50": "fc", "vit_b_16": "heads"}
WIDTHS = {"mobilenet_v2": 1280, "resnet18": 512, "resnet50": 2048}
SIZED = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])


def augmentation() -> v2.Transform:
    """Return what `augment="standard"` does."""
    affine = v2.RandomAffine(15, scale=(0.85, 1.15), interpolation=InterpolationMode.BILINEAR)
    return v2.Compose([v2.RandomHorizontalFlip(), affine, v2.ColorJitter(brightness=0.2, contrast=0.2)])


def without_head(network: str, weights: Path) -> nn.Module:
    model = loaded(network, weights)
    setattr(model, HEADS[network], nn.Identity())
    return model


@contextlib.contextmanager
def kernels_tried_out() -> Iterator[None]:
    """Let cuDNN try out which kernels are fastest for the shapes that it meets: here alone, the package does not."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Normalise(nn.Module):
    """Turns 8 bits into what networks of torchvision take, on the device."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.float().sub_(self.mean).div_(self.deviation).contiguous(memory_format=torch.channels_last)


class BareNetwork:
    """A network without its head, all of it in bfloat16 where the device is fast at that, and its normalisation."""

    def __init__(self, network: str, weights: Path, device: torch.device):
        model = without_head(network, weights)
        if network.startswith("resnet"):
            model = fuse(model)  # BatchNorm goes into the convolutions
        self.dtype = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
        self.model = model.to(device, self.dtype, memory_format=torch.channels_last)
        self.normalise = Normalise().to(device)
        self.device = device

    def __call__(self, batches: Iterable[torch.Tensor]) -> np.ndarray:
        """Return the features of batches of shape (n, 3, 224, 224), 8 bits."""
        with torch.inference_mode(), kernels_tried_out():
            outputs = [self.model(self._prepared(batch)).float() for batch in batches]
            return torch.cat(outputs).cpu().numpy()

    def _prepared(self, batch: torch.Tensor) -> torch.Tensor:
        return self.normalise(batch.to(self.device, non_blocking=True)).to(self.dtype)


class Files(Dataset):
    """Files as tensors of 8 bits, with their labels."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int] | None = None, augment: bool = False):
        self.paths, self.labels = list(paths), labels
        self.augment = augmentation() if augment else None

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        picture = pil_to_tensor(SIZED(Image.open(self.paths[number]).convert("RGB")))
        if self.augment is not None:
            picture = self.augment(picture)
        return picture, 0 if self.labels is None else int(self.labels[number])


def batches_of(
    files: Files, batch_size: int, device: torch.device, shuffle: bool = False, workers: int | None = None
) -> DataLoader:
    """Return what loads them, with a worker per processor; workers stay, so only a first pass waits for their start."""
    workers = cores() if workers is None else workers
    return DataLoader(
        files,
        batch_size,
        shuffle=shuffle,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )


def tuning_loop(
    network: str,
    weights: Path,
    trained: set[str],
    batches: DataLoader,
    epochs: int,
    device: torch.device,
    bfloat16: bool | None = None,
) -> Callable[[], None]:
    """Return a function that tunes some parameters of a network, and a new head, for some epochs.

    In bfloat16 where the device is fast at it, unless that is said.
    BatchNorm keeps its statistics, as in the package. Of layers in front of the first trained one, autograd keeps
    nothing.
    """
    start = without_head(network, weights)
    bfloat16 = multiplies_bfloat16(device) if bfloat16 is None else bfloat16

    def tune() -> None:
        body = copy.deepcopy(start).to(device, memory_format=torch.channels_last).eval()
        for name, parameter in body.named_parameters():
            parameter.requires_grad_(name in trained)
        head, normalise = nn.Linear(WIDTHS[network], 2).to(device), Normalise().to(device)
        learned = [parameter for parameter in (*body.parameters(), *head.parameters()) if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=3e-5, fused=True)
        with kernels_tried_out():
            for _ in range(epochs):
                for pictures, labels in batches:
                    prepared = normalise(pictures.to(device, non_blocking=True))
                    targets = labels.to(device, non_blocking=True)
                    with torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext():
                        logits = head(body(prepared))
                    loss = nn.functional.cross_entropy(logits.float(), targets)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return tune
