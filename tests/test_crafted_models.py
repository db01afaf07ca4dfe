"""Whatever a file claims, loading it opens no other, asks nobody, and takes no more time and memory than it holds."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from crafted_models import write_corpus, write_huge_corpus
from networks import tiny_vectors

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

pytestmark = pytest.mark.exhaustive

TESTS = Path(__file__).parent

pytest.importorskip("resource", reason="needs a system that can limit the memory of a process")
pytest.importorskip("skops.io", reason="needs the extra skops")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a saved model for each kind of backbone, with its weights and without them."""
    pytest.importorskip("transformers", reason="needs the extra text")
    from pretrained_models import make_text_model, make_texts

    folder = tmp_path_factory.mktemp("models") / "good"
    folder.mkdir()
    texts, y = make_texts(6)
    bert = make_text_model("bert", folder.parent / "bert")
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    pictures = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    left_out = {"store_backbone": False, "random_state": 0}
    models = {
        "vectors": FineTunedClassifier(tiny_vectors, freeze_depth=1, max_epochs=1).fit(vectors, y),
        "texts": FineTunedClassifier(bert, freeze_depth=1, max_epochs=1).fit(texts, y),
        "texts without weights": FineTunedClassifier(bert, **left_out).fit(texts, y),
        "pictures without weights": PretrainedFeatureExtractor("squeezenet1_1", weights=None, **left_out).fit(pictures),
    }
    for name, model in models.items():
        sktransfer.save(model, folder / f"{name}.safetensors")
    return folder


def load_all(folder, trap):
    command = [sys.executable, str(TESTS / "crafted_models.py"), str(folder), str(trap)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS, timeout=550)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    names = json.loads((folder / "names.json").read_text())
    assert len(results) == len(names), f"{done.stderr[-2000:]} after {results[-1:]}"
    return results


def test_no_made_up_description_opens_another_file_asks_a_hub_or_runs_anything(good, tmp_path):
    trap = tmp_path / "trap"
    from pretrained_models import make_text_model

    make_text_model("bert", trap)
    ran = tmp_path / "was_run"
    (trap / "trap.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    torch.save({}, trap / "model.pth")
    write_corpus(sorted(good.iterdir()), good.parent / "corpus", trap, ["texts"])
    results = load_all(good.parent / "corpus", trap)
    assert len(results) > 300
    assert not ran.exists()
    assert [one for one in results if one["seen"]] == []
    assert [one for one in results if one["said"].startswith("RAW") or len(one["said"]) > 600] == []
    assert [one for one in results if one["MB"] > 300] == []


def test_what_claims_more_than_it_holds_is_refused_before_memory_is_taken(good, tmp_path):
    write_huge_corpus(sorted(good.iterdir()), good.parent / "huge")
    results = load_all(good.parent / "huge", tmp_path / "trap")
    assert len(results) > 50
    assert [one for one in results if one["said"].startswith("RAW") or len(one["said"]) > 600] == []
    assert [one for one in results if one["MB"] > 150 or one["seconds"] > 3] == []
    # Where weights are left out nothing is built yet, and what is not there takes no memory.
    loaded = [one["name"] for one in results if one["said"] == "loaded" and "without weights" not in one["name"]]
    assert loaded == []
