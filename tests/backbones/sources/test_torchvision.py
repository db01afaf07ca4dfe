"""torchvision's networks: whatever the family, parts compute bit for bit what the whole computes."""

import contextlib
import gc
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from networks import rest_exhaustive
from torch import nn
from torchvision import models
from torchvision.models import get_model, get_model_weights, get_weight

from sktransfer.backbones import ImagePreprocessing, list_backbones, load_backbone, restore_backbone
from sktransfer.backbones._loaded_network import forget_networks

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Images this small are quicker on one thread, by far where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def image_size(name: str) -> int:
    """Pixels a side: as few as the network takes, to be quick."""
    if name.startswith(("vit_", "maxvit_")):
        return 224  # built for this size alone
    return 80 if name == "inception_v3" else 64


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Weights that are overwritten anyway need not be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("trunc_normal_", "normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"):
            patch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield


def torchvision_alone(name: str, like: nn.Module) -> nn.Module:
    """The network as torchvision builds it, with the weights of another, and nothing of sktransfer's."""
    with uninitialised(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = get_model(name, weights=None)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
            network.aux_logits = False
    network.load_state_dict(like.state_dict())
    return network.eval()


def wake(network: nn.Module) -> None:
    """Move constant weights off their start, such as zeros and 1e-6, where a lost layer would go unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            weight = tensor.is_floating_point() and "relative_coords" not in name  # Swin looks coordinates up
            if weight and (tensor.ndim < 2 or tensor.std() < 1e-3):
                noise = torch.empty_like(tensor).uniform_(0, 0.2, generator=generator)
                tensor.add_(noise if name.endswith("running_var") else noise - 0.1)


def entering_last_layer(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters torchvision's classification layer, and what the network returns."""
    last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    result = network(x)
    hook.remove()
    return seen[0], result


def check_cuts(name: str, every_depth: int = 1, every_name: int = 1) -> None:
    backbone = load_backbone(name, weights=None)
    wake(backbone.network)
    alone = torchvision_alone(name, backbone.network)
    side = image_size(name)
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, expected = entering_last_layer(alone, x)
        assert expected.isfinite().all()
        assert not torch.equal(expected[0], expected[1]), "the pictures must not look the same to the network"
        assert torch.equal(backbone.network(x), expected)
        assert torch.equal(backbone.split("all")[0](x), features)
        assert backbone.feature_part().network()(x).shape == (2, features.shape[1])
        names = [name for name in backbone._traced.cut_names() if name not in {b.name for b in backbone.blocks}]
        for cut in [*range(0, len(backbone.blocks) + 1, every_depth), *names[::every_name]]:
            prefix, suffix = backbone.split(cut)
            assert torch.equal(suffix(prefix(x)), expected), f"{name} cut at {cut!r}"


@pytest.mark.parametrize("name", rest_exhaustive(FAMILIES, "resnet18"))
def test_prefix_and_suffix_compute_bit_for_bit_what_torchvision_computes(name: str):
    # MaxViT runs only at full size and in many blocks, so some of its depths wait for the test of all networks.
    check_cuts(name, every_depth=5 if name == "maxvit_t" else 1, every_name=16)


@pytest.mark.all_backbones
@pytest.mark.parametrize("name", list_backbones())
def test_every_backbone_can_be_cut_at_every_place(name: str):
    check_cuts(name)
    gc.collect()


def check_storing(name: str) -> None:
    """A backbone comes back from a pickle, and from a record, as it was."""
    with uninitialised():
        backbone = load_backbone(name, weights=None)
        record, tensors = backbone.to_record()
        for again in (pickle.loads(pickle.dumps(backbone)), restore_backbone(record, tensors)):
            forget_networks()
            assert again.fingerprint == backbone.fingerprint
            assert again.blocks == backbone.blocks
            assert again.preprocessing == backbone.preprocessing
            assert again.split(0.5)[1].state_dict().keys() == backbone.split(0.5)[1].state_dict().keys()


@pytest.mark.parametrize("name", rest_exhaustive(FAMILIES, "resnet18", "googlenet", "vit_b_32"))
def test_a_backbone_comes_back_as_it_was(name: str):
    check_storing(name)


@pytest.mark.all_backbones
@pytest.mark.parametrize("name", list_backbones())
def test_every_backbone_comes_back_as_it_was(name: str):
    check_storing(name)
    forget_networks()
    gc.collect()


@pytest.mark.parametrize("name", rest_exhaustive(FAMILIES, "resnet18", "googlenet", "vit_b_32"))
def test_every_weight_in_front_of_the_classification_layer_is_in_exactly_one_block(name: str):
    with uninitialised():
        backbone = load_backbone(name, weights=None)
    last = next(n for n, m in reversed(list(backbone.network.named_modules())) if isinstance(m, nn.Linear | nn.Conv2d))
    in_blocks = [n for block in backbone.blocks for n in (*block.parameter_names, *block.buffer_names)]
    in_front = {n for n in backbone.network.state_dict() if n.rpartition(".")[0] != last}
    assert len(in_blocks) == len(set(in_blocks))
    # Where MaxViT looks its position biases up is a constant of its graph.
    assert {n for n in in_front ^ set(in_blocks) if not n.endswith("relative_position_index")} == set()
    assert all(block.parameter_names for block in backbone.blocks)
    assert len({block.name for block in backbone.blocks}) == len(backbone.blocks)


def test_no_family_of_torchvision_goes_untested():
    tested = {models.get_model_builder(name).__module__ for name in FAMILIES}
    assert tested == {models.get_model_builder(name).__module__ for name in list_backbones()}


def test_the_names_are_all_of_torchvisions_classification_networks():
    assert len(list_backbones()) >= 80
    assert list_backbones() == sorted(list_backbones())
    assert set(FAMILIES) <= set(list_backbones())


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"Got backbone='resnet_18'; expected .*'resnet18'"):
        load_backbone("resnet_18")


def test_an_unknown_weight_name_is_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"Got weights='IMAGENET1K_V3' .*'IMAGENET1K_V[12]'"):
        load_backbone("resnet50", weights="IMAGENET1K_V3")


@pytest.mark.parametrize("weights", [3, get_weight("ResNet18_Weights.DEFAULT"), {}])
def test_weights_of_another_kind_are_refused(weights):
    with pytest.raises(ValueError, match=r"Got weights=.*expected .*a path, or None"):
        load_backbone("resnet18", weights=weights)


def test_random_weights_are_those_of_their_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (load_backbone("squeezenet1_1", weights=None, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    torch.manual_seed(0)
    assert torchvision_state_equal(first.network, get_model("squeezenet1_1", weights=None))
    assert first.weights_name == "random, seed 0"


def torchvision_state_equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# Preprocessing travels with the weights


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_a_file_under_torchvisions_own_name_brings_its_own_preprocessing(name: str, tmp_path: Path):
    state = load_backbone(name, weights=None).network.state_dict()
    known = get_model_weights(name)
    resize = {}
    for version in ("IMAGENET1K_V1", "IMAGENET1K_V2"):
        file = tmp_path / Path(known[version].url).name
        torch.save(state, file)
        backbone = load_backbone(name, weights=file)
        assert backbone.preprocessing == ImagePreprocessing.from_torchvision(known[version].transforms())
        resize[version] = backbone.preprocessing.resize
    assert resize == {"IMAGENET1K_V1": 256, "IMAGENET1K_V2": 232}


def test_a_file_of_any_other_name_brings_the_preprocessing_of_the_first_weights(tmp_path: Path):
    torch.save(load_backbone("mobilenet_v2", weights=None).network.state_dict(), tmp_path / "mine.pth")
    for weights in (tmp_path / "mine.pth", None):
        preprocessing = load_backbone("mobilenet_v2", weights=weights).preprocessing
        assert (preprocessing.resize, preprocessing.crop, preprocessing.channels) == (256, (224, 224), 3)
        assert preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.exhaustive
def test_a_vision_transformer_is_built_for_the_image_size_of_its_weights(tmp_path: Path):
    member = get_model_weights("vit_b_16")["IMAGENET1K_SWAG_E2E_V1"]
    with uninitialised():
        state = get_model("vit_b_16", weights=None, image_size=384).state_dict()
    file = tmp_path / Path(member.url).name
    torch.save({name: torch.zeros_like(tensor) for name, tensor in state.items()}, file)
    with uninitialised():
        backbone = load_backbone("vit_b_16", weights=file)
        again = pickle.loads(pickle.dumps(backbone))
    assert backbone.preprocessing.crop == (384, 384)
    assert backbone.network.image_size == 384
    assert again.fingerprint == backbone.fingerprint


@pytest.mark.parametrize("name", ["vit_h_14", "regnet_y_128gf"])
def test_random_networks_take_images_of_the_size_they_ask_for(name: str):
    from sktransfer.backbones.sources._torchvision import TorchvisionSource

    source = TorchvisionSource(name, None)
    crop = source.preprocessing(nn.Identity()).crop
    recipe = source._recipe()
    assert crop is not None
    assert recipe.meta["min_size"] in ((1, 1), crop)


# GoogLeNet and Inception: what a weights file does not say


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_may_lack_in_a_file_or_be_there_and_are_left_out(name: str, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        whole = get_model(name, weights=None)
    wake(whole)
    lean = {key: value for key, value in whole.state_dict().items() if not key.lower().startswith("aux")}
    assert len(lean) < len(whole.state_dict())
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    torch.save(lean, tmp_path / "lean.pth")
    one, other = (load_backbone(name, weights=tmp_path / file) for file in ("whole.pth", "lean.pth"))
    assert one.fingerprint == other.fingerprint
    assert set(one.network.state_dict()) == set(lean)
    whole.transform_input = True  # as torchvision does wherever there are weights
    x = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        assert torch.equal(one.network(x), whole.eval()(x))
        whole.transform_input = False
        assert not torch.equal(one.network(x), whole(x))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_pickle_computes_the_same_where_pretrained_networks_are_built_otherwise(name: str, tmp_path: Path):
    random = load_backbone(name, weights=None)
    wake(random.network)
    torch.save(random.network.state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone(name, weights=tmp_path / "weights.pth")
    x = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        assert not torch.equal(backbone.network(x), random.network(x))
        for original in (backbone, random):
            again = pickle.loads(pickle.dumps(original))
            assert torch.equal(again.network(x), original.network(x))
            assert again.fingerprint == original.fingerprint


# torchvision's own weights, through its own enumeration, from its own folder


def put_in_torchs_folder(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """As if the default weights of a network had been downloaded."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = get_model(name, weights=None)
    wake(network)
    place = folder / "checkpoints" / Path(get_model_weights(name).DEFAULT.url).name
    place.parent.mkdir(parents=True)
    torch.save(network.state_dict(), place)
    return network.state_dict()


@pytest.mark.parametrize(
    "name", rest_exhaustive(["mobilenet_v3_small", "googlenet", "inception_v3"], "mobilenet_v3_small")
)
def test_default_weights_give_the_network_that_torchvision_gives(name: str, tmp_path: Path, monkeypatch):
    put_in_torchs_folder(name, tmp_path, monkeypatch)
    backbone = load_backbone(name)
    alone = get_model(name, weights="DEFAULT").eval()
    x = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        assert torch.equal(backbone.network(x), alone(x))
        again = pickle.loads(pickle.dumps(backbone))
        assert torch.equal(again.network(x), alone(x))
    assert again.fingerprint == backbone.fingerprint
    assert backbone.weights_name == get_model_weights(name).DEFAULT.name
    assert backbone.preprocessing == ImagePreprocessing.from_torchvision(get_model_weights(name).DEFAULT.transforms())


def test_default_weights_and_the_same_file_by_path_are_the_same_backbone(tmp_path: Path, monkeypatch):
    put_in_torchs_folder("googlenet", tmp_path, monkeypatch)
    file = tmp_path / "checkpoints" / Path(get_model_weights("googlenet").DEFAULT.url).name
    by_name, by_path = load_backbone("googlenet"), load_backbone("googlenet", weights=file)
    assert by_name.fingerprint == by_path.fingerprint
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(by_name.network(x), by_path.network(x))


# Real weights


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_v2", "mobilenet_v2-int8-dequantized.pth"),
        ("squeezenet1_1", "squeezenet1_1-float16-rounded.pth"),
    ],
)
def test_real_weights_compute_what_torchvision_computes_with_them(name: str, file: str, assets: Path, tmp_path: Path):
    path = shutil.copy(assets / "weights" / file, tmp_path)
    backbone = load_backbone(name, weights=path)
    alone = get_model(name, weights=None)
    alone.load_state_dict(torch.load(path, weights_only=True))
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        features, expected = entering_last_layer(alone.eval(), x)
        prefix, suffix = backbone.split("all")
        assert torch.equal(prefix(x), features)
        assert torch.equal(suffix(prefix(x)), expected)
