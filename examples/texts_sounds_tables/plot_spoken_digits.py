"""
Sounds of people never heard before
===================================

You have recordings of a few people, and the model will hear others. Does a network that has heard other words by other
voices help?

Each fold leaves out some speakers, because whoever uses the model later is a person that it never heard. The
recordings are those of the Free Spoken Digit Dataset, if ``SKTRANSFER_ASSETS`` names a folder that holds them: the
network then learns from half of the speakers, and the table uses the other half. Otherwise the sounds are synthetic
words of three gliding tones, and the network learns 20 other words by 8 other voices.

Here sounds are drawn as pictures, and a small network for pictures is pretrained. A network for sounds takes the files
themselves: with the hub at hand, write ``FineTunedClassifier("hf:openai/whisper-tiny", freeze_depth=0.5)``. ``pip
install "sktransfer[audio]"`` brings what these need.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import torch
from scipy.fft import dct
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import SamplesDisplay

folder, RATE = tempfile.TemporaryDirectory(), 8000  # samples per second
n_threads = torch.get_num_threads()
torch.set_num_threads(1)  # for so small a network, a second thread costs more than it brings

# %%
# The sounds
# ----------


def make_sounds(folder, n_words, n_voices, seed, n_each=3):
    """Write sounds of some words by some voices: three gliding tones, whose heights are the word."""
    rng = np.random.default_rng(seed)
    heights = rng.uniform(0.5, 3.0, size=(n_words, 4))
    for voice in range(n_voices):
        pitch, pace, noise = rng.uniform(250, 600), rng.uniform(0.7, 1.4), rng.uniform(0.005, 0.05)
        for word, number in np.ndindex(n_words, n_each):
            length = int(RATE * 0.45 * pace * rng.uniform(0.9, 1.1))
            points = pitch * heights[word] * rng.normal(1, 0.06, size=4)
            phase = np.cumsum(np.interp(np.linspace(0, 3, length), range(4), points)) * 2 * np.pi / RATE
            sound = np.hanning(length) * (np.sin(phase) + 0.4 * np.sin(2 * phase)) * 0.3
            file = folder / f"{word}" / f"{word}_voice{voice}_{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound + rng.normal(0, noise, length), RATE)


def read_folder(folder):
    """Return paths, words and speakers of files called WORD_SPEAKER_NUMBER.wav."""
    paths = np.array(sorted(map(str, folder.glob("*/*.wav"))), dtype=object)
    words, speakers, _ = np.transpose([Path(path).stem.split("_") for path in paths])
    return paths, words, speakers


real = Path(os.environ.get("SKTRANSFER_ASSETS", "."), "data", "fsdd")
if real.is_dir():
    X, y, speakers = read_folder(real)
    known = np.isin(speakers, np.unique(speakers)[::2])
    X_other, y_other, X, y, speakers = X[known], y[known], X[~known], y[~known], speakers[~known]
else:
    make_sounds(Path(folder.name, "sounds"), n_words=10, n_voices=6, seed=0)
    make_sounds(Path(folder.name, "other"), n_words=20, n_voices=8, seed=1, n_each=2)
    X, y, speakers = read_folder(Path(folder.name, "sounds"))
    X_other, y_other, _ = read_folder(Path(folder.name, "other"))
kind = "recordings" if real.is_dir() else "synthetic sounds"
print(
    f"{len(X)} {kind} of {len(set(y))} classes by {len(set(speakers))} speakers; {len(X_other)} others to pretrain on"
)
display = SamplesDisplay.from_data(X, y, n_samples=6, random_state=0)

# %%
# A small network, pretrained on other voices
# -------------------------------------------
# Each sound becomes a picture: time from left to right, pitch from below to above, on a scale of octaves, so that
# another voice is the same picture a little higher. The package trains the network and saves what it has learned.


def pictures_of(paths):
    """Draw sounds as pictures: uint8 ndarray of shape (n_samples, 48, 48)."""
    pictures = []
    for path in np.ravel(paths):
        frequencies, _, spectrum = stft(soundfile.read(path)[0], RATE, nperseg=256, noverlap=192, nfft=1024)
        power = np.log(np.abs(spectrum) ** 2 + 1e-9)
        rows = np.searchsorted(frequencies, np.geomspace(100, 3900, 48))[::-1]
        columns = np.linspace(0, power.shape[1] - 1, 48).astype(int)
        picture = power[rows][:, columns]
        pictures.append(255 * ((picture - picture.max()) / 12 + 1).clip(0, 1))
    return np.array(pictures).astype(np.uint8)


def small_network(n_classes=20):
    """Return four convolutions, an average over all places, and a classification layer."""

    def block(inward, outward, stride):
        return [nn.Conv2d(inward, outward, 3, stride, 1), nn.BatchNorm2d(outward), nn.ReLU()]

    convolutions = [*block(1, 16, 2), *block(16, 32, 2), *block(32, 48, 1), *block(48, 64, 2)]
    return nn.Sequential(*convolutions, nn.AdaptiveMaxPool2d((1, 6)), nn.Flatten(), nn.Linear(384, n_classes))


scratch = {"weights": None, "freeze_depth": 0, "strategy": "fine_tune", "train_bn": True, "lr": 5e-3, "head_lr": 5e-3}
scratch |= {"layer": None, "batch_size": 16, "random_state": 0}
first = FineTunedClassifier(small_network, max_epochs=10, **scratch).fit(pictures_of(X_other), y_other)
weights = Path(folder.name, "heard_others.safetensors")
first.save_backbone(weights)
print(f"pretrained: it knows {first.score(pictures_of(X_other), y_other):.2f} of the sounds it learned from")

# %%
# On speakers left out
# --------------------


def spectrum_statistics(paths):
    """Describe each sound by the mean and spread of 20 cepstral coefficients in each third of it."""
    rows = []
    for path in np.ravel(paths):
        spectrum = np.abs(stft(soundfile.read(path)[0], nperseg=200, nfft=512)[2]) ** 2
        thirds = np.array_split(dct(np.log(spectrum + 1e-10), axis=0, norm="ortho")[:20], 3, axis=1)
        rows.append(np.concatenate([f(third, axis=1) for third in thirds for f in (np.mean, np.std)]))
    return np.array(rows)


logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
pretrained = {"backbone": small_network, "weights": weights, "layer": None, "random_state": 0}
drawn = FunctionTransformer(pictures_of)
rows = {
    "spectrum statistics,\nlogistic regression": make_pipeline(FunctionTransformer(spectrum_statistics), logistic),
    "the network,\nfrom scratch": make_pipeline(drawn, FineTunedClassifier(small_network, max_epochs=10, **scratch)),
    "frozen features,\nlogistic regression": make_pipeline(drawn, PretrainedFeatureExtractor(**pretrained), logistic),
    "FineTunedClassifier,\nlast 2 blocks tuned": make_pipeline(
        drawn, FineTunedClassifier(**pretrained, freeze_depth=2, lr=1e-3, max_epochs=5)
    ),
}
table = {n: cross_val_score(m, X, y, groups=speakers, cv=GroupKFold(3), error_score="raise") for n, m in rows.items()}
for name, scores in table.items():
    print(f"  {' '.join(name.split()):<42} {scores.mean():.3f} ± {scores.std():.3f}")

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for position, (scores, colour) in enumerate(
    zip(table.values(), ["#999999", "#999999", "#56B4E9", "#0072B2"], strict=True)
):
    axes.barh(position, scores.mean(), color=colour)
    axes.plot(scores, [position] * len(scores), "o", color="black", markersize=4)
    axes.text(0.13, position, f"{scores.mean():.2f}", va="center", weight="bold", fontsize=13)
axes.axvline(1 / len(set(y)), color="black", linestyle=":", label="guessing")
axes.set_yticks(range(len(table)), list(table), fontsize=11)
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="accuracy on speakers left out (a dot per fold)", title=f"{len(X)} {kind}")
axes.legend(loc="lower right")
axes.spines[["top", "right"]].set_visible(False)
torch.set_num_threads(n_threads)
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
