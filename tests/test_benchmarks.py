"""Benchmarks run on a stranger's machine: offline, without real weights or data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.exhaustive
@pytest.mark.parametrize("sections", [("fit", "latency", "cache"), ("grid",), ("one_image", "new_process")])
def test_speed_is_measured_without_anything_but_the_repository(sections, tmp_path):
    command = [sys.executable, "speed.py", "--quick", "--output", str(tmp_path), "--only", *sections]
    environment = {**os.environ, "SKTRANSFER_ASSETS": str(tmp_path / "nothing")}
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "speed.json").read_text())
    assert set(results) == set(sections)
    records = [record for section in results.values() for record in section["records"]]
    assert all(record["ours"]["median"] > 0 for record in records if record["unit"] not in ("images", "accuracy"))
    assert "of generated pictures" in str(records) or "grid" not in sections
    passed = {r["name"]: r["ours"]["median"] for r in records if r["unit"] == "images"}
    if "cache" in sections:
        assert passed["passed in the new process"] == 0
        assert passed["passed in a cross-validation of 5 folds"] == 40
    assert (tmp_path / "speed.png").stat().st_size > 1000
    assert "quick trial" in (tmp_path / "speed.md").read_text()


@pytest.mark.nightly
def test_what_waits_for_a_card_runs_whole_on_a_cpu(tmp_path):
    done = _try_card(tmp_path, "--minutes", "30")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "cuda-cpu.json").read_text())
    parts = results["parts"]
    names = ["tests", "extraction", "grid", "tuning", "halving", "memory", "round_trips", "threads"]
    assert list(parts) == names
    assert {part["outcome"] for part in parts.values()} == {"ran"}
    assert results["machine"]["card"] is None
    assert results["machine"]["torch"]
    records = [record for part in parts.values() for record in part["records"]]
    assert all({"median", "min", "max", "values"} <= set(record["ours"]) for record in records)
    raced = [record for record in records if record["unit"] == "images/s"]
    assert len(raced) == 5
    assert all(record["peer"]["median"] > 0 and record["bar"] == 0.8 for record in raced)
    held = [(name, check["held"]) for name, part in parts.items() for check in part["checks"]]
    assert {name for name, outcome in held if outcome} == set(names)
    assert {name for name, outcome in held if outcome is None} == {"tests", "memory"}, "what only a card can show"
    assert "quick trial" in (tmp_path / "cuda-cpu.md").read_text()


@pytest.mark.exhaustive
def test_parts_that_take_too_long_or_no_longer_fit_are_said_to_be_missing(tmp_path):
    done = _try_card(tmp_path, "--minutes", "0.02", "--parts", "memory", "threads")
    assert done.returncode == 1
    parts = json.loads((tmp_path / "cuda-cpu.json").read_text())["parts"]
    assert [part["outcome"] for part in parts.values()] == ["stopped", "left out"]
    assert "- threads left out: 0 s were left." in (tmp_path / "cuda-cpu.md").read_text()


@pytest.mark.exhaustive
def test_a_part_that_fails_says_why_in_a_line(tmp_path):
    code = (
        "import sys, cuda, cuda_checks\n"
        "def fail(trial):\n"
        "    trial.checked('the sky is blue', True)\n"
        "    raise ValueError('Got no sky.')\n"
        "cuda_checks.memory = fail\n"
        "sys.exit(cuda.main())"
    )
    command = [sys.executable, "-c", code, "--part", "memory", "--device", "cpu", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    findings = [json.loads(line) for line in (tmp_path / "memory.jsonl").read_text().splitlines()]
    assert findings[0]["check"]["held"]
    assert findings[1] == {"error": "ValueError: Got no sky."}


def _try_card(folder, *arguments):
    command = [sys.executable, "cuda.py", "--device", "cpu", "--quick", "--output", str(folder), *arguments]
    return subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)


@pytest.mark.exhaustive
def test_texts_are_measured_without_weights_or_sentences(tmp_path):
    done = _measure_texts(tmp_path, "--quick", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "texts.json").read_text())
    assert set(results) == {"accuracy", "grid", "encoding"}
    records = [record for section in results.values() for record in section["records"]]
    assert all(record["ours"]["median"] > 0 for record in records)
    assert "quick trial" in (tmp_path / "texts.md").read_text()
    assert "48 generated sentences" in (tmp_path / "texts.md").read_text()


@pytest.mark.exhaustive
def test_accuracy_is_measured_without_weights_or_data_and_parts_add_up(tmp_path):
    for rows in (("earlier_head", "default", "tuned"), ("no_network", "two_backbones", "two_phases")):
        done = _measure_accuracy(tmp_path, "--quick", "--output", str(tmp_path), "--rows", *rows)
        assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "accuracy.json").read_text())
    measured = {(figure["set"], figure["row"]) for figure in results["figures"]}
    assert measured >= {("few digits", "default"), ("few digits", "two_phases"), ("generated texts", "two_backbones")}
    assert all(0 <= figure["accuracy"] <= 1 and figure["seconds"] > 0 for figure in results["figures"])
    assert "quick trial" in (tmp_path / "accuracy.md").read_text()
    assert (tmp_path / "accuracy.png").stat().st_size > 1000


@pytest.mark.nightly
def test_what_learns_is_measured_without_weights_or_data(tmp_path):
    done = _measure_accuracy(tmp_path, "--quick", "--trainable", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "trainable.json").read_text())["figures"]
    assert {key.split(", ")[1] for key in figures} == {"all", "norm", "bias", "lora"}
    sizes = {key: figure["file without backbone, kB"] for key, figure in figures.items()}
    assert (
        sizes["random_squeezenet, bias, 5, 0"]
        < sizes["random_squeezenet, lora, 5, 0"]
        < sizes["random_squeezenet, all, 5, 0"]
    )
    assert "quick trial" in (tmp_path / "trainable.md").read_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["ranking", "duplicates"])
def test_choices_and_copies_are_measured_without_weights_or_data(name, tmp_path):
    command = [sys.executable, f"{name}.py", "--quick", "--output", str(tmp_path)]
    environment = {**os.environ, "SKTRANSFER_ASSETS": str(tmp_path / "nothing"), "MPLBACKEND": "agg"}
    pictures = ["--pictures", str(tmp_path)] if name == "ranking" else []
    done = subprocess.run(
        [*command, *pictures], cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "quick trial" in (tmp_path / f"{name}.md").read_text()
    if name == "ranking":
        figure, few = json.loads((tmp_path / "ranking.json").read_text())["figures"]
        assert figure["passed images per backbone"] == figure["training samples"] > 50
        assert few["passed images per backbone"] == 0
        assert few["training samples"] < 20
        assert set(figure["choices"]) == {"logistic", "knn", "size"}
        assert figure["choices"]["size"] == "mobilenet_v3_small"
        assert (tmp_path / "rank_few_digits.png").stat().st_size > 1000


@pytest.mark.exhaustive
def test_targets_are_measured_without_weights_or_data(tmp_path):
    command = [sys.executable, "targets.py", "--quick", "--output", str(tmp_path)]
    environment = {**os.environ, "SKTRANSFER_ASSETS": str(tmp_path / "nothing")}
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "targets.json").read_text())["figures"]
    assert {figure["target"] for figure in figures} == {"angle", "blur", "hue", "zoom", "labels"}
    assert len({figure["row"] for figure in figures}) == 10
    assert all(figure["score"] <= 1 for figure in figures)
    assert "quick trial" in (tmp_path / "targets.md").read_text()


@pytest.mark.nightly
def test_clusters_are_measured_without_weights_or_data(tmp_path):
    pytest.importorskip("distributed", reason="Dask is not installed")
    pytest.importorskip("ray", reason="Ray is not installed")
    command = [sys.executable, "speed.py", "--quick", "--output", str(tmp_path), "--only", "distributed"]
    environment = {**os.environ, "SKTRANSFER_ASSETS": str(tmp_path / "nothing"), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "speed.json").read_text())["distributed"]["records"]
    measured = {record["name"]: record["ours"] for record in records}
    assert measured["Dask: networks in each worker after extraction"]["values"] == [1, 1]
    assert sum(name.startswith("Ray: ") for name in measured) == 8
    assert measured["pickle of a fitted extractor, store_backbone=False"]["median"] < 20_000
    assert "quick trial" in (tmp_path / "speed.md").read_text()


@pytest.mark.exhaustive
def test_the_domain_gap_is_measured_without_weights_or_data(tmp_path):
    command = [sys.executable, "domain_gap.py", "--quick", "--output", str(tmp_path)]
    environment = {**os.environ, "SKTRANSFER_ASSETS": str(tmp_path / "nothing")}
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "domain_gap.json").read_text())
    assert {record["set"] for record in results["gaps"]} >= {"coloured waves", "drawn chests", "uniform noise"}
    assert results["probes"][0]["baseline"] > 0.5
    assert results["suggestions"][0]["freeze_depth"] == "all"
    assert "quick trial" in (tmp_path / "domain_gap.md").read_text()


@pytest.mark.exhaustive
def test_accuracy_says_what_it_lacks(tmp_path):
    done = _measure_accuracy(tmp_path)
    assert done.returncode == 2
    assert "--quick" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.exhaustive
def test_onnx_export_is_measured_without_weights():
    pytest.importorskip("onnxruntime", reason="the runtime that reads ONNX")
    pytest.importorskip("onnxscript", reason="what torch's newer exporter needs")
    command = [sys.executable, "onnx_export.py", "--quick"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| squeezenet1_1 | torch.export |" in done.stdout


@pytest.mark.exhaustive
def test_networks_are_measured_without_weights():
    command = [sys.executable, "networks.py", "--quick"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| squeezenet1_1 | images |" in done.stdout
    assert "per second" in done.stdout


@pytest.mark.exhaustive
def test_texts_say_what_they_lack(tmp_path):
    done = _measure_texts(tmp_path)
    assert done.returncode == 2
    assert "expected" in done.stderr
    assert "--quick" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.exhaustive
def test_what_freed_memory_brings_is_measured_without_anything_but_the_repository():
    command = [sys.executable, "allocator.py", "--quick"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| mobilenet_v3_small, arrays | 8 |" in done.stdout


def _measure_texts(folder, *arguments):
    return _measure("texts.py", folder, *arguments)


def _measure_accuracy(folder, *arguments):
    return _measure("accuracy.py", folder, *arguments)


def _measure(script, folder, *arguments):
    environment = {**os.environ, "SKTRANSFER_ASSETS": str(folder / "nothing")}
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.exhaustive
def test_small_devices_are_compared_without_weights():
    pytest.importorskip("onnxruntime", reason="the runtime that reads ONNX")
    command = [sys.executable, "small_devices.py", "--quick"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| squeezenet1_1 |"))
    parameters, float32, float16, int8, *times = (float(cell) for cell in row.split("|")[2:-1])
    assert parameters == pytest.approx(0.7)
    assert int8 < float16 < float32
    assert len(times) == 3
    assert min(times) > 0


@pytest.mark.exhaustive
def test_what_onnx_files_change_is_measured_without_weights_or_data():
    pytest.importorskip("onnxruntime", reason="the runtime that reads ONNX")
    command = [sys.executable, "onnx_files.py", "--quick"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[2:-1] for line in done.stdout.splitlines() if line.startswith("| random_squeezenet")]
    precisions, sizes, differences = zip(
        *[(row[0].strip(), float(row[1]), float(row[2])) for row in rows[:3]], strict=True
    )
    assert precisions == ("float32", "float16", "int8")
    assert sizes[0] > sizes[1] > sizes[2]
    assert differences[0] < 1e-4
