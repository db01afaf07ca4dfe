"""The recipes of the Keras and PyTorch tutorials on transfer learning, each in a few lines.

Each function takes images X, as arrays, pictures or paths, and labels y, and returns a fitted classifier; the
folder's recipe reads both from disk. `weights="DEFAULT"` downloads torchvision's ImageNet weights once.

    python recipes.py

runs them all on a dozen images made on the spot, with random weights and an epoch or two: that shows that they run, not
what they can do. What they can do is in plot_ants_and_bees.py (pixels, frozen features and fine-tuning in one table)
and in quickstart.py (trained on digits 0 to 4, transferred to a few samples of 5 to 9).
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sktransfer import FineTunedClassifier, load_image_folder


def vgg16_with_a_dense_head(X, y, weights="DEFAULT", head_epochs=30):
    """VGG16 without its top, frozen; global average pooling; Dense 256 with ReLU; dropout 0.5; two classes.

    `layer="features"` is Keras's `include_top=False`: without it, the features are the 4,096 that enter VGG16's own
    last layer, and there is nothing left to pool.
    """
    return FineTunedClassifier(
        "vgg16", weights=weights, layer="features", hidden_layer_sizes=(256,), dropout=0.5, head_epochs=head_epochs
    ).fit(X, y)


def resnet50_in_two_phases(X, y, weights="DEFAULT", head_epochs=5, max_epochs=10):
    """ResNet50: the new head alone for 5 epochs at 1e-3, then the last stage too for 10 epochs at 1e-5."""
    return FineTunedClassifier(
        "resnet50",
        weights=weights,
        freeze_depth="layer3.5",
        strategy="lp_ft",
        head_epochs=head_epochs,
        head_lr=1e-3,
        max_epochs=max_epochs,
        lr=1e-5,
    ).fit(X, y)


def mobilenet_v2_with_augmentation(X, y, weights="DEFAULT", head_epochs=10, max_epochs=10):
    """MobileNetV2 with random flip, rotation, zoom and contrast; dropout 0.2; the head, then the last third.

    Augmentation changes training images alone, in each epoch anew; `predict` sees images as they are.
    """
    return FineTunedClassifier(
        "mobilenet_v2",
        weights=weights,
        augment="standard",
        dropout=0.2,
        freeze_depth=0.65,
        head_epochs=head_epochs,
        max_epochs=max_epochs,
        lr=1e-5,
    ).fit(X, y)


def efficientnet_b0_with_an_early_part_frozen(X, y, weights="DEFAULT", head_epochs=10, max_epochs=10):
    """EfficientNet-B0 with dropout 0.2 and its first 70 % frozen, the rest at 1e-5; BatchNorm stays as it was."""
    return FineTunedClassifier(
        "efficientnet_b0",
        weights=weights,
        freeze_depth=0.7,
        dropout=0.2,
        head_epochs=head_epochs,
        max_epochs=max_epochs,
        lr=1e-5,
    ).fit(X, y)


def efficientnet_b7(X, y, weights="DEFAULT"):
    """EfficientNet-B7, frozen, with a linear head. Images are brought to the 600 x 600 that it was trained on.

    That takes seconds an image on a CPU, and as long again whenever an image is new.
    """
    return FineTunedClassifier("efficientnet_b7", weights=weights, batch_size=4).fit(X, y)


def mobilenet_v3(X, y, weights="DEFAULT", max_epochs=10):
    """MobileNetV3 (large): the head, then the last quarter."""
    return FineTunedClassifier("mobilenet_v3_large", weights=weights, freeze_depth=0.75, max_epochs=max_epochs).fit(
        X, y
    )


def densenet121_for_chest_x_rays(X, y, weights="DEFAULT", max_epochs=10):
    """DenseNet121 on grey images of rare findings: classes weighted by their rarity, the last dense block tuned."""
    return FineTunedClassifier(
        "densenet121",
        weights=weights,
        freeze_depth="features.transition3",
        class_weight="balanced",
        max_epochs=max_epochs,
    ).fit(X, y)


def thaw_one_block_after_another(X, y, weights="DEFAULT", freeze_depth=0.75, max_epochs=10):
    """Train the head first, then the last block too, then the one before it, down to the last quarter."""
    return FineTunedClassifier(
        "resnet18", weights=weights, strategy="gradual", freeze_depth=freeze_depth, max_epochs=max_epochs
    ).fit(X, y)


def discriminative_learning_rates(X, y, weights="DEFAULT", max_epochs=10):
    """Everything is trained, the last block at 1e-4 and each block before it at 0.8 of the rate of the next."""
    return FineTunedClassifier(
        "resnet18", weights=weights, freeze_depth=0, lr=1e-4, layer_decay=0.8, max_epochs=max_epochs
    ).fit(X, y)


def folder_of_class_folders(folder, weights="DEFAULT", max_epochs=50):
    """Photos from disk, a fifth held out; stop when its loss no longer falls, and go back to the best epoch.

    `history_` holds an entry an epoch, the held-out accuracy among it.
    """
    X, y = load_image_folder(folder, return_X_y=True)
    return FineTunedClassifier(
        "resnet18",
        weights=weights,
        freeze_depth=0.75,
        early_stopping=True,
        validation_fraction=0.2,
        n_iter_no_change=5,
        max_epochs=max_epochs,
    ).fit(X, y)


def layers_trained_and_frozen(X, y, weights="DEFAULT", max_epochs=10):
    """Keras's `model.summary()`: `backbone_.summary()` lists the blocks, and which of their weights were trained.

    In a notebook, `classifier.backbone_` shows the same as a table.
    """
    return FineTunedClassifier("mobilenet_v2", weights=weights, freeze_depth=0.75, max_epochs=max_epochs).fit(X, y)


def make_images(n_samples=12, size=64):
    """Make noise that is reddish or bluish: uint8 ndarray (n_samples, size, size, 3), and labels."""
    rng = np.random.default_rng(0)
    y = np.tile(["red", "blue"], n_samples // 2)
    X = rng.integers(0, 160, size=(n_samples, size, size, 3), dtype=np.uint8)
    X[y == "red", ..., 0] += 90
    X[y == "blue", ..., 2] += 90
    return X, y


def save_images(X, y, folder):
    """Write images into a folder of class folders."""
    for number, (pixels, label) in enumerate(zip(X, y, strict=True)):
        place = folder / label
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")


def show(recipe, *data, **settings):
    """Run a recipe with random weights and print a line on what it trained."""
    start = time.perf_counter()
    classifier = recipe(*data, weights=None, **settings)
    seconds = time.perf_counter() - start
    summary = classifier.backbone_.summary()
    print(
        f"{recipe.__name__:<42} {classifier.backbone_.name:<19} {len(classifier.history_)} epochs, "
        f"{summary.n_trainable:>10,} of {summary.n_trainable + summary.n_frozen:>10,} weights tuned, {seconds:5.1f} s",
        flush=True,
    )
    return classifier


def main():
    X, y = make_images()
    grey = X.mean(axis=3).astype(np.uint8)
    finding = np.where(np.arange(len(grey)) < 3, "finding", "none")

    show(vgg16_with_a_dense_head, X, y, head_epochs=3)
    show(resnet50_in_two_phases, X, y, head_epochs=1, max_epochs=1)
    show(mobilenet_v2_with_augmentation, X, y, head_epochs=1, max_epochs=1)
    show(efficientnet_b0_with_an_early_part_frozen, X, y, head_epochs=1, max_epochs=1)
    show(efficientnet_b7, X[:4], y[:4])  # 600 x 600 pixels: four images are enough
    show(mobilenet_v3, X, y, max_epochs=1)
    show(densenet121_for_chest_x_rays, grey, finding, max_epochs=1)
    show(thaw_one_block_after_another, X, y, max_epochs=2)
    show(discriminative_learning_rates, X, y, max_epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        save_images(X, y, Path(folder))
        classifier = show(folder_of_class_folders, folder, max_epochs=2)
    accuracies = ", ".join(f"{epoch['valid_accuracy']:.2f}" for epoch in classifier.history_)
    print(f"    held-out accuracy after each epoch: {accuracies}")
    classifier = show(layers_trained_and_frozen, X, y, max_epochs=1)
    print(f"\n{classifier.backbone_.summary()}")


if __name__ == "__main__":
    main()
