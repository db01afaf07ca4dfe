"""Models that earlier versions of this package wrote load today and say what they said.

`tests/earlier_models/make.py` wrote them; a change that breaks one of them breaks somebody's model.
"""

import json
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from networks import tiny_cnn, tiny_vectors

import sktransfer

MODELS = sorted(Path(__file__).parent.glob("earlier_models/*/*.*"))
LOADERS = {
    ".joblib": joblib.load,
    ".pickle": lambda file: pickle.loads(file.read_bytes()),
    ".safetensors": lambda file: sktransfer.load(file, backbone=tiny_vectors if file.stem == "probe" else tiny_cnn),
}
FILES = [file for file in MODELS if file.suffix in LOADERS]


@pytest.fixture(params=FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def file(request):
    """A model of an earlier version, whatever versions of torch and scikit-learn wrote it."""
    return request.param


def test_there_are_such_models():
    assert {file.suffix for file in FILES} == set(LOADERS)
    assert {file.parent.name for file in FILES} >= {"1", "2", "3"}
    writers = {json.loads(file.read_text())["versions"]["torch"] for file in MODELS if file.name == "about.json"}
    assert writers >= {"2.6.0", "2.15.0"}, "the least and a late one"
    assert sum(file.stat().st_size for file in MODELS) < 500_000


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
def test_a_model_of_an_earlier_version_says_what_it_said(file):
    data, expected = np.load(file.parent / "data.npz"), np.load(file.parent / "expected.npz")[file.stem]
    X = data["vectors" if file.stem == "probe" else "images"]
    try:
        model = LOADERS[file.suffix](file)
    except pickle.UnpicklingError as error:
        if file.parent.name != "1" or "Unsupported operand" not in str(error):
            raise
        # Only in the first pickles is a net of skorch, and in it what torch.save wrote.
        pytest.skip("this torch does not read what a later one wrote")
    found = (model.predict_proba if hasattr(model, "predict_proba") else model.transform)(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    if hasattr(model, "predict"):
        assert model.classes_.tolist() == sorted(set(data["y"].tolist()))
        assert set(model.predict(X)) <= set(model.classes_)
        assert [entry["epoch"] for entry in model.history_] == sorted(entry["epoch"] for entry in model.history_)
    assert model.get_params().keys() == type(model)().get_params().keys()
    model.backbone_.summary()
    model.fit(X, data["y"])
