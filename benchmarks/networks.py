"""Measure how many images and sentences per second 20 networks turn into features, on two cores.

    python benchmarks/networks.py [--output benchmarks/results/networks.md] [--threads 2] [--quick]

Weights are random: a speed does not depend on them, and nothing is downloaded. The samples are JPEGs of 500 x 375
pixels, and sentences of some 20 words. Networks take turns, four times. The fastest pass is shown: other programs can
only slow it down. The cache is off. Networks of timm and transformers take part where these packages are installed.
"""

import argparse
import datetime
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from measuring import Others, in_turns, machine
from PIL import Image

from sktransfer import PretrainedFeatureExtractor
from sktransfer._computing._execution import multiplies_bfloat16

HERE = Path(__file__).resolve().parent
TORCHVISION = [
    "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x1_0", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_large",
    "efficientnet_b0", "resnet18", "densenet121", "resnet50", "convnext_tiny", "swin_t", "vit_b_16", "vgg16",
]  # fmt: skip
TIMM = ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "vit_small_patch16_224"]
# Layers, width and attention heads of the text networks that people begin with.
TEXTS = {
    "MiniLM-L6 (BERT, 6 x 384)": (6, 384, 12),
    "DistilBERT (6 x 768)": (6, 768, 12),
    "BERT base (12 x 768)": (12, 768, 12),
}
WORDS = ["the", "a", "film", "story", "actor", "is", "was", "very", "not", "good", "bad", "slow", "and", "of", "it"]
REPEATS = 4


def jpegs(folder: Path, n: int) -> list[str]:
    """Write JPEGs of the size of photos, no two alike."""
    files = []
    for number in range(n):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        files.append(str(folder / f"{number}.jpg"))
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def sentences(n: int) -> list[str]:
    """Return sentences of 15 to 25 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(15, 26))) for _ in range(n)]


def make_text_network(folder: Path, layers: int, width: int, heads: int) -> str:
    """Write a BERT of these sizes and a tokenizer of one token per word, and return what names them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder.mkdir()
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    BertModel(BertConfig(vocab_size=30522, intermediate_size=4 * width, **sizes)).save_pretrained(folder)
    return f"hf:{folder}"


def networks(folder: Path, quick: bool) -> Iterator[tuple[str, str, str]]:
    """Yield what each network is called, what is given as `backbone=`, and what it takes."""
    for name in TORCHVISION[:2] if quick else TORCHVISION:
        yield name, name, "images"
    for name in TIMM[:1] if quick else TIMM:
        if find_spec("timm"):
            yield f"timm:{name}", f"timm:{name}", "images"
    for name, sizes in list(TEXTS.items())[: 1 if quick else None]:
        if find_spec("transformers"):
            yield name, make_text_network(folder / name.partition(" ")[0], *sizes), "sentences"


def ready(backbone: str, X: list[str]) -> PretrainedFeatureExtractor:
    """Return a fitted extractor that has passed a few samples."""
    weights = {} if backbone.startswith("hf:") else {"weights": None}
    extractor = PretrainedFeatureExtractor(backbone, **weights, feature_cache=None, random_state=0).fit(X[:2])
    extractor.transform(X[:8])
    return extractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "networks.md")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="four networks on few samples, printed and not written")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    others = Others()
    with tempfile.TemporaryDirectory() as folder:
        X = {
            "images": jpegs(Path(folder), 8 if given.quick else 32),
            "sentences": sentences(16 if given.quick else 128),
        }
        kinds = {name: (backbone, kind) for name, backbone, kind in networks(Path(folder), given.quick)}
        extractors = {name: ready(backbone, X[kind]) for name, (backbone, kind) in kinds.items()}
        # In turns, so that what slows the machine down for a while does not slow all passes of one network.
        tasks = {name: partial(extractors[name].transform, X[kind]) for name, (_, kind) in kinds.items()}
        seconds = in_turns(tasks, REPEATS)
    lines = ["| network | takes | per second | 1,000 take | parameters | features |", "|---|---|---:|---:|---:|---:|"]
    for name, (_, kind) in kinds.items():
        rate = len(X[kind]) / min(seconds[name])
        network = extractors[name].backbone_.network
        lines.append(
            f"| {name} | {kind} | {rate:.{0 if rate >= 20 else 1}f} | {1000 / rate:.0f} s | "
            f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} million | "
            f"{extractors[name].n_features_out_:,} |"
        )
    here, busy = machine(), others.cores()
    precision = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    lines += [
        "",
        f"JPEGs of 500 x 375 pixels; sentences of 15 to 25 words. {given.threads} threads, {precision}, fastest of "
        f"{REPEATS} passes, random weights, no cache.",
        "",
        f"`python benchmarks/networks.py`, {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}: {here['processor']}, "
        f"{here['cores']} cores, torch {here['torch']}, torchvision {here['torchvision']}, Python {here['python']}, "
        f"{here['system']}. Other processes took {'an unknown part' if busy is None else f'{busy:.1f}'} of the cores.",
    ]
    print("\n".join(lines))
    if not given.quick:
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
