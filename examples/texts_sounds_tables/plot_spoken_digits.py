"""
Sounds of people never heard before
===================================

You have recordings of a few people, and the model will hear others. Does a network that has heard other words by other
voices help?

Each fold leaves out some speakers, because whoever uses the model later is a person that it never heard. The
recordings are those of the Free Spoken Digit Dataset, if ``SKTRANSFER_ASSETS`` names a folder that holds them: the
network then learns from half of the speakers, and the table uses the other half. Otherwise the sounds are synthetic
words of three gliding tones, and the network learns 20 other words by 8 other voices.

With the hub at hand, take a network that has heard more, such as ``"hf:openai/whisper-tiny"``. ``pip install
"sktransfer[audio]"`` brings what networks for sounds need.
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
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.utils.logging import disable_progress_bar

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import SamplesDisplay

folder, RATE = tempfile.TemporaryDirectory(), 8000  # samples per second

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
# A small Whisper encoder, pretrained on other voices
# ---------------------------------------------------
# The package trains all of it, as a classifier of the other words, and saves what it has learned.

disable_progress_bar()
torch.manual_seed(0)
tokens = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
encoder = {"d_model": 96, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 192, "num_mel_bins": 40}
decoder = {"decoder_layers": 1, "decoder_attention_heads": 1, "decoder_ffn_dim": 8, "max_source_positions": 50}
network = Path(folder.name, "network")
WhisperModel(WhisperConfig(**encoder, **decoder, **tokens)).save_pretrained(network)
WhisperFeatureExtractor(feature_size=40, chunk_length=1).save_pretrained(network)  # it hears a second

scratch = {"freeze_depth": 0, "strategy": "fine_tune", "lr": 1e-3, "batch_size": 8, "random_state": 0}
first = FineTunedClassifier(f"hf:{network}", max_epochs=15, **scratch).fit(X_other, y_other)
weights = Path(folder.name, "heard_others.safetensors")
first.save_backbone(weights)
print(f"pretrained: it knows {first.score(X_other, y_other):.2f} of the sounds it learned from")

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
pretrained = {"backbone": f"hf:{network}", "weights": weights}
rows = {
    "spectrum statistics,\nlogistic regression": make_pipeline(FunctionTransformer(spectrum_statistics), logistic),
    "the network, from scratch": FineTunedClassifier(f"hf:{network}", max_epochs=8, **scratch),
    "frozen features,\nlogistic regression": make_pipeline(PretrainedFeatureExtractor(**pretrained), logistic),
    "FineTunedClassifier,\nhalf of it tuned": FineTunedClassifier(
        **pretrained, freeze_depth=0.5, lr=3e-4, max_epochs=6, batch_size=8, random_state=0
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
    axes.text(0.02, position, f"{scores.mean():.2f}", va="center", weight="bold", fontsize=13)
axes.axvline(1 / len(set(y)), color="black", linestyle=":", label="guessing")
axes.set_yticks(range(len(table)), list(table), fontsize=11)
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="accuracy on speakers left out (a dot per fold)", title=f"{len(X)} {kind}")
axes.legend(loc="lower right")
axes.spines[["top", "right"]].set_visible(False)
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
