"""What is wrong with a weights file is said in a sentence, with its name, and nothing waits for a file."""

import collections
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import tiny_cnn
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources._weights import place_of

NAN, INFINITY = float("nan"), float("inf")


def refused(path: object, match: str, backbone: Any = tiny_cnn, error: type[Exception] = ValueError) -> str:
    """Load weights, and return the sentence that they are refused with."""
    with pytest.raises(error, match=match) as caught:
        load_backbone(backbone, weights=path)
    message = str(caught.value)
    assert len(message) < 600
    assert "weights_only=False" not in message
    assert "Please" not in message
    return message


def with_first(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    state = tiny_cnn().state_dict()
    state["0.weight"] = change(state["0.weight"])
    return state


# Numbers


def spoil(tensor: torch.Tensor, value: float, at: int = -1) -> torch.Tensor:
    spoilt = tensor.clone()
    spoilt.view(-1)[at] = value
    return spoilt


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "11.bias"])
def test_nan_and_infinity_are_refused_with_file_and_tensor(name: str, value: float, ending: str, tmp_path: Path):
    state = tiny_cnn().state_dict()
    state[name] = spoil(state[name], value)
    (torch.save if ending == "pth" else save_file)(dict(state), tmp_path / f"w.{ending}")
    refused(
        tmp_path / f"w.{ending}", rf"Got weights='.*w\.{ending}', which holds NaN or infinity in 1 tensor \({name}\)"
    )


@pytest.mark.parametrize("estimator", [PretrainedFeatureExtractor, FineTunedClassifier])
def test_both_estimators_name_a_file_that_holds_nan(estimator: type, pictures: tuple, tmp_path: Path):
    torch.save(with_first(lambda weight: spoil(weight, NAN)), tmp_path / "diverged.pth")
    with pytest.raises(
        ValueError, match=r"diverged\.pth', which holds NaN.*expected finite numbers.*earlier checkpoint"
    ):
        estimator(tiny_cnn, weights=str(tmp_path / "diverged.pth")).fit(*pictures)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_nan_is_seen_in_every_precision(dtype: torch.dtype, tmp_path: Path):
    torch.save(with_first(lambda weight: weight.to(dtype)), tmp_path / "w.pth")
    assert torch.isfinite(load_backbone(tiny_cnn, tmp_path / "w.pth").network[0].weight).all()
    torch.save(with_first(lambda weight: spoil(weight.float(), NAN).to(dtype)), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "holds NaN")


def test_large_numbers_that_add_up_to_infinity_are_numbers(tmp_path: Path):
    torch.save(with_first(lambda weight: torch.full_like(weight, 3e38)), tmp_path / "w.pth")
    load_backbone(tiny_cnn, tmp_path / "w.pth")
    torch.save(with_first(lambda weight: weight.double() * 1e300), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"1 other type \(0\.weight float64 for float32, too large\)")


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mask", torch.full((4, 4), -INFINITY).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.layer(x) @ self.mask, -1)


def test_a_mask_of_minus_infinity_is_no_fault(tmp_path: Path):
    torch.save(Masked().state_dict(), tmp_path / "w.pth")
    load_backbone(Masked, tmp_path / "w.pth")


def test_nan_where_torchvision_keeps_its_weights_names_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.models import SqueezeNet1_1_Weights

    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    place = place_of(SqueezeNet1_1_Weights.DEFAULT)
    place.parent.mkdir(parents=True)
    state = get_model("squeezenet1_1", weights=None).state_dict()
    torch.save(state | {"features.0.bias": spoil(state["features.0.bias"], NAN)}, place)
    refused("DEFAULT", rf"{place.name}', which holds NaN.*features\.0\.bias", "squeezenet1_1")
    place.unlink()
    os.mkfifo(place)
    refused("DEFAULT", rf"{place.name}', which is not a file. Delete it", "squeezenet1_1")


def test_nan_in_timms_networks_names_the_file(tmp_path: Path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state | {"conv1.0.weight": spoil(state["conv1.0.weight"], NAN)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"w\.pth', which holds NaN", "timm:test_resnet")


# Types of tensors


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda weight: weight.to_sparse(), "sparse"),
        (lambda weight: weight.flatten(1).to_sparse_csr(), "sparse"),
        (lambda weight: weight.to("meta"), "on the device meta"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "quantized"),
        (lambda weight: torch.nested.nested_tensor([weight[0], weight[1]]), "nested"),
    ],
)
def test_tensors_that_no_layer_can_be_given_are_named(change: Callable, what: str, tmp_path: Path):
    torch.save(with_first(change), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", rf"w\.pth', which holds 1 tensor \(0\.weight \({what}\)\).*expected dense tensors")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_whole_or_complex_numbers_are_no_weights(dtype: torch.dtype, tmp_path: Path):
    torch.save(with_first(lambda weight: weight.to(dtype)), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", rf"1 other type \(0\.weight {str(dtype)[6:]} for float32\)")


def test_counters_that_were_written_as_floats_are_counters(tmp_path: Path):
    state = tiny_cnn().state_dict()
    torch.save(state | {"1.num_batches_tracked": torch.tensor(7.0)}, tmp_path / "w.pth")
    assert load_backbone(tiny_cnn, tmp_path / "w.pth").network[1].num_batches_tracked == 7
    torch.save(state | {"1.num_batches_tracked": torch.tensor(7.5)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"other type \(1\.num_batches_tracked float32 for int64\)")


@pytest.mark.parametrize("notes", [3, "text", [1], {"": 3}, {"1": {"version": "x"}}, {3: {}}])
def test_notes_on_versions_that_torch_cannot_read_are_refused(notes: object, tmp_path: Path):
    state = collections.OrderedDict(tiny_cnn().state_dict())
    state._metadata = notes  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "w.pth")
    refused(
        tmp_path / "w.pth", rf"w\.pth', whose _metadata, a {type(notes).__name__}, torch cannot read; expected a dict"
    )


@pytest.mark.parametrize("notes", [None, {}, {"1": {}}])
def test_notes_on_versions_that_say_nothing_do_no_harm(notes: object, tmp_path: Path):
    network = tiny_cnn()
    state = collections.OrderedDict(network.state_dict())
    state._metadata = notes  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "w.pth")
    assert torch.equal(load_backbone(tiny_cnn, tmp_path / "w.pth").network[0].weight, network[0].weight)


# Places


@pytest.mark.parametrize("backbone", [tiny_cnn, "squeezenet1_1", "timm:test_resnet"])
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: "~nosuchuser/w.pth", r"'~nosuchuser/w\.pth', whose home folder is not known"),
        (lambda path: os.mkfifo(path), "which is not a file but a pipe"),
        (lambda path: path.mkdir(), "which is not a file but a folder"),
        (lambda path: path.symlink_to(path), r"which is not a file \(Too many levels"),
        (lambda path: path.with_name("w" * 300), r"which is not a file \(File name too long"),
        (lambda path: path.with_name("w" * 5000), r"which is not a file \(File name too long"),
        (lambda path: str(path) + "\0", r"which is not a file \(embedded null"),
        (lambda path: path / "below", r"which is not a file \(No such file"),
        (lambda path: "/dev/zero", "which is not a file but a device"),
        (lambda path: path.write_bytes(b"") and None, r"which is empty \(0 bytes\)"),
        (lambda path: "/proc/version", r"which is empty \(0 bytes\)"),
    ],
)
def test_what_cannot_be_read_is_said_and_never_waited_for(make: Callable, match: str, backbone: Any, tmp_path: Path):
    if isinstance(backbone, str) and backbone.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed")
    path = make(tmp_path / "w.pth") or tmp_path / "w.pth"
    if str(path).startswith(("/dev", "/proc")) and not os.path.exists(path):  # noqa: PTH110
        pytest.skip(f"there is no {path} here")
    refused(path, match, backbone, (FileNotFoundError, ValueError))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path):
    torch.save(tiny_cnn().state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").chmod(0)
    refused(tmp_path / "w.pth", "cannot be read .*Change its permissions", error=PermissionError)


@pytest.mark.parametrize("ending", ["pth", "safetensors", "bin"])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(ending: str, tmp_path: Path):
    path = tmp_path / f"w.{ending}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    refused(path, rf"w\.{ending}', which is a Git LFS pointer.*git lfs pull")


# Claims


def crafted(header: dict, content: bytes = b"") -> bytes:
    """A safetensors file."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


@pytest.mark.parametrize(
    "content",
    [
        (2**40).to_bytes(8, "little") + b"{}",
        (90_000_000).to_bytes(8, "little") + b"{}",
        crafted({"0.weight": {"dtype": "F32", "shape": [10**9, 1000], "data_offsets": [0, 4 * 10**12]}}),
        crafted({"0.weight": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        crafted({"0.weight": {"dtype": "F31", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        crafted({"0.weight": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"\0"),
        crafted({"0.weight": 3}),
    ],
)
def test_a_safetensors_file_that_claims_what_it_does_not_hold_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(content)
    refused(tmp_path / "w.safetensors", "not a whole safetensors file|packed as|other shape|do not match")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path):
    torch.save(with_first(lambda weight: torch.zeros(1).expand(10**6, 10**6)), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"claims more in 1 tensor \(0\.weight\)")


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**27))
    refused(tmp_path / "w.pth", r"has \d+ bytes and claims to hold 134217728")


# Contents


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_networks_and_scripts_are_refused_without_advice_to_run_them(tmp_path: Path):
    torch.save(tiny_cnn(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "Refused to load .*Sequential")
    torch.save({"model": tiny_cnn(), "epoch": 3}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "Refused to load .*Sequential")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pth")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        refused(tmp_path / "w.pth", "a TorchScript archive")
    assert not [one for one in told if "torch.jit.load" in str(one.message)]


def test_a_checkpoint_with_its_optimizer_is_understood(tmp_path: Path):
    network = tiny_cnn()
    optimizer = torch.optim.Adam(network.parameters()).state_dict()
    torch.save({"state_dict": network.state_dict(), "optimizer": optimizer, "epoch": 3}, tmp_path / "w.pth")
    assert torch.equal(load_backbone(tiny_cnn, tmp_path / "w.pth").network[0].weight, network[0].weight)


def test_messages_stay_short_whatever_the_names(tmp_path: Path):
    folder = tmp_path / ("f" * 200) / ("g" * 200)
    folder.mkdir(parents=True)
    state = tiny_cnn().state_dict()
    torch.save({f"{'k' * 5000}{number}": torch.ones(1) for number in range(10)}, folder / "w.pth")
    refused(folder / "w.pth", r"10 unexpected keys")
    torch.save({name: tensor[None] for name, tensor in state.items()}, folder / "w.pth")
    refused(folder / "w.pth", "other shapes")
    torch.save({f"{'k' * 5000}{number}": torch.full((2,), NAN) for number in range(10)}, folder / "w.pth")
    refused(folder / "w.pth", r"NaN or infinity in 10 tensors")


# Prefixes


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model."])
@pytest.mark.parametrize("backbone", [tiny_cnn, "squeezenet1_1", "timm:test_resnet"])
def test_a_prefix_that_training_left_is_understood_and_told(prefix: str, backbone: Any, tmp_path: Path):
    if backbone == "timm:test_resnet":
        timm = pytest.importorskip("timm", reason="timm is not installed")
        state = timm.create_model("test_resnet").state_dict()
    else:
        state = tiny_cnn().state_dict() if backbone is tiny_cnn else get_model(backbone, weights=None).state_dict()
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=rf"Left out of '.*w\.pth': the prefix '{prefix}' of its names\.$"):
        loaded = load_backbone(backbone, tmp_path / "w.pth").network.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def test_an_averaged_model_and_its_notes_are_understood(tmp_path: Path):
    network = get_model("mnasnet0_5", weights=None)  # which asks for the version of its weights
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save(averaged.state_dict(), tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"the prefix 'module\.' of its names"):
        loaded = load_backbone("mnasnet0_5", tmp_path / "w.pth").network.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in network.state_dict().items())


def test_a_prefix_of_other_weights_is_not_left_out(tmp_path: Path):
    torch.save({f"module.other.{number}": torch.ones(1) for number in range(3)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"3 unexpected keys \(module\.other\.0")
