"""Each Python block of the page on deploying runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sktransfer import FineTunedClassifier

pytest.importorskip("skops", reason='the page is about it: pip install "sktransfer[skops]"')

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "guide" / "deploying.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
TESTED = {"Save": 1, "Serve with FastAPI": 1, "MLflow": 1, "A model card": 1, "BentoML": 2}


@pytest.fixture(scope="module")
def model(paths, pictures):
    return FineTunedClassifier("shufflenet_v2_x0_5", weights=None, random_state=0).fit(paths, pictures[1])


@pytest.fixture
def names(model, paths, pictures, tmp_path, monkeypatch):
    """What the page takes for granted; its blocks run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    # Nobody is told that these libraries were used, and nothing is kept outside the folder.
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    names = {"model": model, "paths": list(paths), "labels": pictures[1]}
    exec(SECTIONS["Save"][0], names)
    return names


def test_each_block_of_the_page_is_tested():
    assert {title: len(blocks) for title, blocks in SECTIONS.items() if blocks} == TESTED


def test_a_saved_model_predicts_the_same(names, model, paths):
    assert names["model"] is not model
    np.testing.assert_allclose(names["model"].predict_proba(paths), model.predict_proba(paths), atol=1e-6)


@pytest.mark.exhaustive
def test_the_service_is_asked_as_the_page_says(names, model):
    for needed in ("httpx", "fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(needed, reason='the service needs it: pip install "sktransfer[serving]" httpx')
    serve = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "serving" / "serve.py")]
    command = [*serve, "--model", "model.safetensors", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            names["url"] = re.search(r"http://\S+\d", service.stdout.readline()).group()
            exec(SECTIONS["Serve with FastAPI"][0], names)
        finally:
            service.terminate()
    assert [one["class"] for one in names["answers"]] == model.predict(names["paths"]).tolist()


def test_mlflow_keeps_a_model_in_its_default_format(names, model, paths):
    pytest.importorskip("mlflow", reason='the section is about it: pip install "sktransfer[tools]"')
    exec(SECTIONS["MLflow"][0], names)
    assert Path("mlflow_model/model.skops").exists()
    assert "sktransfer[skops]==" in Path("mlflow_model/requirements.txt").read_text()
    np.testing.assert_allclose(names["again"].predict_proba(paths), model.predict_proba(paths), atol=1e-6)
    assert list(names["served"].predict(list(paths))) == model.predict(paths).tolist()


def test_a_model_card_says_what_the_page_put_on_it(names, model, paths, pictures):
    exec(SECTIONS["A model card"][0], names)
    written = Path("README.md").read_text(encoding="utf-8")
    assert "Tells ants from bees on photos." in written
    assert "Not for other insects." in written
    assert re.search(rf"accuracy\s*\|\s*{model.score(paths, pictures[1]):g}", written)
    assert re.search(r"backbone\s*\|\s*shufflenet_v2_x0_5", written)
    assert "[More Information Needed]" not in re.search(r"Get Started.*?\n#", written, re.DOTALL).group()


def test_bentoml_serves_what_sktransfer_saved(names, model, paths, monkeypatch):
    pytest.importorskip("bentoml", reason='the section is about it: pip install "sktransfer[tools]"')
    store, service = SECTIONS["BentoML"]
    exec(store, names)
    assert service.startswith("# service.py\n")
    Path("service.py").write_text(service)
    monkeypatch.syspath_prepend(Path.cwd())
    from service import Pictures

    answers = Pictures().predict([Image.open(path) for path in paths])
    np.testing.assert_allclose([list(one.values()) for one in answers], model.predict_proba(paths), atol=1e-5)
    assert [list(one) for one in answers] == [model.classes_.tolist()] * len(paths)
