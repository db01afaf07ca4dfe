"""Networks of transformers for pictures: what the library computes, at every cut, of pictures as it prepares them."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from networks import rest_exhaustive
from PIL import Image
from pretrained_models import PICTURE_FAMILIES, TWO_TOWERS, make_picture_model, make_text_model, make_two_towers
from safetensors.torch import load_file, save_file
from sklearn.model_selection import GridSearchCV
from transformers import AutoModel

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import UntraceableError, load_backbone
from sktransfer.inputs import ImagePreprocessing

FEW = ("vit", "convnext", "hgnet_v2")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return the folder of a family's tiny network, made when first asked for."""
    made = {}

    def folder(kind):
        if kind not in made:
            make = make_two_towers if kind in TWO_TOWERS else make_picture_model
            made[kind] = make(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture
def vit(folder_of, tmp_path):
    """A copy of a tiny ViT that a test may spoil."""
    shutil.copytree(folder_of("vit").removeprefix("hf:"), tmp_path / "vit")
    return tmp_path / "vit"


def library_output(folder, x, **settings):
    network = AutoModel.from_pretrained(folder.removeprefix("hf:"), dtype=torch.float32, **settings).eval()
    with torch.no_grad():
        return network(x, output_hidden_states=True)


def prepared_pictures(backbone, n=2):
    shape = backbone.preprocessing.example(None, n).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def all_cuts(backbone):
    names = dict.fromkeys([block.name for block in backbone.blocks])
    return [0, *range(1, len(backbone.blocks) + 1), *(n for n in backbone._traced.cut_names() if n not in names)]


@pytest.mark.parametrize("kind", rest_exhaustive(list(PICTURE_FAMILIES), *FEW))
def test_each_family_gives_the_bits_of_the_library_at_every_cut(kind, folder_of):
    backbone = load_backbone(folder_of(kind))
    assert len(backbone.blocks) >= 4
    x = prepared_pictures(backbone)
    more = {}
    if kind == "vit_mae":  # which else hides patches at random
        more = {"mask_ratio": 0.0}
    network = AutoModel.from_pretrained(folder_of(kind).removeprefix("hf:"), dtype=torch.float32, **more).eval()
    arguments = {"noise": torch.arange(16).expand(2, -1)} if kind == "vit_mae" else {}
    with torch.no_grad():
        output = network(x, **arguments)
        # Of the same network: where tensors lie in memory may change the last bit of another.
        mine = backbone.network(x, **arguments)
        hidden, theirs = (
            one.feature_maps[-1] if kind == "hgnet_v2" else one.last_hidden_state for one in (mine, output)
        )
        torch.testing.assert_close(hidden, theirs, rtol=1e-5, atol=1e-5)
        pooled = getattr(mine, "pooler_output", None)
        expected = hidden if pooled is None else pooled.flatten(1)
        whole = backbone.split("all")[0](x)
        if pooled is not None and whole.ndim == 3:  # its pooled vector is one of its tokens
            assert torch.equal(whole[:, 0], expected)
        else:
            assert torch.equal(whole, expected)
        for depth in all_cuts(backbone):
            prefix, suffix = backbone.split(depth)
            assert torch.equal(suffix(prefix(x)), whole), depth


@pytest.mark.parametrize("kind", ["vit", "dinov2", "ijepa", "vit_msn"])
def test_values_between_layers_are_the_hidden_states_of_the_library(kind, folder_of):
    backbone = load_backbone(folder_of(kind))
    x = prepared_pictures(backbone)
    states = library_output(folder_of(kind), x).hidden_states
    with torch.no_grad():
        for depth in range(1, 4):
            assert torch.equal(backbone.split(depth)[0](x), states[depth - 1])


# Features


def test_a_trained_pooler_makes_the_features_and_an_untrained_one_does_not(vit):
    backbone = load_backbone(f"hf:{vit}")
    x = prepared_pictures(backbone)
    expected = library_output(f"hf:{vit}", x)
    assert torch.equal(backbone.feature_part().network()(x), expected.pooler_output)
    assert "pooler_output" in str(backbone.summary())
    assert "pooler_output" in backbone.summary()._repr_html_()
    state = load_file(vit / "model.safetensors")
    lean = {name: tensor for name, tensor in state.items() if "pooler" not in name}
    save_file(lean, vit / "model.safetensors", {"format": "pt"})
    without = load_backbone(f"hf:{vit}")
    assert torch.equal(without.feature_part().network()(x), expected.last_hidden_state[:, 0])
    assert "class token" in str(without.summary())
    assert not any("pooler" in name for block in without.blocks for name in block.parameter_names)
    again = load_backbone(f"hf:{vit}")
    assert again.fingerprint == without.fingerprint


def test_a_pooler_that_lacks_a_part_is_refused(vit):
    state = load_file(vit / "model.safetensors")
    del state["pooler.dense.weight"]
    state["pooler.dense.bias"] += 1
    save_file(state, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors of the network \(pooler.dense.weight\)"):
        load_backbone(f"hf:{vit}")


@pytest.mark.parametrize("kind", ["dinov2_with_registers", "ijepa"])
def test_tokens_that_stand_for_no_patch_are_left_out_of_means(kind, folder_of):
    backbone = load_backbone(folder_of(kind))
    x = prepared_pictures(backbone)
    hidden = library_output(folder_of(kind), x).last_hidden_state
    first = 5 if kind == "dinov2_with_registers" else 0
    usual = hidden[:, 0] if first else hidden.mean(1)
    for pooling, expected in {
        "avg": usual,
        "mean": hidden[:, first:].mean(1),
        "max": hidden[:, first:].amax(1),
        "cls": hidden[:, 0],
        "last": hidden[:, -1],
        "flatten": hidden.flatten(1),
    }.items():
        found = backbone.feature_part(pooling=pooling).network()(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


MAPS_WITHOUT_POOLER = ("segformer", "swiftformer", "poolformer")


@pytest.mark.parametrize("kind", MAPS_WITHOUT_POOLER)
def test_maps_are_averaged_over_positions_whatever_layer_comes_last(kind, folder_of):
    """The last layer of Segformer is a LayerNorm, for channels in the last place: its maps have them first."""
    backbone = load_backbone(folder_of(kind))
    x = prepared_pictures(backbone)
    hidden = library_output(folder_of(kind), x).last_hidden_state
    assert hidden.ndim == 4
    found = backbone.feature_part().network()(x)
    torch.testing.assert_close(found, hidden.mean((2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stages", [None, ["stage4"], ["stage1", "stage4"], ["stage2", "stage3"]])
def test_of_a_network_that_returns_several_maps_the_last_one_is_averaged(stages, tmp_path):
    """Such networks are made to be a part of others: HGNetV2 has no hidden state of its own."""
    backbone = load_backbone(make_picture_model("hgnet_v2", tmp_path, **({"out_features": stages} if stages else {})))
    x = prepared_pictures(backbone)
    with torch.no_grad():
        maps = backbone.network(x).feature_maps
        assert len(maps) == len(stages or [1])
        found = backbone.feature_part().network()(x)
    torch.testing.assert_close(found, maps[-1].mean((2, 3)), rtol=1e-5, atol=1e-5)
    assert "the last feature map, averaged over positions" in str(backbone.summary())


def test_a_classifier_of_maps_gives_what_its_own_pooling_gives(tmp_path):
    make_picture_model("hgnet_v2", tmp_path)
    whole = transformers.HGNetV2ForImageClassification.from_pretrained(tmp_path).eval()
    whole.save_pretrained(tmp_path)
    backbone = load_backbone(f"hf:{tmp_path}")
    x = prepared_pictures(backbone)
    with torch.no_grad():
        found = backbone.feature_part().network()(x)
        torch.testing.assert_close(whole.fc(found), whole(x).logits, rtol=1e-5, atol=1e-5)


def test_a_network_for_rows_of_colours_is_refused_with_the_reason(tmp_path):
    config = transformers.ImageGPTConfig(n_layer=1, n_embd=8, n_head=1, vocab_size=9, n_positions=64)
    transformers.ImageGPTModel(config).save_pretrained(tmp_path)
    transformers.ImageGPTImageProcessor(clusters=np.zeros((8, 3)).tolist()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"of type 'imagegpt'.*rows of numbered colours.*pixel_values"):
        load_backbone(f"hf:{tmp_path}")


def test_weights_of_a_classifier_are_those_of_its_network(folder_of, tmp_path):
    """As most files on the hub are: names begin with the network's, and a head of other classes comes with them."""
    whole = transformers.ViTForImageClassification.from_pretrained(folder_of("vit").removeprefix("hf:"))
    whole.save_pretrained(tmp_path)
    shutil.copy(f"{folder_of('vit').removeprefix('hf:')}/preprocessor_config.json", tmp_path)
    x = prepared_pictures(load_backbone(folder_of("vit")))
    with torch.no_grad():
        expected = whole.vit(x).last_hidden_state
        assert torch.equal(load_backbone(f"hf:{tmp_path}").split("all")[0](x), expected)


def test_a_file_of_weights_stands_in_for_those_of_the_folder(folder_of, tmp_path):
    state = load_file(f"{folder_of('vit').removeprefix('hf:')}/model.safetensors")
    save_file({name: tensor + 1 for name, tensor in state.items() if "pooler" not in name}, tmp_path / "m.safetensors")
    backbone = load_backbone(folder_of("vit"), tmp_path / "m.safetensors")
    name = backbone.blocks[1].parameter_names[0]  # names in the file are those of earlier days
    assert torch.equal(
        backbone.network.state_dict()[name], load_backbone(folder_of("vit")).network.state_dict()[name] + 1
    )
    assert "class token" in str(backbone.summary())


# Pictures


def photos():
    """Smooth pictures with edges, of several sizes and shapes, whose values reach neither black nor white."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in ((97, 131), (300, 201), (64, 64), (411, 640)):
        coarse = rng.integers(30, 226, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
        made.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return made


PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "deit": lambda: transformers.DeiTImageProcessor(
        size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}
    ),
    "clip": lambda: transformers.CLIPImageProcessor(
        size={"shortest_edge": 41}, crop_size={"height": 32, "width": 32}
    ),
    "one offset": lambda: transformers.CLIPImageProcessor(
        size={"shortest_edge": 35}, crop_size={"height": 32, "width": 32}, resample=2
    ),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    "convnext, large": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "beit": lambda: transformers.BeitImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, rescale_factor=1 / 127.5, image_mean=[1.0, 1.0, 1.0],
        image_std=[1.0, 1.0, 1.0],
    ),
    "efficientnet": lambda: transformers.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, rescale_offset=True, rescale_factor=1 / 127.5,
        do_normalize=False, include_top=False,
    ),
    "poolformer": lambda: transformers.PoolFormerImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, crop_pct=0.9
    ),
    "levit": lambda: transformers.LevitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "lanczos": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, resample=1),
    "as they are": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
    "mobilevit": lambda: transformers.MobileViTImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", rest_exhaustive(list(PROCESSORS), "vit", "clip", "mobilevit"))
@pytest.mark.parametrize("backend", ["pil", "torchvision"])
def test_pictures_are_prepared_as_the_library_prepares_them(kind, backend, tmp_path):
    """To one of 255 levels of the library's processor for Pillow; torchvision's own filters add one more at most."""
    folder = make_picture_model("convnext", tmp_path, PROCESSORS[kind]())
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
    model = PretrainedFeatureExtractor(folder).fit(photos())
    samples = model._reader.read(photos())
    reverse = kind == "mobilevit"
    assert model.backbone_._traced.entry.reverse is reverse
    for row, photo in enumerate(photos()):
        found = samples.prepare(samples.load(row)[None])[0]
        found = found.flip(0) if reverse else found
        expected = torch.as_tensor(processor(images=photo, return_tensors="pt")["pixel_values"])[0]
        level = 1 / 255 / torch.tensor(model.backbone_.preprocessing.std).view(-1, 1, 1)
        difference = ((found - expected).abs() / level).max()
        assert difference <= (1.01 if backend == "pil" else 2.01), (row, difference)


def test_files_are_read_as_the_library_reads_them(tmp_path):
    """Also a JPEG much larger than what the network takes, which others decode at a part of its size."""
    folder = make_picture_model("vit", tmp_path)
    photos()[3].resize((1280, 822)).save(tmp_path / "photo.jpg", quality=95)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = processor(images=Image.open(tmp_path / "photo.jpg"), return_tensors="pt")["pixel_values"]
    model = PretrainedFeatureExtractor(folder).fit([str(tmp_path / "photo.jpg")])
    samples = model._reader.read([str(tmp_path / "photo.jpg")])
    found = samples.prepare(samples.load(0)[None])
    assert (found - torch.as_tensor(expected)).abs().max() <= 1.01 / 127.5


def test_a_network_that_takes_blue_first_is_given_blue_first(tmp_path):
    folder = make_picture_model("convnext", tmp_path, PROCESSORS["mobilevit"]())
    network = AutoModel.from_pretrained(tmp_path).eval()
    backbone = load_backbone(folder)
    x = prepared_pictures(backbone)
    with torch.no_grad():
        assert torch.equal(backbone.split("all")[0](x), network(x.flip(1)).pooler_output)


# Two towers


@pytest.mark.parametrize("kind", rest_exhaustive(list(TWO_TOWERS), "clip"))
def test_the_network_for_pictures_is_taken_out_of_two(kind, folder_of):
    backbone = load_backbone(folder_of(kind), tower="image")
    x = prepared_pictures(backbone)
    network = AutoModel.from_pretrained(folder_of(kind).removeprefix("hf:"), dtype=torch.float32).eval()
    with torch.no_grad():
        expected = network.vision_model(x).pooler_output
        for depth in all_cuts(backbone):
            prefix, suffix = backbone.split(depth)
            assert torch.equal(suffix(prefix(x)), expected), depth


def test_x_says_which_of_two_networks_is_meant(folder_of, pictures, paths, tmp_path):
    folder = folder_of("clip")
    of_pictures = PretrainedFeatureExtractor(folder, precision="float32").fit(pictures[0])
    assert of_pictures.backbone_.preprocessing.kind == "images"
    assert PretrainedFeatureExtractor(folder).fit(paths).backbone_.preprocessing.kind == "images"
    texts = ["a good film", "dull"]
    model = PretrainedFeatureExtractor(folder, precision="float32").fit(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.removeprefix("hf:"))
    network = AutoModel.from_pretrained(folder.removeprefix("hf:"), dtype=torch.float32).eval()
    with torch.no_grad():
        expected = [network.text_model(**tokenizer(text, return_tensors="pt")).pooler_output[0] for text in texts]
    np.testing.assert_allclose(model.transform(texts), torch.stack(expected), atol=1e-5)
    sktransfer.save(model, tmp_path / "clip.skt")
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "clip.skt").transform(texts), model.transform(texts))
    with pytest.raises(ValueError, match=r'tower=\'auto\'; expected tower="image" or tower="text"'):
        PretrainedFeatureExtractor(folder).fit(["a good film", "picture.png"])
    named = PretrainedFeatureExtractor(folder, tower="text").fit(["a good film", "picture.png"])
    assert named.backbone_.preprocessing.kind == "texts"


def test_weights_of_one_network_come_from_a_file_of_both(folder_of, tmp_path):
    place = folder_of("clip").removeprefix("hf:")
    state = {name: tensor + 1 for name, tensor in load_file(f"{place}/model.safetensors").items()}
    save_file(state, tmp_path / "both.safetensors")
    backbone = load_backbone(folder_of("clip"), tmp_path / "both.safetensors", tower="image")
    usual = load_backbone(folder_of("clip"), tower="image").network.state_dict()
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, usual[name] + 1)
    save_file(backbone.network.state_dict(), tmp_path / "one.safetensors")
    again = load_backbone(folder_of("clip"), tmp_path / "one.safetensors", tower="image")
    assert again.fingerprint == backbone.fingerprint


@pytest.mark.parametrize(("kind", "tower"), [("vit", "text"), ("bert", "image")])
def test_a_single_network_is_no_tower(kind, tower, folder_of, tmp_path):
    folder = make_text_model("bert", tmp_path) if kind == "bert" else folder_of(kind)
    with pytest.raises(ValueError, match=rf"Got tower='{tower}' for .* which is a single network; expected"):
        load_backbone(folder, tower=tower)


def test_towers_that_cannot_be_told_are_refused(folder_of):
    with pytest.raises(ValueError, match=r'CLIPModel.*expected tower="image" or tower="text"'):
        load_backbone(folder_of("clip"))


# In estimators


@pytest.fixture(params=rest_exhaustive(["vit", "swin", "convnext", "dinov2"], "vit"))
def folder(request, folder_of):
    return folder_of(request.param)


def test_frozen_blocks_stay_and_the_others_learn(folder, pictures):
    X, y = pictures
    settings = {"max_epochs": 1, "lr": 1e-2, "random_state": 0, "strategy": "fine_tune", "precision": "float32"}
    for freeze_depth in (2, 0):
        model = FineTunedClassifier(folder, freeze_depth=freeze_depth, **settings).fit(X, y)
        fresh = load_backbone(folder).network.state_dict()
        for name, tensor in model.backbone_.network.state_dict().items():
            assert torch.equal(tensor, fresh[name])
        tuned = dict(model.net_.module_.tail.named_parameters())
        moved = {name for name, tensor in tuned.items() if not torch.equal(tensor, fresh[name])}
        assert not set(tuned) & model.backbone_.frozen_names(freeze_depth)
        for block in model.backbone_.trained_blocks(freeze_depth):
            assert moved & set(block.parameter_names), block.name


def test_a_search_over_depths_passes_each_sample_once(folder, pictures):
    X, y = pictures
    settings = {"max_epochs": 1, "random_state": 0, "strategy": "fine_tune", "precision": "float32"}
    grid = {"freeze_depth": ["all", 2]}
    search = GridSearchCV(FineTunedClassifier(folder, **settings), grid, cv=2).fit(X, y)
    sktransfer.clear_cache()
    search.fit(X, y)
    computed = sktransfer.cache_info()
    search.fit(X, y)
    assert sktransfer.cache_info().misses == computed.misses
    assert search.best_estimator_.predict(X).shape == y.shape


def test_a_saved_model_needs_no_folder(folder, pictures, tmp_path):
    X, y = pictures
    place = tmp_path / "network"
    shutil.copytree(folder.removeprefix("hf:"), place)
    settings = {"max_epochs": 1, "random_state": 0, "precision": "float32", "freeze_depth": 2}
    model = FineTunedClassifier(f"hf:{place}", **settings).fit(X, y)
    lean = FineTunedClassifier(f"hf:{place}", store_backbone=False, **settings).fit(X, y)
    expected = model.predict_proba(X)
    sktransfer.save(model, tmp_path / "model.skt")
    sktransfer.save(lean, tmp_path / "lean.skt")
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "lean.skt").predict_proba(X), expected)
    shutil.rmtree(place)
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.skt").predict_proba(X), expected)


def test_onnx_files_give_what_the_network_gives(folder, pictures, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = PretrainedFeatureExtractor(folder, precision="float32").fit(pictures[0])
    model.to_onnx(tmp_path / "model.onnx")
    samples = model._reader.read(pictures[0])
    x = samples.prepare(torch.stack([samples.load(row) for row in range(5)]))
    found = runtime.InferenceSession(tmp_path / "model.onnx").run(None, {"prepared": x.numpy()})[0]
    np.testing.assert_allclose(found, model.transform(pictures[0])[:5], atol=1e-4)


def test_several_layers_are_joined_as_each_alone_gives_them(folder, pictures):
    X = pictures[0]
    names = [1, 3, None]
    settings = {"precision": "float32", "feature_cache": None}
    together = PretrainedFeatureExtractor(folder, layer=names, **settings).fit_transform(X)
    alone = [PretrainedFeatureExtractor(folder, layer=name, **settings).fit_transform(X) for name in names]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-6)


def test_random_parts_of_training_are_off_in_prediction(tmp_path, pictures):
    folder = make_picture_model("swin", tmp_path, drop_path_rate=0.5, hidden_dropout_prob=0.5)
    X, y = pictures
    model = FineTunedClassifier(folder, freeze_depth=1, max_epochs=1, random_state=0).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))


# What is refused


def test_a_network_for_pictures_without_a_processor_is_refused(vit):
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"without an image processor; expected preprocessor_config.json beside"):
        load_backbone(f"hf:{vit}")


def test_a_processor_may_stand_in_the_file_of_several(vit):
    settings = json.loads((vit / "preprocessor_config.json").read_text())
    (vit / "preprocessor_config.json").unlink()
    (vit / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert isinstance(load_backbone(f"hf:{vit}").preprocessing, ImagePreprocessing)


def test_a_processor_that_pads_or_keeps_any_shape_is_refused(tmp_path):
    processor = transformers.DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    folder = make_picture_model("convnext", tmp_path, processor)
    with pytest.raises(ValueError, match=r"makes values of shape .* expected one shape"):
        load_backbone(folder)


def test_a_processor_that_keeps_the_shape_of_long_pictures_alone_is_refused(tmp_path):
    """Multiples of 32 pixels are the same square for all pictures that are not much longer than high."""
    processor = transformers.DPTImageProcessor(
        size={"height": 32, "width": 32}, keep_aspect_ratio=True, ensure_multiple_of=32
    )
    with pytest.raises(ValueError, match=r"makes values of shape \(3, 32, 32\) and .* expected one shape"):
        load_backbone(make_picture_model("vit", tmp_path, processor))


def test_settings_of_a_processor_that_name_code_are_dropped(vit, tmp_path):
    settings = json.loads((vit / "preprocessor_config.json").read_text())
    settings |= {"auto_map": {"AutoImageProcessor": "processing.Mine"}, "image_processor_type": "Mine"}
    (vit / "preprocessor_config.json").write_text(json.dumps(settings))
    (vit / "processing.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load_backbone(f"hf:{vit}")
    assert not (tmp_path / "ran").exists()


def test_a_processor_for_pictures_that_fill_the_memory_is_refused(vit):
    settings = json.loads((vit / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 10**6, "width": 10**6}
    (vit / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"says size: .* expected sides of 1 to 4096 pixels"):
        load_backbone(f"hf:{vit}")


def save_config(folder, kind, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **settings}))
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", ["detr", "rt_detr", "yolos", "mask2former"])
def test_networks_that_find_objects_are_refused(kind, tmp_path):
    with pytest.raises(ValueError, match=r"finds objects or regions; expected a network that describes whole pictures"):
        load_backbone(save_config(tmp_path, kind))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("timm_wrapper", {}), ("dpt", {"use_pretrained_backbone": True}), ("timm_backbone", {"backbone": "resnet18"})],
)
def test_networks_that_take_a_part_from_elsewhere_are_refused(kind, settings, tmp_path):
    with pytest.raises(ValueError, match="takes a part of its network from timm or another model; expected"):
        load_backbone(save_config(tmp_path, kind, **settings))


def test_networks_for_videos_are_refused(tmp_path):
    folder = save_config(tmp_path, "videomae", **PICTURE_FAMILIES["vit"])
    transformers.VideoMAEImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"of shape \(1, 3, 32, 32\) of single pictures; expected one shape"):
        load_backbone(folder)


def test_models_for_pictures_and_texts_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'llava' for pictures together with other samples; expected"):
        load_backbone(save_config(tmp_path, "llava"))


def test_networks_that_want_more_than_a_picture_are_refused(tmp_path):
    folder = save_config(tmp_path, "siglip2_vision_model", **PICTURE_FAMILIES["vit"])
    with pytest.raises(UntraceableError, match="cannot be run on an image alone"):
        load_backbone(folder, None)
