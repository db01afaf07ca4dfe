"""
Serve a model over HTTP
=======================

How do other programs ask a fitted model? Train a classifier, save it, and let them ask over HTTP. The service is
``examples/serving/app.py``: FastAPI in about a hundred lines. This page starts it on a free port of this machine, sends
it pictures, and stops it.

It needs ``pip install "sktransfer[examples,serving]" httpx``. Nothing is downloaded: the pictures are parts of two
photos that come with scikit-learn, and the network has random weights, which suffices to tell these two photos apart.
With pictures of your own, leave ``weights=None`` out.
"""

# %%
# Train and save
# --------------
# Training and questions take random parts of the same photos: this page is about serving, not about accuracy.
import atexit
import io
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pprint import pprint
from textwrap import fill

import httpx
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import sktransfer

SIDE = 192  # pixels
random = np.random.default_rng(0)
photos = dict(zip(["palace", "flower"], load_sample_images().images, strict=True))


def cut_out(photo, n):
    """Return n parts of a photo as JPEG files: a list of bytes."""
    files = []
    for _ in range(n):
        x = random.integers(40, 460 - SIDE)
        y = random.integers(20, len(photo) - SIDE)
        file = io.BytesIO()
        Image.fromarray(photo[y : y + SIDE, x : x + SIDE]).save(file, "JPEG")
        files.append(file.getvalue())
    return files


X = [file for photo in photos.values() for file in cut_out(photo, 30)]
y = [name for name in photos for _ in range(30)]
model = sktransfer.FineTunedClassifier("shufflenet_v2_x0_5", weights=None, random_state=0).fit(X, y)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "model.safetensors"
sktransfer.save(model, path)

# %%
# Start the service
# -----------------
# ``--port 0`` takes a free port. The first line that the service prints says which. Loading the model runs no code from
# the file.
here = Path(__file__).resolve().parent if "__file__" in globals() else Path.cwd()
script = here.parent / "serving" / "serve.py"
command = [sys.executable, str(script), "--model", str(path), "--port", "0"]
service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
atexit.register(service.kill)  # in case that something below fails
url = re.search(r"http://\S+\d", service.stdout.readline()).group()
print(httpx.get(f"{url}/health").json())

# %%
# Ask
# ---
# One request may hold several pictures. The answers come in their order.
questions = [file for photo in photos.values() for file in cut_out(photo, 4)]
uploads = [("pictures", file) for file in questions]
answers = httpx.post(f"{url}/predict", files=uploads).json()["predictions"]
pprint(answers[0])

# %%
# The probabilities are those of ``predict_proba``.
received = [[one["probabilities"][name] for name in model.classes_] for one in answers]
expected = model.predict_proba(questions)
print("largest difference:", np.abs(received - expected).max())

# %%
# A damaged file gets status 422, and a sentence that says what is wrong with it.
response = httpx.post(f"{url}/predict", files=[("pictures", questions[0][:500])])
print(response.status_code)
print(fill(response.json()["detail"], 80))

# %%
# Eight clients at once
# ---------------------
# The service computes as many requests at once as this machine has cores. The others wait for their turn.
many = [file for photo in photos.values() for file in cut_out(photo, 100)]


def ask(files):
    """Send one picture per request; return the seconds that each took."""
    seconds = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for file in files:
            start = time.perf_counter()
            client.post("/predict", files={"pictures": file}).raise_for_status()
            seconds.append(time.perf_counter() - start)
    return seconds


alone = 1000 * np.array(ask(many[::4]))
with ThreadPoolExecutor(8) as clients:
    together = 1000 * np.concatenate(list(clients.map(ask, [many[first::8] for first in range(8)])))

# %%
# Stop it
# -------
service.terminate()
service.wait()
service.stdout.close()
folder.cleanup()

# %%
# What came back
# --------------
figure = plt.figure(figsize=(8, 4.2), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1, 1.7])
places = above.subplots(1, len(questions))
for axes, file, answer in zip(places, questions, answers, strict=True):
    axes.imshow(Image.open(io.BytesIO(file)))
    probability = max(answer["probabilities"].values())
    axes.set_title(f"{answer['class']}\n{probability:.2f}", fontsize=10)
    axes.set_axis_off()
axes = below.subplots()
bins = np.linspace(0, max(together.max(), alone.max()), 50)
for name, times in {"one client": alone, "eight clients": together}.items():
    label = f"{name}: median {np.median(times):.0f} ms"
    axes.hist(times, bins, density=True, alpha=0.7, label=label)
axes.set(xlabel="milliseconds from question to answer", ylabel="share of requests", yticks=[])
axes.spines[["top", "right", "left"]].set_visible(False)
axes.legend(frameon=False)
plt.show()
