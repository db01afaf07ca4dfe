"""Spoken digits by people never heard before: a spectrogram's statistics, a sound network, and a picture network.

    python plot_spoken_digits.py                                         # makes its own sounds; downloads nothing
    python plot_spoken_digits.py --data FOLDER --image-weights PATH      # the same on real ones, downloads nothing
    python plot_spoken_digits.py --data FOLDER --backbone hf:NAME        # a pretrained network of the hub, or hf:FOLDER

`--data` takes a folder of class folders with files called CLASS_SPEAKER_NUMBER.wav, such as the recordings of the free
spoken digit dataset. Each of three folds leaves out some speakers: whoever uses the model later is a person that it
never heard.

Without `--backbone`, a small sound network is pretrained here first. Without `--data`, the sounds are synthetic words
of three gliding tones, and the network learns 20 other words from 8 other voices. With `--data`, it learns from half of
the speakers, and the table uses the other half. So no voice of the table was in the pretraining. Real speech is more
than 300 recordings can teach a network: expect spectrogram statistics to win there, and give a network that has heard
more, as --backbone hf:openai/whisper-tiny.
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
PRETRAINED = "a small Whisper encoder, pretrained on other voices"
N_WINDOW = 100  # frames that the small network hears: a second


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


def make_sounds(folder, n_each, n_words=10, n_voices=6, seed=0):
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


def make_network(folder):
    """Save a small network for sounds with random weights, as transformers saves networks; return its name."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    tokens = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        d_model=96, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=192, num_mel_bins=BANDS,
        max_source_positions=N_WINDOW // 2, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8, **tokens,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=BANDS, chunk_length=1).save_pretrained(folder)  # a window is a second
    return f"hf:{folder}"


def pretrain(source, folder, paths, labels, epochs):
    """Train the network of one folder in plain PyTorch, and save it to another; return its name."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    extractor = WhisperFeatureExtractor.from_pretrained(source)
    model = WhisperModel.from_pretrained(source)
    sounds = [resample_poly(sound, extractor.sampling_rate, rate) for sound, rate in map(soundfile.read, paths)]
    features = extractor(sounds, sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
    classes, targets = np.unique(labels, return_inverse=True)
    targets = torch.from_numpy(targets)
    torch.manual_seed(0)
    head = torch.nn.Linear(model.config.d_model, len(classes))
    optimizer = torch.optim.AdamW([*model.encoder.parameters(), *head.parameters()])
    n_batches = -(-len(targets) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs=epochs, steps_per_epoch=n_batches)
    model.train()
    for _ in range(epochs):
        n_right = 0
        for batch in torch.randperm(len(targets)).split(32):
            # Other voices are higher or lower, and start sooner or later: bands and frames are shifted a little.
            shifts = torch.randint(-3, 4, ()).item(), torch.randint(0, 20, ()).item()
            hidden = model.encoder(features[batch].roll(shifts, dims=(1, 2))).last_hidden_state
            logits = head(hidden.mean(dim=1))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, targets[batch]).backward()
            optimizer.step()
            schedule.step()
            n_right += int((logits.argmax(1) == targets[batch]).sum())
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    print(f"pretrained on {len(paths)} sounds of {len(classes)} classes: {n_right / len(paths):.3f} of them are known")
    return f"hf:{folder}"


def find_sounds(folder):
    """Return paths, class names and speakers of a folder of class folders."""
    paths = np.array(sorted(map(str, folder.glob("*/*.wav"))), dtype=object)
    parts = [Path(path).stem.split("_") for path in paths]
    if not len(paths) or any(len(part) != 3 for part in parts):
        sys.exit(f"Got {str(folder)!r}; expected class folders in it, with files called CLASS_SPEAKER_NUMBER.wav.")
    return paths, np.array([part[0] for part in parts]), np.array([part[1] for part in parts])


def make_models(backbone, scratch, options):
    """Return the ways from sounds to classes, by name; `scratch` is a network that has learned nothing, or None."""
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    tuning = {"max_epochs": options.epochs, "random_state": 0, "n_jobs": options.n_jobs}
    models = {"mel statistics, logistic regression": make_pipeline(FunctionTransformer(mel_statistics), logistic)}
    if scratch:
        models["sound network, trained from scratch"] = FineTunedClassifier(
            scratch, freeze_depth=0, strategy="fine_tune", lr=1e-3, **tuning
        )
    models["sound network, frozen features"] = make_pipeline(
        PretrainedFeatureExtractor(backbone, n_jobs=options.n_jobs), logistic
    )
    models["FineTunedClassifier, half of it tuned"] = FineTunedClassifier(backbone, freeze_depth=0.5, lr=3e-4, **tuning)
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
    learned_here = ["statistics" in name or "scratch" in name for name in table]
    colours = ["#8a939c" if here else "#56B4E9" for here in learned_here]
    bars.barh(names, [accuracies.mean() for accuracies in table.values()], color=colours)
    for position, accuracies in enumerate(table.values()):
        bars.plot(accuracies, np.full(len(accuracies), position), "o", color="black", alpha=0.5, markersize=4)
        bars.text(0.02, position, f"{accuracies.mean():.3f}", va="center", color="black", weight="bold")
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.05), xlabel="accuracy on speakers left out; a dot is a fold; blue: pretrained networks")
    bars.spines[["top", "right"]].set_visible(False)
    some = X[np.linspace(0, len(X) - 1, 4).astype(int)]
    sounds.imshow(np.hstack(mel_pictures(some)), cmap="magma", aspect="auto")
    sounds.set(xticks=32 + 64 * np.arange(4), yticks=[], title="mel spectrograms")
    sounds.set_xticklabels([Path(path).stem for path in some], fontsize=7)
    figure.savefig(path, dpi=120)
    print(f"\nDrawn: {path}")


def find_network(options, X, y, speakers, folder):
    """Return a pretrained network, one that has learned nothing, and which sounds are left for the table."""
    everything = np.ones(len(X), dtype=bool)
    if options.backbone:
        return options.backbone, None, everything
    scratch = make_network(folder / "random")
    if options.data is None:
        make_sounds(folder / "other_sounds", options.n_each, n_words=20, n_voices=8, seed=1)
        other, words, _ = find_sounds(folder / "other_sounds")
        left = everything
    else:
        left = np.isin(speakers, np.unique(speakers)[1::2])
        other, words = X[~left], y[~left]
    return pretrain(folder / "random", folder / "network", other, words, 3 * options.epochs), scratch, left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of class folders (default: synthetic sounds)")
    parser.add_argument("--backbone", help="a network for sounds, as hf:NAME or hf:FOLDER (default: one trained here)")
    parser.add_argument("--image-weights", help='path to weights, or "DEFAULT": adds a picture network to the table')
    parser.add_argument(
        "--image-backbone", default="squeezenet1_1", help="a torchvision network (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=10, help="of training; pretraining takes three times as many (default: 10)"
    )
    parser.add_argument(
        "--n-each", type=int, default=5, help="synthetic sounds per voice and word (default: %(default)s)"
    )
    parser.add_argument("--n-jobs", type=int, help="threads that read sounds (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("spoken_digits.png"), help="picture (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            make_sounds(folder / "sounds", options.n_each)
        X, y, speakers = find_sounds(options.data or folder / "sounds")
        network = options.backbone or PRETRAINED
        print(f"sound network: {network}")
        backbone, scratch, left = find_network(options, X, y, speakers, folder)
        X, y, speakers = X[left], y[left], speakers[left]
        what = f"{len(X)} {'sounds' if options.data else 'synthetic sounds'}"
        print(f"{what} of {len(set(y))} classes by {len(set(speakers))} speakers")
        table = make_table(make_models(backbone, scratch, options), X, y, speakers)
        draw(table, X, f"{what}; {network}", options.output)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
