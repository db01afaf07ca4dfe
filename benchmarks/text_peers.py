"""What one writes for texts without the package: transformers' Trainer in a loop, and sentence-transformers.

Each is written as its own documentation teaches it, with the same weights, on the CPU.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

Encode = Callable[[list[str]], np.ndarray]

# How the Trainer may be run: as it is, and in the precision that the package takes with batches of like length too.
TRAINERS = {
    "Trainer, float32": {},
    "Trainer, bfloat16, group_by_length": {"bf16": True, "train_sampling_strategy": "group_by_length"},
}


def is_here(*packages: str) -> bool:
    """Tell whether packages are installed, and say so where they are not."""
    lacking = [name for name in packages if find_spec(name) is None]
    if lacking:
        print(f"  {', '.join(lacking)}: not installed, so what needs it is left out", flush=True)
    return not lacking


def trainer_grid(
    model: Path,
    texts: list[str],
    labels: np.ndarray,
    candidates: Iterable[tuple[int | str, float]],
    folds: list[tuple[np.ndarray, np.ndarray]],
    epochs: int,
    **arguments: object,
) -> tuple[list[float], list[float]]:
    """Fine-tune in each fold with each candidate (depth, rate); return each one's mean accuracy, and its seconds."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    encoded = tokenizer(texts, truncation=True, max_length=256)["input_ids"]  # once for all, as one would
    rows = [{"input_ids": ids, "labels": int(label)} for ids, label in zip(encoded, labels, strict=True)]
    means, seconds = [], []
    for depth, rate in candidates:
        accuracies = []
        start = time.perf_counter()
        for training, held_out in folds:
            trainer = _trainer(model, tokenizer, [rows[i] for i in training], depth, rate, epochs, arguments)
            trainer.train()
            predicted = trainer.predict([rows[i] for i in held_out])
            # Labels as it returns them: where it sorts by length, it does so here too.
            accuracies.append(float((predicted.predictions.argmax(1) == predicted.label_ids).mean()))
        means.append(float(np.mean(accuracies)))
        seconds.append(time.perf_counter() - start)
    return means, seconds


def _trainer(model, tokenizer, training, depth, rate, epochs, arguments):
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    frozen = network.bert.encoder.layer if depth == "all" else network.bert.encoder.layer[: depth - 1]
    for part in [network.bert.embeddings, *frozen]:
        part.requires_grad_(False)
    settings = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        num_train_epochs=epochs,
        learning_rate=rate,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        weight_decay=0.01,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
        **arguments,
    )
    trainer = Trainer(network, settings, train_dataset=training, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.remove_callback(PrinterCallback)
    return trainer


def sentence_encoder(model: Path, bfloat16: bool = False) -> Callable[..., np.ndarray]:
    """Return the `encode` of sentence-transformers, which takes `batch_size=` too."""
    import torch
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(model), device="cpu")
    if bfloat16:
        network = network.to(torch.bfloat16)
    return lambda texts, **settings: network.encode(texts, show_progress_bar=False, **settings)
