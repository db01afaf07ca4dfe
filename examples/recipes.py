"""The recipes of transfer-learning tutorials, each as a function of a few lines.

    python examples/recipes.py

runs each of them offline, with random weights, on a dozen images made on the spot and for an epoch: to see that it
runs, not how well. With images of your own and the functions' defaults, they are the recipes. A table of classical
baselines, frozen features and fine-tuning is `plot_ants_and_bees.py`; transfer from one task to another, against
training from scratch, is `quickstart.py`.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sktransfer import FineTunedClassifier, load_image_folder
from sktransfer.backbones import load_backbone


def vgg16_with_a_hidden_layer(X, y, weights="DEFAULT", head_epochs=30):
    """VGG16 as it is, its last feature map average pooled, then Dense 256 with dropout 0.5, for two classes or more."""
    classifier = FineTunedClassifier(
        "vgg16",
        weights=weights,
        layer="features.28",
        hidden_layer_sizes=(256,),
        dropout=0.5,
        head_epochs=head_epochs,
        random_state=0,
    )
    return classifier.fit(X, y)


def resnet50_in_two_phases(X, y, weights="DEFAULT", head_epochs=5, max_epochs=10):
    """ResNet50: the head for 5 epochs at 1e-3, then with the last part of the network for 10 at 1e-5."""
    classifier = FineTunedClassifier(
        "resnet50",
        weights=weights,
        freeze_depth="layer3.5",
        strategy="lp_ft",
        head_epochs=head_epochs,
        max_epochs=max_epochs,
        lr=1e-5,
        random_state=0,
    )
    return classifier.fit(X, y)


def mobilenet_v2_with_augmentation(X, y, weights="DEFAULT", head_epochs=30):
    """MobileNetV2 with random flips, rotation, zoom and contrast; in training alone."""
    classifier = FineTunedClassifier(
        "mobilenet_v2", weights=weights, augment="standard", head_epochs=head_epochs, random_state=0
    )
    return classifier.fit(X, y)


def early_part_frozen(X, y, backbone="efficientnet_b0", weights="DEFAULT", max_epochs=10):
    """EfficientNet-B0 or -B7, MobileNetV3, DenseNet121 (chest X-rays): the early part frozen, the rest at 1e-5."""
    classifier = FineTunedClassifier(
        backbone, weights=weights, freeze_depth=0.5, lr=1e-5, max_epochs=max_epochs, random_state=0
    )
    return classifier.fit(X, y)


def thaw_step_by_step(X, y, weights="DEFAULT", max_epochs=10):
    """Train the head first, then the last quarter of the network, thawing block after block."""
    classifier = FineTunedClassifier(
        "mobilenet_v2", weights=weights, strategy="gradual", freeze_depth=0.75, max_epochs=max_epochs, random_state=0
    )
    return classifier.fit(X, y)


def discriminative_learning_rates(X, y, weights="DEFAULT", max_epochs=10):
    """Each block learns at 0.8 times the rate of the block after it."""
    classifier = FineTunedClassifier(
        "mobilenet_v2", weights=weights, freeze_depth=0.5, layer_decay=0.8, max_epochs=max_epochs, random_state=0
    )
    return classifier.fit(X, y)


def folder_with_validation_accuracy(folder, weights="DEFAULT", head_epochs=30):
    """Read a folder of class folders; print the accuracy on a held-out part after each epoch."""
    photos = load_image_folder(folder)
    classifier = FineTunedClassifier(
        "mobilenet_v2",
        weights=weights,
        early_stopping=True,
        validation_fraction=0.25,
        head_epochs=head_epochs,
        random_state=0,
    ).fit(photos.data, photos.target)
    for entry in classifier.history_:
        print(f"    epoch {entry['epoch']}: validation accuracy {entry['valid_accuracy']:.3f}")
    return classifier


def layers_and_counts(backbone="mobilenet_v2", weights="DEFAULT", freeze_depth=0.75):
    """Layers listed, with what is frozen and what is trained; in a notebook, a table."""
    summary = load_backbone(backbone, weights).summary(freeze_depth)
    print("\n".join("    " + line for line in str(summary).splitlines()))
    return summary


def made_images(n_samples=12, size=64):
    """Two classes of noise that differ in colour."""
    rng = np.random.default_rng(0)
    y = np.arange(n_samples) % 2
    X = rng.integers(0, 128, size=(n_samples, size, size, 3))
    X[y == 1, :, :, 0] += 127
    return X.astype(np.uint8), np.array(["grey", "red"])[y]


def main():
    X, y = made_images()
    with tempfile.TemporaryDirectory() as folder:
        for number, (pixels, name) in enumerate(zip(X, y, strict=True)):
            (Path(folder) / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(Path(folder) / name / f"{number}.png")
        few = X[:4], y[:4]
        runs = {
            "VGG16, hidden layer": lambda: vgg16_with_a_hidden_layer(*few, weights=None, head_epochs=2),
            "ResNet50, two phases": lambda: resnet50_in_two_phases(*few, weights=None, head_epochs=1, max_epochs=1),
            "MobileNetV2, augmented": lambda: mobilenet_v2_with_augmentation(X, y, weights=None, head_epochs=1),
            "EfficientNet-B0": lambda: early_part_frozen(*few, "efficientnet_b0", weights=None, max_epochs=1),
            # It takes 600 x 600 pixels, which is slow on a CPU: two images will do.
            "EfficientNet-B7": lambda: early_part_frozen(X[:2], y[:2], "efficientnet_b7", weights=None, max_epochs=1),
            "MobileNetV3": lambda: early_part_frozen(*few, "mobilenet_v3_large", weights=None, max_epochs=1),
            "DenseNet121": lambda: early_part_frozen(*few, "densenet121", weights=None, max_epochs=1),
            "thawing step by step": lambda: thaw_step_by_step(X, y, weights=None, max_epochs=2),
            "discriminative rates": lambda: discriminative_learning_rates(X, y, weights=None, max_epochs=1),
            "folder, early stopping": lambda: folder_with_validation_accuracy(folder, weights=None, head_epochs=2),
        }
        for title, run in runs.items():
            start = time.perf_counter()
            classifier = run()
            summary = classifier.backbone_.summary()
            print(
                f"{title:<24} {time.perf_counter() - start:5.1f} s, {len(classifier.history_)} epochs; of the backbone "
                f"{summary.n_trainable:,} parameters trained, {summary.n_frozen:,} frozen",
                flush=True,
            )
    print("layers of MobileNetV2, three quarters frozen")
    layers_and_counts(weights=None)


if __name__ == "__main__":
    main()
