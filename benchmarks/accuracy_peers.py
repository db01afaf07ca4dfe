"""What a user would take instead of the package, with the same weights and pictures of the same size and crop.

fastai's `fine_tune`, the two phases of many tutorials in plain torch, transformers' `Trainer`, and SetFit. Each gets
what suits few samples: small batches, and enough steps. Networks run in bfloat16 where the
package takes it too. No pictures are augmented, in any row: what helps photos harms digits.
"""

import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from accuracy_rows import Row, Task
from PIL import Image
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from sktransfer._computing._execution import multiplies_bfloat16

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BFLOAT16 = multiplies_bfloat16(DEVICE)
BATCH = 32
# Of the two phases: as tutorials do, but with 30 epochs of the head in place of 10, which are too few for few samples.
HEAD_EPOCHS, TUNED_EPOCHS, TUNED_SHARE = 30, 10, 0.3
# Epochs of fastai: as its tutorials have it, and enough for a few samples.
FASTAI_EPOCHS, FASTAI_MORE_EPOCHS = 5, 15
# Steps of the Trainer, at least: three epochs, its default, are six steps where there are ten samples.
TRAINER_STEPS = 60
# Steps of SetFit, at most: all pairs of 1,000 samples would take hours.
SETFIT_STEPS = 60


def pictures(task: Task, X: np.ndarray) -> torch.Tensor:
    """Return pictures as a network wants them, float32 of shape (n_samples, 3, height, width)."""
    wanted = task.network.preprocessing
    interpolation = functional.InterpolationMode(wanted.interpolation)
    prepare = v2.Compose(
        [
            v2.Resize(wanted.resize, interpolation, antialias=True),
            v2.CenterCrop(wanted.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(wanted.mean) * (3 // len(wanted.mean)), list(wanted.std) * (3 // len(wanted.std))),
        ]
    )
    opened = (Image.open(x) if isinstance(x, str) else Image.fromarray(x) for x in X)
    return torch.stack([prepare(picture.convert("RGB")) for picture in opened]).to(memory_format=torch.channels_last)


class _Body(nn.Module):
    """Blocks in the precision that the package takes too."""

    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.blocks = nn.Sequential(*blocks).to(memory_format=torch.channels_last)

    def forward(self, batch):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=BFLOAT16):
            maps = self.blocks(batch)
        return maps.float()


class _Head(nn.Module):
    def __init__(self, n_features: int, n_classes: int):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, maps):
        return self.linear(maps.mean((2, 3)))


def _probabilities(model: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    model.eval()
    with torch.inference_mode():
        parts = [model(part.to(DEVICE)).softmax(1).cpu() for part in inputs.split(BATCH)]
    return torch.cat(parts).double().numpy()


def _batches(n: int) -> Iterator[torch.Tensor]:
    yield from torch.randperm(n).split(BATCH)


def _train(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, lr: float, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for rows in _batches(len(labels)):
            loss = nn.functional.cross_entropy(model(inputs[rows].to(DEVICE)), labels[rows].to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _maps(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(part.to(DEVICE)).cpu() for part in inputs.split(BATCH)])


def two_phases(task: Task) -> np.ndarray:
    """Train a head, then the last part of the network with it at 1e-5; BatchNorm stays as it was all the while.

    Without augmentation, what is frozen gives the same in each epoch, so it is run once. Tutorials run it in each.
    """
    torch.manual_seed(task.seed)
    blocks = list(task.network.body())
    cut = round(len(blocks) * (1 - TUNED_SHARE))
    lower, upper = (_Body(*part).to(DEVICE).eval() for part in (blocks[:cut], blocks[cut:]))
    inputs, labels = _maps(lower, pictures(task, task.X)), torch.from_numpy(task.y)
    maps = _maps(upper, inputs)
    head = _Head(maps.shape[1], task.n_classes).to(DEVICE)
    _train(head, maps, labels, 1e-3, 1 if task.quick else HEAD_EPOCHS)
    whole = nn.Sequential(upper, head)  # in eval mode, but with gradients
    _train(whole, inputs, labels, 1e-5, 1 if task.quick else TUNED_EPOCHS)
    return _probabilities(nn.Sequential(lower, whole), pictures(task, task.X_test))


def fastai(task: Task) -> np.ndarray:
    return _fastai(task, FASTAI_EPOCHS)


def fastai_frozen_batch_norm(task: Task) -> np.ndarray:
    return _fastai(task, FASTAI_MORE_EPOCHS, train_bn=False)


def _fastai(task: Task, epochs: int, **settings) -> np.ndarray:
    from fastai.callback.schedule import Learner  # whose import adds fine_tune
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.losses import CrossEntropyLossFlat
    from fastai.torch_core import default_device, params, set_seed
    from fastai.vision.learner import add_head

    set_seed(task.seed)
    default_device(DEVICE.type == "cuda")
    inputs, labels = pictures(task, task.X), torch.from_numpy(task.y)
    samples = list(zip(inputs, labels, strict=True))
    size = min(64, max(8, len(samples) // 4))  # 64 is fastai's own; the rest of an epoch is dropped
    loaders = DataLoaders(
        DataLoader(samples, bs=size, shuffle=True, drop_last=True),
        DataLoader(samples[:1], bs=1),
        device=DEVICE,
    )
    body = _Body(*task.network.body())
    with torch.no_grad():
        n_features = body.eval()(inputs[:1]).shape[1]
    # fastai's own head: both poolings, BatchNorm, dropout, a hidden layer.
    model = add_head(body, n_features, task.n_classes)
    learner = Learner(
        loaders,
        model,
        loss_func=CrossEntropyLossFlat(),
        splitter=lambda whole: [params(whole[0]), params(whole[1])],
        **settings,
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1 if task.quick else epochs)
    return _probabilities(learner.model, pictures(task, task.X_test))


def trainer(task: Task) -> np.ndarray:
    """Tune the whole network by transformers' Trainer, at its own rate, for three epochs or enough steps."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(task.seed)
    tokenizer = AutoTokenizer.from_pretrained(task.network.folder)
    rows, test = (
        [{"input_ids": ids, "labels": int(label)} for ids, label in zip(_tokens(tokenizer, X), y, strict=True)]
        for X, y in ((task.X, task.y), (task.X_test, task.data.y[task.test]))
    )
    network = AutoModelForSequenceClassification.from_pretrained(task.network.folder, num_labels=task.n_classes)
    size = min(16, max(4, len(rows) // 4))
    steps = -(-len(rows) // size)
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        num_train_epochs=1 if task.quick else max(3, -(-TRAINER_STEPS // steps)),
        per_device_train_batch_size=size,
        per_device_eval_batch_size=BATCH,
        bf16=BFLOAT16,
        use_cpu=DEVICE.type == "cpu",
        dataloader_pin_memory=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=task.seed,
    )
    learner = Trainer(network, arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
    learner.remove_callback(PrinterCallback)
    learner.train()
    logits = torch.from_numpy(learner.predict(test).predictions)
    return logits.double().softmax(1).numpy()


def _tokens(tokenizer, texts: np.ndarray) -> list[list[int]]:
    return tokenizer(list(texts), truncation=True, max_length=256)["input_ids"]


def setfit(task: Task) -> np.ndarray:
    """Tune by pairs of samples, then fit logistic regression, as SetFit does."""
    import logging

    from datasets import Dataset, disable_progress_bars
    from setfit import SetFitModel, Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    logging.getLogger("setfit").setLevel(logging.ERROR)
    disable_progress_bars()
    model = SetFitModel.from_pretrained(str(task.network.folder))
    samples = Dataset.from_dict({"text": list(task.X), "label": [int(label) for label in task.y]})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=16,
            num_epochs=1,
            max_steps=1 if task.quick else SETFIT_STEPS,
            sampling_strategy="oversampling",
            save_strategy="no",
            report_to="none",
            show_progress_bar=False,
            use_amp=False,
            seed=task.seed,
        )
        learner = Trainer(model=model, args=arguments, train_dataset=samples)
        learner.st_trainer.remove_callback(PrinterCallback)
        learner.train()
    return np.asarray(model.predict_proba(list(task.X_test), as_numpy=True), dtype=np.float64)


PEERS = {
    "two_phases": Row("two phases in plain torch (head, then the last 30 % at 1e-5)", two_phases, ("images",)),
    "fastai": Row(f"fastai, fine_tune({FASTAI_EPOCHS})", fastai, ("images",), ("fastai",)),
    "fastai_frozen_bn": Row(
        f"fastai, fine_tune({FASTAI_MORE_EPOCHS}), train_bn=False", fastai_frozen_batch_norm, ("images",), ("fastai",)
    ),
    "trainer": Row("transformers' Trainer", trainer, ("texts",), ("transformers", "accelerate")),
    "setfit": Row("SetFit", setfit, ("texts",), ("setfit",)),
}
