"""Spoken digits by people never heard before: a spectrogram's statistics, a sound network, and a picture network.

    python plot_spoken_digits.py                                         # makes its own sounds; downloads nothing
    python plot_spoken_digits.py --data FOLDER --image-weights PATH      # the same on real ones, downloads nothing
    python plot_spoken_digits.py --data FOLDER --backbone hf:NAME        # a pretrained network of the hub, or hf:FOLDER

`--data` takes a folder of class folders whose files are called CLASS_SPEAKER_NUMBER.wav, such as the recordings of the
free spoken digit dataset. Each of three folds leaves out a third of the speakers, as whoever uses the model later will
be one that it never heard. Without `--backbone` the sound network is a small one with random weights: what it reaches
is what its architecture and a few hundred sounds are worth, without any transfer; expect it to lose. Without `--data`
the "digits" are synthetic: three gliding tones each, by six voices that differ in pitch, pace and noise.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import soundfile
from scipy.fft import dct
from scipy.signal import resample_poly, stft
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

RATE = 8000
BANDS = 40
RANDOM = "a small Whisper encoder, random weights"


def log_mel(path):
    """Open a sound as a log-mel spectrogram: float64 ndarray of shape (40 bands, frames), a frame every 10 ms."""
    sound, rate = soundfile.read(path)
    sound = resample_poly(sound if sound.ndim == 1 else sound.mean(axis=1), RATE, rate)
    frequencies, _, spectrum = stft(sound, RATE, nperseg=200, noverlap=120, nfft=512)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)).clip(0)
    return np.log(filters @ np.abs(spectrum) ** 2 + 1e-10)


def mel_statistics(paths):
    """Describe each sound by the mean and spread of 20 cepstral coefficients in each third of it."""
    rows = []
    for path in np.ravel(paths):
        cepstrum = dct(log_mel(path), axis=0, norm="ortho")[:20]
        thirds = np.array_split(cepstrum, 3, axis=1)
        rows.append(np.concatenate([part.mean(axis=1) for part in thirds] + [part.std(axis=1) for part in thirds]))
    return np.array(rows)


def mel_pictures(paths):
    """Draw each sound as a picture: uint8 ndarray of shape (n_samples, 40, 64), time stretched to 64 columns."""
    pictures = []
    for path in np.ravel(paths):
        mel = log_mel(path)
        columns = np.linspace(0, mel.shape[1] - 1, 64)
        mel = np.array([np.interp(columns, np.arange(mel.shape[1]), band) for band in mel[::-1]])
        pictures.append(((mel - mel.max()) / 12 + 1).clip(0, 1) * 255)  # the upper 52 dB
    return np.array(pictures).astype(np.uint8)


def make_sounds(folder, n_each):
    """Write sounds of ten classes by six voices: three gliding tones, whose heights are the class."""
    rng = np.random.default_rng(0)
    heights = rng.uniform(0.5, 3.0, size=(10, 4))
    for speaker in range(6):
        pitch, pace, noise = rng.uniform(250, 600), rng.uniform(0.7, 1.4), rng.uniform(0.005, 0.05)
        for digit, number in np.ndindex(10, n_each):
            length = int(RATE * 0.45 * pace * rng.uniform(0.9, 1.1))
            points = pitch * heights[digit] * rng.normal(1, 0.06, size=4)
            phase = np.cumsum(np.interp(np.linspace(0, 3, length), range(4), points)) * 2 * np.pi / RATE
            sound = np.hanning(length) * (np.sin(phase) + 0.4 * np.sin(2 * phase)) * 0.3
            file = folder / f"{digit}" / f"{digit}_voice{speaker}_{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound + rng.normal(0, noise, length), RATE)


def make_network(folder):
    """Save a small network for sounds that has learned nothing, as transformers saves networks; return its name."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    tokens = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        d_model=96, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=192, num_mel_bins=BANDS,
        max_source_positions=50, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8, **tokens,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=BANDS, chunk_length=1).save_pretrained(folder)  # a window is a second
    return f"hf:{folder}"


def find_sounds(folder):
    """Return paths, class names and speakers of a folder of class folders."""
    paths = np.array(sorted(map(str, folder.glob("*/*.wav"))), dtype=object)
    parts = [Path(path).stem.split("_") for path in paths]
    if not len(paths) or any(len(part) != 3 for part in parts):
        sys.exit(f"Got {str(folder)!r}; expected class folders in it, with files called CLASS_SPEAKER_NUMBER.wav.")
    return paths, np.array([part[0] for part in parts]), np.array([part[1] for part in parts])


def make_models(backbone, options):
    """Return the ways from sounds to classes, by name."""
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    tuning = {"max_epochs": options.epochs, "random_state": 0, "n_jobs": options.n_jobs}
    if options.backbone:
        tuned = {"FineTunedClassifier, defaults": FineTunedClassifier(backbone, **tuning)}
    else:
        tuned = {
            "sound network, trained from scratch": FineTunedClassifier(
                backbone, freeze_depth=0, strategy="fine_tune", lr=1e-3, **tuning
            )
        }
    models = {
        "mel statistics, logistic regression": make_pipeline(FunctionTransformer(mel_statistics), logistic),
        "sound network, frozen features": make_pipeline(
            PretrainedFeatureExtractor(backbone, n_jobs=options.n_jobs), logistic
        ),
        **tuned,
    }
    if options.image_weights:
        pictured = {"backbone": options.image_backbone, "weights": options.image_weights, "n_jobs": options.n_jobs}
        pictures = FunctionTransformer(mel_pictures)
        # Where in a spectrogram something is tells its pitch: so no average over places.
        places = PretrainedFeatureExtractor(**pictured, pooling="flatten")
        models["pictures, frozen features"] = make_pipeline(pictures, places, PCA(0.9, random_state=0), logistic)
        models["pictures, half of the network tuned"] = make_pipeline(
            pictures,
            FineTunedClassifier(**pictured, freeze_depth=0.5, max_epochs=-(-options.epochs // 2), random_state=0),
        )
    return models


def make_table(models, X, y, speakers):
    """Cross-validate each model by leaving speakers out; return accuracies by name, one for each fold."""
    table = {}
    print("\nAccuracy on speakers left out, mean and spread over 3 folds")
    for name, model in models.items():
        start = time.perf_counter()
        table[name] = cross_val_score(model, X, y, groups=speakers, cv=GroupKFold(3), error_score="raise")
        seconds = time.perf_counter() - start
        print(f"  {name:<38} {table[name].mean():.3f} ± {table[name].std():.3f}   {seconds:5.1f} s", flush=True)
    return table


def draw(table, X, title, path):
    """Draw accuracies, with a dot for each fold, beside four sounds as pictures."""
    figure, (bars, sounds) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=[3, 2])
    figure.suptitle(title)
    names = [name.replace(", ", "\n", 1) for name in table]
    bars.barh(names, [accuracies.mean() for accuracies in table.values()], color="#4878a8")
    for position, accuracies in enumerate(table.values()):
        bars.plot(accuracies, np.full(len(accuracies), position), "o", color="black", alpha=0.5, markersize=4)
        bars.text(0.02, position, f"{accuracies.mean():.3f}", va="center", color="white")
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.05), xlabel="accuracy on speakers left out; a dot is a fold")
    bars.spines[["top", "right"]].set_visible(False)
    some = X[np.linspace(0, len(X) - 1, 4).astype(int)]
    sounds.imshow(np.hstack(mel_pictures(some)), cmap="magma", aspect="auto")
    sounds.set(xticks=32 + 64 * np.arange(4), yticks=[], title="mel spectrograms")
    sounds.set_xticklabels([Path(path).stem for path in some], fontsize=7)
    figure.savefig(path, dpi=120)
    print(f"\nDrawn: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of class folders (default: synthetic sounds)")
    parser.add_argument("--backbone", help=f"a network for sounds, as hf:NAME or hf:FOLDER (default: {RANDOM})")
    parser.add_argument("--image-weights", help='path to weights, or "DEFAULT": adds a picture network to the table')
    parser.add_argument(
        "--image-backbone", default="squeezenet1_1", help="a torchvision network (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of training (default: %(default)s)")
    parser.add_argument(
        "--n-each", type=int, default=5, help="synthetic sounds a voice and digit (default: %(default)s)"
    )
    parser.add_argument("--n-jobs", type=int, help="threads that read sounds (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("spoken_digits.png"), help="picture (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            make_sounds(Path(folder, "sounds"), options.n_each)
        X, y, speakers = find_sounds(options.data or Path(folder, "sounds"))
        backbone = options.backbone or make_network(Path(folder, "network"))
        what = "sounds" if options.data else "synthetic sounds"
        print(f"{len(X)} {what} of {len(set(y))} classes by {len(set(speakers))} speakers")
        print(f"sound network: {options.backbone or RANDOM}")
        table = make_table(make_models(backbone, options), X, y, speakers)
        draw(table, X, f"{len(X)} {what}; {options.backbone or RANDOM}", options.output)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
