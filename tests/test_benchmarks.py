"""Benchmarks run on a stranger's machine: offline, without real weights or data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("sections", [("fit", "latency", "cache"), ("grid",)])
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
