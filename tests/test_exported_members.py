"""The public names are those of one list, and each has a docstring."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import sktransfer
import sktransfer.backbones
import sktransfer.inputs
import sktransfer.inspection


def test_public_names_are_the_list():
    assert sorted(sktransfer.__all__) == [
        "FineTunedClassifier",
        "FineTunedRegressor",
        "PretrainedFeatureExtractor",
        "__version__",
        "cache_info",
        "clear_cache",
        "load",
        "load_image_folder",
        "rank_backbones",
        "restore_suffix",
        "save",
        "set_cache_limit",
        "show_versions",
        "suggest_settings",
    ]
    for module in (sktransfer, sktransfer.backbones, sktransfer.inputs, sktransfer.inspection):
        for name in module.__all__:
            member = getattr(module, name)
            assert not (inspect.isclass(member) or inspect.isfunction(member)) or member.__doc__


def test_nothing_public_is_off_the_list():
    public = {name for name in vars(sktransfer) if not name.startswith("_")}
    assert public - set(sktransfer.__all__) <= {"backbones", "inputs", "inspection"}


def test_import_brings_in_only_what_is_needed_at_once():
    late = ("torchvision", "skorch", "matplotlib", "sklearn.linear_model", "sqlite3", "skops", "onnx", "safetensors")
    code = f"import sys, sktransfer; print([m for m in {late} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_public_name_is_in_the_reference():
    listed, module = set(), ""
    for line in (Path(__file__).parents[1] / "docs" / "api" / "index.rst").read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.fullmatch(r"   ([A-Za-z_.]+)", line):
            listed.add(f"{module}.{found[1]}")
        listed.update(re.findall(r"``(sktransfer\.[\w.]+)``", line))
    public = {
        f"{module.__name__}.{name}"
        for module in (sktransfer, sktransfer.backbones, sktransfer.inputs, sktransfer.inspection)
        for name in module.__all__
    }
    # The last is a page of its own, on what estimators have from scikit-learn.
    assert listed - {"sktransfer.inputs.what_estimators_share"} == public
