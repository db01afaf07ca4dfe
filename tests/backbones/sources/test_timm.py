"""timm's networks: parts compute bit for bit what timm computes, and weights are read as data, from wherever."""

import dataclasses
import http.server
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import UntraceableError, load_backbone, restore_backbone
from sktransfer.backbones._loaded_network import forget_networks
from sktransfer.backbones.sources._timm import TimmSource
from sktransfer.backbones.sources._torchvision import TorchvisionSource

timm = pytest.importorskip("timm")

# A family a line; blocks that it has, and every how many of them a cut is tried, since large pictures take their time.
FAMILIES = {
    "coatnet_pico_rw_224": (14, 14),
    "convnext_atto": (16, 3),
    "deit_tiny_distilled_patch16_224": (13, 4),
    "densenet121": (8, 4),
    "efficientnet_lite0": (19, 4),
    "efficientvit_b0": (18, 4),
    "eva02_tiny_patch14_224": (13, 6),
    "fastvit_t8": (20, 5),
    "hgnetv2_b0": (10, 3),
    "levit_128s": (15, 5),
    "maxvit_pico_rw_256": (35, 35),
    "mixer_s32_224": (9, 3),
    "mobilenetv3_small_050": (16, 4),
    "mobilenetv4_conv_small_035": (19, 4),
    "naflexvit_base_patch16_gap": (13, 13),
    "regnety_002": (14, 4),
    "resnet18": (9, 2),
    "resnetv2_50x1_bit": (17, 6),
    "swin_tiny_patch4_window7_224": (16, 8),
    "test_nfnet": (9, 3),
    "test_vit": (7, 1),
    "test_vit2": (9, 3),
    "twins_pcpvt_small": (24, 8),
    "vit_small_patch14_dinov2": (13, 13),
    "vit_small_patch16_dinov3": (13, 13),
    "vit_tiny_patch16_224": (13, 4),
    "xcit_nano_12_p16_224": (18, 6),
}
BUILT_QUICKLY = ["mobilenetv4_conv_small_035", "test_resnet", "test_vit2", "vit_small_patch16_dinov3"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Images this small are quicker on one thread, by far where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wake(network: nn.Module) -> None:
    """Move constant weights off their start, such as zeros and 1e-6, where a lost layer would go unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and (tensor.ndim < 2 or tensor.numel() < 2 or tensor.std() < 1e-3):
                noise = torch.empty_like(tensor).uniform_(0, 0.2, generator=generator)
                tensor.add_(noise if name.endswith("running_var") else noise - 0.1)


def timm_alone(name: str, like: nn.Module) -> nn.Module:
    """The network without classifier as timm builds it, with the weights of another, and nothing of sktransfer's."""
    network = timm.create_model(name, num_classes=0)
    network.load_state_dict(like.state_dict())
    return network.eval()


def noise_for(network: nn.Module) -> torch.Tensor:
    return torch.rand(1, *network.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", rest_exhaustive(FAMILIES, "resnet18", "vit_tiny_patch16_224", "levit_128s"))
def test_prefix_and_suffix_compute_bit_for_bit_the_features_of_timm(name: str):
    count, step = FAMILIES[name]
    backbone = load_backbone(f"timm:{name}", weights=None)
    wake(backbone.network)
    x = noise_for(backbone.network)
    with torch.no_grad():
        expected = timm_alone(name, backbone.network)(x)
        assert expected.ndim == 2
        assert expected.isfinite().all()
        assert expected.std() > 0
        assert torch.equal(backbone.feature_part().network()(x), expected)
        assert len(backbone.blocks) == count
        named = [cut for cut in backbone._traced.cut_names() if cut not in {block.name for block in backbone.blocks}]
        for cut in [*range(0, count + 1, step), *(named[5::20] if step < count else [])]:
            prefix, suffix = backbone.split(cut)
            assert torch.equal(suffix(prefix(x)), expected), f"{name} cut at {cut!r}"
    in_blocks = [n for block in backbone.blocks for n in (*block.parameter_names, *block.buffer_names)]
    assert len(in_blocks) == len(set(in_blocks))
    persistent = {n for n in backbone.network.state_dict() if not n.endswith("relative_position_index")}
    assert persistent <= set(in_blocks)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", ["conv1", *(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))]),
        ("test_vit", ["patch_embed", *(f"blocks.{block}" for block in range(6))]),
        ("vit_tiny_patch16_224", ["patch_embed", *(f"blocks.{block}" for block in range(12))]),
        ("mixer_s32_224", ["stem", *(f"blocks.{block}" for block in range(8))]),
    ],
)
def test_blocks_are_those_a_person_would_name(name: str, blocks: list[str]):
    assert [block.name for block in load_backbone(f"timm:{name}", weights=None).blocks] == blocks


def test_a_layer_that_joins_batchnorm_and_activation_is_a_batchnorm_to_training():
    backbone = load_backbone("timm:mobilenetv4_conv_small_035", weights=None)
    tail = backbone.tail(0, train_bn=True)
    joined = {n: m for n, m in tail.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(joined) > 20
    assert all(type(module).__module__.startswith("timm.") for module in joined.values())
    before = {n: module.running_mean.clone() for n, module in joined.items()}
    tail.train()(torch.rand(2, 3, 64, 64))
    assert not any(torch.equal(before[n], module.running_mean) for n, module in joined.items())


@pytest.mark.parametrize("name", rest_exhaustive(BUILT_QUICKLY, "test_resnet"))
def test_a_backbone_comes_back_as_it_was(name: str):
    backbone = load_backbone(f"timm:{name}", weights=None, seed=3)
    record, tensors = backbone.to_record()
    for again in (pickle.loads(pickle.dumps(backbone)), restore_backbone(record, tensors)):
        forget_networks()
        assert again.name == f"timm:{name}"
        assert again.weights_name == "random, seed 3"
        assert again.fingerprint == backbone.fingerprint
        assert again.blocks == backbone.blocks
        assert again.preprocessing == backbone.preprocessing


def test_random_weights_are_those_of_their_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (load_backbone("timm:test_resnet", weights=None, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    torch.manual_seed(0)
    alone = timm.create_model("test_resnet", num_classes=0).state_dict()
    assert all(torch.equal(tensor, alone[name]) for name, tensor in first.network.state_dict().items())


# Names


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("timm:resnet_18", "'timm:resnet18'"),
        ("timm:resnet18.a9_in1k", r"'timm:resnet18\.a1_in1k'"),
        ("timm:", r"one of \d+ names\. Did you mean"),
    ],
)
def test_an_unknown_name_or_tag_is_answered_with_the_closest(name: str, closest: str):
    with pytest.raises(ValueError, match=rf"Got backbone='{name}'; expected \"timm:\" and a name from .*{closest}"):
        load_backbone(name, weights=None)


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("timm:resnet18", "a1_in2k", r"expected a path, None, or a tag of its weights: .*Did you mean .*'a1_in1k'"),
        ("timm:resnet18.a1_in1k", "a2_in1k", r"expected \"DEFAULT\" or 'a1_in1k', the tag in its name"),
        ("timm:test_mambaout", "DEFAULT", r"for which timm has no weights; expected a path, or None"),
    ],
)
def test_weights_that_there_are_not_are_answered_with_those_there_are(name: str, weights: str, said: str):
    with pytest.raises(ValueError, match=rf"Got weights='{weights}' for '{name}'.*{said}"):
        load_backbone(name, weights=weights)


def test_a_tag_may_stand_in_the_name_or_be_given_as_weights():
    in_name, given = TimmSource("timm:resnet18.tv_in1k", "DEFAULT"), TimmSource("timm:resnet18", "tv_in1k")
    first = TimmSource("timm:resnet18", "DEFAULT")
    assert in_name.weights_name == given.weights_name == "tv_in1k" != first.weights_name
    assert in_name._download() == given._download() != first._download()
    network = nn.Identity()
    network.pretrained_cfg = given._config().to_dict()
    assert given.preprocessing(network).interpolation == "bilinear"


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm:resnet18.*not installed: pip install \"sktransfer\[timm\]\""):
        load_backbone("timm:resnet18", weights=None)
    assert isinstance(TorchvisionSource("resnet18", None), TorchvisionSource)


# Weights in files


def save_somehow(state: dict[str, torch.Tensor], path: Path) -> None:
    (save_file if path.suffix == ".safetensors" else torch.save)(dict(state), path)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "classes", "suffix"),
    [
        *((name, classes, ".pth") for name in ("test_resnet", "levit_128s") for classes in (1000, 7, 0)),
        *(("test_vit2", classes, ".safetensors") for classes in (1000, 0)),
        ("deit_tiny_distilled_patch16_224", 7, ".pth"),
    ],
)
def test_a_file_may_hold_any_classifier_of_timms_or_none(name: str, classes: int, suffix: str, tmp_path: Path):
    whole = timm.create_model(name, num_classes=classes)
    wake(whole)
    save_somehow(whole.state_dict(), tmp_path / f"w{suffix}")
    backbone = load_backbone(f"timm:{name}", weights=tmp_path / f"w{suffix}")
    assert backbone.weights_name == str(tmp_path / f"w{suffix}")
    whole.reset_classifier(0)
    assert backbone.network.state_dict().keys() == whole.state_dict().keys()
    for key, tensor in whole.state_dict().items():
        assert torch.equal(backbone.network.state_dict()[key], tensor), key


def test_a_file_for_pictures_of_another_size_is_converted_as_timm_converts_it(tmp_path: Path):
    small = timm.create_model("test_vit", img_size=96)
    wake(small)
    torch.save(small.state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth")}
    alone = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    assert alone.pos_embed.shape != small.pos_embed.shape
    again = load_backbone("timm:test_vit", weights=tmp_path / "w.pth").network.state_dict()
    assert again.keys() == alone.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in alone.state_dict().items())


@pytest.mark.parametrize("other", ["resnet34", "resnet50", "test_vit"])
def test_the_weights_of_another_network_are_refused_though_some_may_fit(other: str, tmp_path: Path):
    torch.save(timm.create_model(other).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"Got weights from '.*w\.pth' that do not match .*ResNet: .*unexpected keys"):
        load_backbone("timm:resnet18", weights=tmp_path / "w.pth")


class RunsCode:
    """As an attacker writes it: unpickling touches a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def test_a_file_that_wants_to_run_code_does_not(tmp_path: Path):
    torch.save({"conv1.weight": torch.ones(2), "more": RunsCode(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"Refused to load '.*w\.pth'.*run code"):
        load_backbone("timm:test_resnet", weights=tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "ran").exists(), "the file must be able to run code, or this test says nothing"


# Preprocessing


def described(name: str) -> nn.Module:
    """As much of a network as its preprocessing asks for."""
    network = nn.Identity()
    network.pretrained_cfg = timm.models.get_pretrained_cfg(name).to_dict()
    return network


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("picture", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(
    "name",
    [
        "resnet18.a1_in1k",  # bicubic
        "resnet18.tv_in1k",  # bilinear
        "test_vit.r160_in1k",
        "vit_small_patch14_dinov2.lvd142m",  # nothing cut off
        "dm_nfnet_f0.dm_in1k",  # squashed, then cut
        "convnext_tiny.fb_in22k_ft_in1k_384",  # squashed
        "mobilenetv4_conv_small.e2400_r224_in1k",  # its own mean
    ],
)
def test_pictures_are_prepared_as_timm_prepares_them(name: str, picture: str, turned: bool):
    pixels = load_sample_image(picture)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 0, 2) if turned else pixels))
    network = described(name)
    config = timm.data.resolve_model_data_config(network)
    expected = timm.data.create_transform(**config, is_training=False)(image)
    preprocessing = TimmSource(f"timm:{name}", None).preprocessing(network)
    fitted = torch.from_numpy(np.asarray(preprocessing.fit_size(image)).copy()).permute(2, 0, 1)
    prepared = preprocessing.normalise(fitted[None])[0]
    assert prepared.shape == expected.shape == config["input_size"]
    levels = (prepared - expected) * torch.tensor(config["std"]).view(-1, 1, 1) * 255
    assert turned or levels.abs().max() < 2.01
    # Of upright pictures, Pillow rounds a part that is resized alone otherwise than the whole.
    assert (levels.abs() > 2.01).float().mean() < 1e-3
    assert (levels.abs() > 0.5).float().mean() < 0.25


def test_arrays_are_squashed_as_files_are():
    preprocessing = TimmSource("timm:dm_nfnet_f0", None).preprocessing(described("dm_nfnet_f0.dm_in1k"))
    assert preprocessing.resize == (213, 213)
    assert preprocessing.shorter_side == 213
    pixels = load_sample_image("flower.jpg")
    tensor = preprocessing.fit_size(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()).permute(1, 2, 0)
    picture = np.asarray(preprocessing.fit_size(Image.fromarray(pixels)), dtype=np.float32)
    assert tensor.shape == picture.shape == (192, 192, 3)
    assert np.abs(tensor.numpy() - picture).mean() < 1  # a tensor's values are not rounded


@pytest.mark.parametrize(
    "change",
    [{"crop_mode": "border"}, {"crop_mode": "center", "input_size": (3, 160, 120)}],
)
def test_pictures_with_borders_and_oblong_crops_are_refused_with_a_way_out(change: dict):
    network = described("test_vit.r160_in1k")
    network.pretrained_cfg.update(change)
    with pytest.raises(ValueError, match=r"crop_mode='.*expected \"squash\", or \"center\" and a square.*ImagePre"):
        TimmSource("timm:test_vit", None).preprocessing(network)


def test_an_interpolation_that_only_training_knows_is_timms_default():
    network = described("test_vit.r160_in1k")
    network.pretrained_cfg["interpolation"] = "random"
    assert TimmSource("timm:test_vit", None).preprocessing(network).interpolation == "bicubic"


# In estimators


@pytest.mark.parametrize("store_backbone", [True, False])
def test_a_classifier_is_fitted_saved_and_loaded(store_backbone: bool, pictures, tmp_path: Path):
    X, y = pictures
    weights = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    model = FineTunedClassifier(
        "timm:test_resnet", weights=str(weights), freeze_depth=6, max_epochs=1, batch_size=8,
        store_backbone=store_backbone, random_state=0,
    ).fit(X[:8], y[:8])  # fmt: skip
    expected = model.predict_proba(X[:4])
    sktransfer.save(model, tmp_path / "model.safetensors")
    pickled = pickle.dumps(model)
    forget_networks()
    if store_backbone:
        weights.unlink()
    for again in (sktransfer.load(tmp_path / "model.safetensors"), pickle.loads(pickled)):
        assert np.array_equal(again.predict_proba(X[:4]), expected)
        assert again.backbone_.name == "timm:test_resnet"


def test_features_are_the_pooled_vectors_of_timm(pictures):
    extractor = PretrainedFeatureExtractor("timm:test_convnext", weights=None, random_state=0)
    features = extractor.fit_transform(pictures[0][:4])
    backbone = extractor.backbone_
    assert features.shape == (4, backbone.network.num_features)
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone.network), is_training=False)
    batch = torch.stack([prepare(Image.fromarray(pixels)) for pixels in pictures[0][:4]])
    with torch.no_grad():
        expected = timm_alone("test_convnext", backbone.network)(batch)
    assert torch.allclose(torch.as_tensor(features), expected, atol=0.05 * expected.std())


def test_a_network_that_cannot_be_traced_says_so(monkeypatch: pytest.MonkeyPatch):
    branching = timm.models.resnet.ResNet.forward_features

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return branching(self, x if x.sum() > 0 else -x)

    monkeypatch.setattr(timm.models.resnet.ResNet, "forward_features", forward)
    forget_networks()
    with pytest.raises(UntraceableError, match=r"Got a ResNet whose forward cannot be traced .*expected operations"):
        load_backbone("timm:test_resnet", weights=None, seed=77)


# Downloads


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a download asks for."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"' + "1" * 40 + '"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content is not None:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


CODE = """
    import os, sys
    from pathlib import Path
    home, address = sys.argv[1:]
    os.environ.update(HF_ENDPOINT=address, HF_HOME=home, HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        os.environ.pop(name, None)
    import huggingface_hub
    from sktransfer.backbones import load_backbone
    from sktransfer.backbones._loaded_network import forget_networks
    from sktransfer.backbones.sources import _weights

    def load(case, name):
        forget_networks()
        try:
            backbone = load_backbone(f"timm:{name}")
            print(case, backbone.fingerprint, backbone.weights_name)
        except Exception as error:
            print(case, type(error).__name__, error)

    load("in the clear", "test_resnet")
    _weights.SCHEMES = ("https", "http")  # what follows comes from a hub in this machine
    load("nothing there", "test_convnext3")
    for name in ("test_resnet", "test_vit", "test_convnext2"):
        load(name, name)
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    for name in ("test_resnet", "test_vit"):
        load(f"{name} again", name)
    load("offline", "test_convnext3")
"""


@dataclasses.dataclass
class Said:
    """What was printed, by case, what the hub was asked for, and where things were."""

    lines: dict[str, str]
    asked: list[str]
    address: str
    home: Path


def place(name: str, file: str) -> str:
    return f"/timm/{name}.r160_in1k/resolve/main/{file}"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """The hub's address is read at import, so all cases run in one process of their own."""
    folder = tmp_path_factory.mktemp("hub")
    save_somehow(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")
    save_somehow(timm.create_model("test_vit").state_dict(), folder / "vit.bin")
    torch.save({"conv1.weight": torch.ones(2), "more": RunsCode(folder / "ran")}, folder / "hostile.bin")
    files = {
        place("test_resnet", "model.safetensors"): (folder / "model.safetensors").read_bytes(),
        place("test_vit", "pytorch_model.bin"): (folder / "vit.bin").read_bytes(),
        place("test_convnext2", "pytorch_model.bin"): (folder / "hostile.bin").read_bytes(),
    }
    handler = type("ThisHub", (Hub,), {"files": files, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    command = [sys.executable, "-c", textwrap.dedent(CODE), str(folder / "home"), address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    server.shutdown()
    thread.join()
    server.server_close()
    assert done.returncode == 0, done.stderr
    cases = ("in the clear", "nothing there", "test_resnet again", "test_vit again", "offline",
             "test_resnet", "test_vit", "test_convnext2")  # fmt: skip
    lines = {next(case for case in cases if line.startswith(case)): line for line in done.stdout.splitlines()}
    assert lines.keys() == set(cases)
    asked = [path for path in handler.asked if "/resolve/" in path]
    return Said({case: line.removeprefix(case + " ") for case, line in lines.items()}, asked, address, folder)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "file"), [("test_resnet", "model.safetensors"), ("test_vit", "vit.bin")])
def test_weights_are_downloaded_once_and_then_need_no_network(name: str, file: str, said: Said):
    expected = load_backbone(f"timm:{name}", weights=said.home / file).fingerprint
    assert said.lines[name] == said.lines[f"{name} again"] == f"{expected} r160_in1k"
    assert len([path for path in said.asked if name in path]) == 1


@pytest.mark.exhaustive
def test_a_download_that_wants_to_run_code_does_not(said: Said):
    assert said.lines["test_convnext2"].startswith("ValueError Refused to load ")
    assert place("test_convnext2", "pytorch_model.bin") in said.asked
    assert not (said.home / "ran").exists()


@pytest.mark.parametrize("case", ["nothing there", "offline"])
def test_without_a_network_the_error_says_what_to_do(case: str, said: Said):
    url = said.address + place("test_convnext3", "model.safetensors")
    assert said.lines[case].startswith(f"ConnectionError Could not download the weights {url} (")
    assert f"Download {url} on a machine that can, and give its path: weights=PATH." in said.lines[case]
    assert str(said.home / "home" / "hub" / "models--timm--test_convnext3.r160_in1k") in said.lines[case]


def test_weights_are_not_downloaded_in_the_clear(said: Said):
    url = said.address + place("test_resnet", "model.safetensors")
    assert said.lines["in the clear"].startswith(f"ValueError Refused to download {url}, which uses http;")


def test_weights_that_timm_keeps_elsewhere_come_through_torchs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    whole = timm.create_model("legacy_seresnet18")
    address = timm.models.get_pretrained_cfg("legacy_seresnet18").url
    place = tmp_path / "checkpoints" / Path(address).name
    place.parent.mkdir()
    torch.save(whole.state_dict(), place)
    backbone = load_backbone("timm:legacy_seresnet18")
    assert torch.equal(backbone.network.layer0.conv1.weight, whole.layer0.conv1.weight)
    place.unlink()
    forget_networks()

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(ConnectionError, match=r"no network here.*seresnet18-4bb0ce65\.pth.*weights=PATH"):
        load_backbone("timm:legacy_seresnet18")


def test_a_file_that_changes_is_another_backbone(tmp_path: Path):
    prints = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
        prints.append(load_backbone("timm:test_vit", weights=tmp_path / "w.pth").fingerprint)
    assert prints[0] != prints[1]
