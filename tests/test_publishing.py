"""What is published beside the code says the same as the code: one version, one list of requirements."""

import re
import tomllib
from pathlib import Path

import pytest

import sktransfer

yaml = pytest.importorskip("yaml", reason="the files are YAML")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPE = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
# Names of packages on conda-forge, where they differ from those on PyPI.
OF_CONDA = {"Pillow": "pillow", "torch": "pytorch"}


def test_all_files_tell_one_version():
    changes = re.findall(r"^## \[?(\d\S*?)\]? - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {changes[0], citation["version"], RECIPE["context"]["version"]} == {sktransfer.__version__}


def test_a_dated_section_of_the_changelog_stands_where_the_version_is_released():
    dates = re.findall(r"^## \[?\d\S*?\]? - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}|unreleased", date) for date in dates)
    assert all(date != "unreleased" for date in dates[1:])


def test_the_conda_recipe_requires_what_the_wheel_requires():
    required = [re.match(r"([\w-]+)(.*)", one).groups() for one in PROJECT["dependencies"]]
    expected = {f"{OF_CONDA.get(name, name)} {bounds}" for name, bounds in required}
    assert set(RECIPE["requirements"]["run"]) - expected == {"python >=${{ python_min }}"}
    assert expected <= set(RECIPE["requirements"]["run"])
    assert PROJECT["requires-python"] == f">={RECIPE['context']['python_min']}"


def test_the_conda_recipe_is_one_that_condas_own_tool_renders():
    rattler_build = pytest.importorskip("rattler_build", reason='it parses recipes: pip install "sktransfer[dev]"')
    recipe = rattler_build.Stage0Recipe.from_file(str(ROOT / "conda" / "recipe.yaml"))
    (rendered,) = recipe.render(rattler_build.VariantConfig())
    package = rendered.recipe.package
    assert (package.name, str(package.version)) == ("sktransfer", sktransfer.__version__)
    assert "pytorch >=2.6" in [str(one) for one in rendered.recipe.requirements.run]


def workflow(name):
    path = ROOT / ".github" / "workflows" / name
    if not path.exists():
        pytest.skip("not in a source distribution")
    return yaml.safe_load(path.read_text())


def test_a_release_is_published_after_its_wheel_was_tested_and_without_a_token():
    jobs = workflow("release.yml")["jobs"]
    assert (jobs["publish"]["needs"], jobs["smoke"]["needs"]) == ("smoke", "build")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
    assert [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("twine check --strict" in command for command in commands)
    assert any(".ci/smoke.py" in command for command in commands)
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_what_was_never_run_says_so():
    files = [ROOT / "conda" / "recipe.yaml"]
    if (ROOT / ".github").exists():
        files.append(ROOT / ".github" / "workflows" / "release.yml")
    assert [file.name for file in files if "Not yet run" not in file.read_text()] == []
