"""What SECURITY.md says of the package's own code, and of the network: nothing runs and nothing is fetched unasked."""

import ast
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import sktransfer
from sktransfer import FineTunedClassifier

PACKAGE = Path(sktransfer.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Calls that run code, or unpickle, or open a shell: by the last part of what is called, and what it is called on.
FORBIDDEN = {
    ("", "eval"), ("", "exec"), ("", "compile"), ("", "__import__"), ("importlib", "import_module"),
    ("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler"), ("joblib", "load"), ("np", "load"),
    ("numpy", "load"), ("os", "system"), ("os", "popen"), ("hub", "load"), ("marshal", "loads"),
}  # fmt: skip


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                yield node, "", function.id
            elif isinstance(function, ast.Attribute):
                owner = function.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "?")
                yield node, name, function.attr


def dangers(source):
    """Return what in some source may run code that is not this package's."""
    found = []
    tree = ast.parse(source)
    for node, owner, name in calls(tree):
        if (owner, name) in FORBIDDEN or owner == "subprocess":
            found.append(f"{owner}.{name}")
        if (owner, name) == ("torch", "load"):
            safe = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if safe.get("weights_only") is not True:
                found.append("torch.load")
        if any(keyword.arg in ("shell", "allow_pickle") for keyword in node.keywords):
            found.append(f"{owner}.{name} with shell or allow_pickle")
        trusts = [keyword.value for keyword in node.keywords if keyword.arg == "trust_remote_code"]
        if owner.startswith("Auto") and not trusts:  # whoever is not told asks on the terminal
            found.append(f"{owner}.{name} without trust_remote_code=False")
        found += ["trust_remote_code" for value in trusts if getattr(value, "value", None) is not False]
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            given = zip(node.keys, node.values, strict=True)
            asked = [value for key, value in given if getattr(key, "value", None) == "trust_remote_code"]
            found += ["trust_remote_code" for value in asked if getattr(value, "value", None) is not False]
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in ("subprocess", "importlib", "marshal", "shelve")]
    return [danger for danger in found if danger != "importlib.metadata"]


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "import subprocess", "pickle.loads(x)", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p)", "np.lib.format.read_array(f, allow_pickle=True)", "import importlib", "os.system('ls')",
        "torch.hub.load('a', 'b')", "AutoModel.from_pretrained(p, trust_remote_code=True)", "{'trust_remote_code': x}",
        "AutoModel.from_config(c)",
    ],
)  # fmt: skip
def test_the_search_for_dangers_finds_them(source):
    assert dangers(source)
    assert not dangers("torch.load(p, weights_only=True); json.loads(x); file.load(); {'trust_remote_code': False}")
    assert not dangers("AutoModel.from_config(c, trust_remote_code=False)")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_of_the_package_runs_or_unpickles_what_it_is_given(file):
    assert dangers(file.read_text()) == []


def test_what_the_policy_points_at_is_there():
    policy = PACKAGE.parent / "SECURITY.md"
    if not policy.is_file():
        pytest.skip("the package is installed without its repository")
    named = set(re.findall(r"tests/[\w/]+\.py", policy.read_text()))
    assert len(named) >= 5
    for file in named:
        assert (PACKAGE.parent / file).is_file()


NO_NETWORK = """
    import socket
    class Refused(Exception): pass
    def refuse(*args, **kwargs): raise Refused("something wants the network")
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
    import torch.hub, urllib.request
    torch.hub.urlopen = urllib.request.urlopen = refuse
"""


def without_network(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(NO_NETWORK) + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)


def test_import_and_unpickling_ask_no_network(pictures, tmp_path):
    """Even where the weights were left out and are not on this machine; only using the model asks for them."""
    model = FineTunedClassifier("squeezenet1_1", weights=None, store_backbone=False, random_state=0).fit(*pictures)
    model.backbone_._source = type(model.backbone_._source)("squeezenet1_1", "DEFAULT")
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    sktransfer.save(model, tmp_path / "model.safetensors")
    code = """
        import os, pickle, sys
        import numpy as np
        os.environ["TORCH_HOME"] = sys.argv[1] + "/nothing_here"
        import sktransfer
        from sktransfer.backbones import list_backbones
        pickled = pickle.load(open(sys.argv[1] + "/model.pickle", "rb"))
        for model in (pickled, sktransfer.load(sys.argv[1] + "/model.safetensors")):
            repr(model), model.get_params(), len(list_backbones()), model.classes_
            print("loaded")
            try:
                model.predict(np.zeros((2, 20, 24, 3), dtype=np.uint8))
            except Refused as error:
                print("asked when used")
    """
    done = without_network(code, tmp_path)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("Downloading:")]  # that is torch
    assert said == ["loaded", "asked when used"] * 2


def test_a_cache_holds_nothing_that_is_unpickled(pictures, tmp_path):
    from sktransfer import PretrainedFeatureExtractor

    X = pictures[0]
    PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0, feature_cache=tmp_path / "c").fit(X)
    files = list((tmp_path / "c").iterdir())
    assert files
    for file in files:
        assert b"numpy" not in file.read_bytes()
        assert b"torch" not in file.read_bytes()
        assert file.stat().st_mode & 0o022 == 0 or not hasattr(os, "geteuid")
    assert np.isfinite(X).all()
