"""What is handed out: one version, links that work away from the repository, gates of the same versions everywhere."""

import io
import re
import tomllib
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import pytest

import sktransfer

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_the_one_that_is_installed():
    assert sktransfer.__version__ == version("sktransfer")


def test_links_of_the_readme_work_on_a_package_index():
    text = (ROOT / "README.md").read_text()
    inline = re.findall(r"\]\(([^)]+)\)", text)
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    assert len(inline) + len(defined) > 8
    assert [link for link in (*inline, *defined.values()) if not link.startswith(("https://", "#"))] == []
    own = [link for link in (*inline, *defined.values()) if "/sktransfer/sktransfer/" in link]
    files = [re.sub(r"^https://[^/]+/sktransfer/sktransfer/(?:blob/|tree/)?main/", "", link) for link in own]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_gates_have_the_same_version_before_a_commit_as_before_a_change_lands():
    if not (ROOT / ".pre-commit-config.yaml").exists():
        pytest.skip("not in a source distribution")
    pinned = dict(one.split("==") for one in PROJECT["project"]["optional-dependencies"]["dev"] if "==" in one)
    assert f"rev: v{pinned['ruff']}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_versions_are_shown_of_all_that_is_required():
    with redirect_stdout(io.StringIO()) as printed:
        sktransfer.show_versions()
    shown = printed.getvalue().lower()
    required = [re.split(r"[>=]", one)[0].lower() for one in PROJECT["project"]["dependencies"]]
    assert [name for name in required if f"  {name}: " not in shown] == ["threadpoolctl", "tqdm"]
    assert f"sktransfer: {sktransfer.__version__}" in shown
    assert "cuda: " in shown
    assert re.search(r"networks kept \(\d+\): \d+\.\d\n", shown)
    assert re.search(r"activations kept in memory \(\d+\): \d+\.\d\n", shown)
    assert re.search(r"memory of this process: (\d+|not known)\n", shown)
