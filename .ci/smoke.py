"""What an installed wheel must do without the source tree: run it in an empty folder.

It imports every public module, fits a random network to random pictures, saves, loads and predicts. It needs no network
cable.
"""

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

import sktransfer
import sktransfer.backbones
import sktransfer.inputs
import sktransfer.inspection

package = Path(sktransfer.__file__).resolve().parent
assert not (package.parent / "pyproject.toml").exists(), f"Got the source tree, {package}; expected what pip installed."
assert version("sktransfer") == sktransfer.__version__
assert (package / "py.typed").exists()
for module in (sktransfer, sktransfer.backbones, sktransfer.inputs, sktransfer.inspection):
    assert [name for name in module.__all__ if not hasattr(module, name)] == []

X = np.random.default_rng(0).integers(0, 256, size=(8, 32, 32, 3), dtype=np.uint8)
y = ["ant", "bee"] * 4
model = sktransfer.FineTunedClassifier("squeezenet1_1", weights=None, random_state=0).fit(X, y)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.safetensors"
    sktransfer.save(model, path)
    again = sktransfer.load(path)
np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), atol=1e-6)
assert set(again.predict(X)) <= {"ant", "bee"}
sktransfer.show_versions()
print(f"sktransfer {sktransfer.__version__} works from {package}")
