"""Measure how long each of torch's exporters takes to write eight networks as ONNX, and how near the files come.

    python benchmarks/onnx_export.py [--output benchmarks/results/onnx_export.md] [--quick]

Weights are random, and the text network is a small BERT that is made on the spot: no download. Each way takes one turn,
in one thread, after a small network that imports what the exporters need. Needs `pip install "sktransfer[onnx,text]"
onnxruntime`.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from measuring import machine, stopwatch
from torch import nn

from sktransfer import PretrainedFeatureExtractor

HERE = Path(__file__).resolve().parent
NETWORKS = ["mobilenet_v2", "resnet18", "efficientnet_b0", "densenet121", "convnext_tiny", "vit_b_16", "swin_t"]
WORDS = ["a", "film", "good", "bad", "not", "plot", "the", "of"]


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


def texts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([" ".join(rng.choice(WORDS, n)) for n in (12, 5, 30)], dtype=object)


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8))


def make_text_network(folder: Path) -> str:
    """Write a BERT of six layers with random weights, and its tokenizer, and return what names it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return f"hf:{folder}"


@contextmanager
def older_alone() -> Iterator[None]:
    """Make the package take the older exporter, as where onnxscript is not installed."""
    found = sys.modules.get("onnxscript")
    sys.modules["onnxscript"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop("onnxscript")
        if found is not None:
            sys.modules["onnxscript"] = found


def measure(backbone: str | Callable, X: np.ndarray) -> dict[str, object]:
    """Return which exporter wrote the file, seconds of each way, megabytes, and the largest difference to torch."""
    how = {"precision": "float32", "random_state": 0, "feature_cache": None}
    if not str(backbone).startswith("hf:"):
        how["weights"] = None
    fitted = PretrainedFeatureExtractor(backbone, **how).fit(X)
    expected, samples = fitted.transform(X), fitted._read(X)
    prepared = samples.prepare(torch.stack([samples.load(row) for row in range(len(X))])) if X.ndim > 1 else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch's older exporter wrote")
        file = Path(folder, "model.onnx")
        with older_alone():
            older = stopwatch(lambda: fitted.to_onnx(file))
        seconds = stopwatch(lambda: fitted.to_onnx(file))
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        if prepared is None:  # texts of several lengths: one by one
            rows = [samples.prepare(samples.load(row)[None]).numpy() for row in range(len(X))]
            found = np.concatenate([session.run(None, {"prepared": row})[0] for row in rows])
        else:
            (found,) = session.run(None, {"prepared": prepared.numpy()})
        return {
            "exporter": json.loads(Path(f"{file}.json").read_text())["exporter"],
            "seconds": seconds,
            "older": older,
            "megabytes": file.stat().st_size / 1e6,
            "difference": float(np.abs(found - expected).max() / np.abs(expected).max()),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "onnx_export.md")
    parser.add_argument("--quick", action="store_true", help="one network, printed and not written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    measure(small, np.random.default_rng(0).random((3, 4), dtype=np.float32))
    lines = [
        "| network | written by | seconds | seconds, the older way (TorchScript) | MB | largest difference to torch |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cases = [(name, name, images()) for name in (["squeezenet1_1"] if given.quick else NETWORKS)]
        if not given.quick:
            cases.append(("BERT, 6 layers of 384", make_text_network(Path(folder)), texts()))
        for name, backbone, X in cases:
            found = measure(backbone, X)
            lines.append(
                f"| {name} | {found['exporter']} | {found['seconds']:.1f} | {found['older']:.1f} | "
                f"{found['megabytes']:.0f} | {found['difference']:.0e} |"
            )
            print(lines[-1], flush=True)
    here = machine()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript", "onnxruntime"))
    about = "One turn each, one thread. Differences are a part of the largest feature."
    lines += ["", f"{about} {here['processor']}, {packages}."]
    print("\n".join(lines[-2:]))
    if not given.quick:
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
