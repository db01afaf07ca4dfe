"""Names as people write them elsewhere are answered with what to write here, without a network and without extras."""

import socket
import sys
from pathlib import Path

import pytest
from torchvision import models

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import list_backbones, load_backbone
from sktransfer.backbones.sources._other_names import refuse_other_names

MEANT = {
    # the hub's
    "bert-base-uncased": "hf:bert-base-uncased",
    "distilroberta-base": "hf:distilroberta-base",
    "gpt2": "hf:gpt2",
    "t5-small": "hf:t5-small",
    "openai/whisper-tiny": "hf:openai/whisper-tiny",
    "google/vit-base-patch16-224": "hf:google/vit-base-patch16-224",
    "microsoft/resnet-50": "hf:microsoft/resnet-50",
    "someone/a.model_of-2031": "hf:someone/a.model_of-2031",
    "sentence-transformers/all-MiniLM-L6-v2": "hf:sentence-transformers/all-MiniLM-L6-v2",
    "all-MiniLM-L6-v2": "hf:sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers: multi-qa-x": "hf:sentence-transformers/multi-qa-x",
    "bert-base-uncased@main": "hf:bert-base-uncased@main",
    "someone/model@refs/pr/3": "hf:someone/model@refs/pr/3",
    "HF:someone/model": "hf:someone/model",
    "hf: someone/model": "hf:someone/model",
    " hf:someone/model\n": "hf:someone/model",
    "hf:hf:someone/model": "hf:someone/model",
    "hf-hub:someone/model": "hf:someone/model",
    "hf_hub:someone/model": "hf:someone/model",
    "huggingface:someone/model": "hf:someone/model",
    "wav2vec2-large": "hf:OWNER/wav2vec2-large",
    "deberta-v3-small": "hf:OWNER/deberta-v3-small",
    "https://huggingface.co/someone/model": "hf:someone/model",
    "https://huggingface.co/someone/model/tree/v1.0": "hf:someone/model@v1.0",
    "https://hf.co/someone/model/blob/main/config.json?download=true": "hf:someone/model",
    "huggingface.co/bert-base-uncased": "hf:bert-base-uncased",
    "hf:https://huggingface.co/someone/model": "hf:someone/model",
    # timm's
    "convnext_tiny.fb_in22k": "timm:convnext_tiny.fb_in22k",
    "vit_base_patch16_224": "timm:vit_base_patch16_224",
    "TIMM:convnext_tiny": "timm:convnext_tiny",
    "timm/resnet50.a1_in1k": "timm:resnet50.a1_in1k",
    "timm:timm/resnet50.a1_in1k": "timm:resnet50.a1_in1k",
    "hf-hub:timm/resnet50.a1_in1k": "timm:resnet50.a1_in1k",
    "https://huggingface.co/timm/resnet50.a1_in1k": "timm:resnet50.a1_in1k",
    # torchvision's
    "ResNet50": "resnet50",
    "resnet-50": "resnet50",
    "ResNet-18": "resnet18",
    "resnet18 ": "resnet18",
    "RESNET_101": "resnet101",
    "EfficientNetB0": "efficientnet_b0",
    "efficientnet-b0": "efficientnet_b0",
    "VGG16": "vgg16",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3Large": "mobilenet_v3_large",
    "ConvNeXtTiny": "convnext_tiny",
    "ViT-B/16": "vit_b_16",
    "torchvision/resnet50": "resnet50",
    "torchvision:resnet50": "resnet50",
    "torchvision.models.resnet50": "resnet50",
    "models.resnet50": "resnet50",
    "squeezenet1.1": "squeezenet1_1",
    "SqueezeNet-1.0": "squeezenet1_0",
    "tf.keras.applications.InceptionV3": "inception_v3",
    "resnet50@v1": "resnet50",
    # spellings of one name
    "GPT-2": "hf:gpt2",
    "GPT2": "hf:gpt2",
    "GPT-2-medium": "hf:gpt2-medium",
    "RoBERTa-base": "hf:roberta-base",
    "bert_base_uncased": "hf:bert-base-uncased",
    "t5_small": "hf:t5-small",
    "all_MiniLM_L6_v2": "hf:sentence-transformers/all-MiniLM-L6-v2",
    "sentence_transformers/all-MiniLM-L6-v2": "hf:sentence-transformers/all-MiniLM-L6-v2",
    "llama3": "hf:OWNER/llama3",
    "Llama-3.2-1B": "hf:OWNER/Llama-3.2-1B",
    "resnet50-v1.5": "resnet50",
    "resnet50_v1": "resnet50",
    # families and classes
    "BERT": "hf:bert-base-uncased",
    "BertModel": "hf:bert-base-uncased",
    "TFBertForSequenceClassification": "hf:bert-base-uncased",
    "transformers.ViTModel": "hf:google/vit-base-patch16-224",
    "CLIP": "hf:openai/clip-vit-base-patch32",
    "I-JEPA": "hf:facebook/ijepa_vith14_1k",
    # Keras's
    "tf.keras.applications.ResNet50V2": "timm:resnetv2_50",
    "ResNet101V2": "timm:resnetv2_101",
    "NASNetLarge": "timm:nasnetalarge",
    "Xception": "timm:xception",
    "EfficientNetV2B0": "timm:tf_efficientnetv2_b0",
    "MobileNet": "timm:mobilenetv1_100",
    "keras.applications.efficientnet_v2.EfficientNetV2S": "efficientnet_v2_s",
    # CLIP's and DINO's
    "ViT-L-14": "timm:vit_large_patch14_clip_224.openai",
    "ViT-L/14@336px": "timm:vit_large_patch14_clip_336.openai",
    "clip:ViT-B/32": "timm:vit_base_patch32_clip_224.openai",
    "open_clip:ViT-B-32": "timm:vit_base_patch32_clip_224.openai",
    "open_clip:ViT-B-32/laion2b_s34b_b79k": "timm:vit_base_patch32_clip_224.laion2b",
    "clip:RN50": "timm:resnet50_clip.openai",
    "ViT-S/16": "timm:vit_small_patch16_224",
    "dinov2_vits14": "hf:facebook/dinov2-small",
    "dinov2_vitb14_reg": "hf:facebook/dinov2-with-registers-base",
    "facebookresearch/dinov2:dinov2_vitl14": "hf:facebook/dinov2-large",
    "dino_vits16": "hf:facebook/dino-vits16",
    # code
    "torchvision.models.resnet50()": "resnet50",
    "timm.create_model('resnet50')": "resnet50",
    "timm.create_model('convnext_tiny.fb_in22k', pretrained=True)": "timm:convnext_tiny.fb_in22k",
    "timm.resnet50": "resnet50",
    "fastai.vision.all.resnet34": "resnet34",
    "vision.models.resnet34": "resnet34",
    # behind names of libraries
    "tensorflow:resnet50": "resnet50",
    "ollama:llama3": "hf:OWNER/llama3",
    "efficientnet_pytorch:efficientnet-b0": "efficientnet_b0",
    # the hub's folders and revisions
    "models--openai--whisper-tiny": "hf:openai/whisper-tiny",
    "models--bert-base-uncased": "hf:bert-base-uncased",
    "/nowhere/hub/models--openai--whisper-tiny/snapshots/0123": "hf:openai/whisper-tiny",
    "openai/whisper-tiny:main": "hf:openai/whisper-tiny@main",
    "hf:openai/whisper-tiny:main": "hf:openai/whisper-tiny@main",
    "hf://openai/whisper-tiny": "hf:openai/whisper-tiny",
}


def refusal(name):
    with pytest.raises(ValueError, match=r"^Got backbone=") as caught:
        load_backbone(name)
    said = str(caught.value)
    assert len(said) < 400
    assert "expected" in said
    return said


@pytest.fixture
def without_cable(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked a network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", MEANT, ids=ascii)
def test_a_name_of_elsewhere_is_answered_with_what_to_write(name, without_cable):
    assert f'Write backbone="{MEANT[name]}"' in refusal(name)


@pytest.mark.parametrize("name", MEANT, ids=ascii)
def test_it_is_answered_where_neither_timm_nor_transformers_is_installed(name, without_cable, monkeypatch):
    for package in ("timm", "timm.models", "transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    assert f'Write backbone="{MEANT[name]}"' in refusal(name)


def test_a_name_that_timm_alone_knows_is_found_in_timm():
    pytest.importorskip("timm", reason="knows its names")
    assert 'Write backbone="timm:convnextv2_nano"' in refusal("ConvNeXtV2-Nano")
    assert 'Write backbone="timm:xception"' in refusal("xception")


def test_a_name_that_transformers_alone_knows_is_one_of_the_hub():
    transformers = pytest.importorskip("transformers", reason="knows types of models")
    assert "nystromformer" in transformers.CONFIG_MAPPING
    assert 'Write backbone="hf:OWNER/nystromformer-512"' in refusal("nystromformer-512")


@pytest.mark.parametrize("estimator", [PretrainedFeatureExtractor, FineTunedClassifier])
def test_estimators_say_it_before_they_look_at_samples(estimator):
    with pytest.raises(ValueError, match=r'Write backbone="hf:bert-base-uncased"'):
        estimator("bert-base-uncased").fit(["a good film", "a bad one"], ["good", "bad"])


def test_names_that_are_ours_pass():
    for name in (*list_backbones(), "hf:a/b", "hf:a/b@v1", "hf:/some/folder", "hf:", "timm:resnet50.a1_in1k", "timm:"):
        refuse_other_names(name)


@pytest.mark.parametrize("name", ["nonsense", "", "a/b/c", "a\0b", "resnet51", "resnet-51"])
def test_names_that_mean_nothing_are_answered_with_those_that_are_near(name):
    refuse_other_names(name)
    said = refusal(name)
    assert "list_backbones()" in said
    assert ("Did you mean 'resnet50'" in said) == ("51" in name)


# Folders, files and addresses


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_of_a_model_wants_its_prefix(kind, tmp_path):
    folder = tmp_path / 'a "folder"'
    folder.mkdir()
    assert "a folder without config.json" in refusal(kind(folder))
    (folder / "config.json").write_text("{}")
    written = str(folder).replace('"', '\\"')
    assert f'Write backbone="hf:{written}"' in refusal(kind(folder))


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors", "mine.ckpt"])
def test_a_file_of_weights_goes_with_the_name_of_its_network(kind, name, tmp_path):
    (tmp_path / name).write_bytes(b"1")
    for path in (tmp_path / name, Path("nowhere") / name):
        assert f'backbone=NAME, weights="{path}"' in refusal(kind(path))


@pytest.mark.parametrize("name", ["network.onnx", "network.h5"])
def test_a_file_of_a_network_is_to_be_built_first(name):
    assert "build it and give the torch.nn.Module" in refusal(name)


@pytest.mark.parametrize("name", [Path("nowhere"), "/nowhere/at/all", "./nowhere", "~/no such folder"])
def test_a_path_to_nothing_is_told(name):
    assert "a path that does not exist" in refusal(name)


def test_an_address_of_a_file_is_to_be_downloaded():
    said = refusal("https://download.pytorch.org/models/resnet50-0676ba61.pth")
    assert "Download the file, and give both: backbone=NAME, weights=PATH" in said


@pytest.mark.parametrize("name", ["https://example.org/model", "https://huggingface.co/datasets/a/b", "s3://bucket/x"])
def test_another_address_is_told_what_names_look_like(name):
    assert 'expected the name of a network, such as "resnet50"' in refusal(name)


def test_a_name_of_torch_hub_is_to_be_loaded_first():
    assert "torch.hub.load" in refusal("pytorch/vision:v0.10.0")


def test_weights_of_torchvision_are_told_from_the_name_of_their_network():
    weights = models.ResNet50_Weights
    for given in (weights.IMAGENET1K_V2, "ResNet50_Weights.IMAGENET1K_V2", "models.ResNet50_Weights.IMAGENET1K_V2"):
        assert 'Write backbone="resnet50", weights="IMAGENET1K_V2".' in refusal(given)
    for given in (weights, "ResNet50_Weights", "torchvision.models.ResNet50_Weights.DEFAULT"):
        assert 'Write backbone="resnet50", weights="DEFAULT".' in refusal(given)
    assert 'Write backbone="vit_b_16", weights="IMAGENET1K_V1".' in refusal("ViT_B_16_Weights.IMAGENET1K_V1")


def test_the_hubs_own_folder_of_a_model_is_answered_with_its_name(tmp_path):
    kept = tmp_path / "models--openai--whisper-tiny"
    (kept / "snapshots" / "0123").mkdir(parents=True)
    for given in (kept, str(kept), kept / "snapshots" / "0123"):
        assert 'Write backbone="hf:openai/whisper-tiny".' in refusal(given)
    (kept / "snapshots" / "0123" / "config.json").write_text("{}")
    assert f'Write backbone="hf:{kept}/snapshots/0123"' in refusal(kept / "snapshots" / "0123")


def test_names_of_timm_that_others_are_answered_with_are_timms():
    timm = pytest.importorskip("timm", reason="knows its names")
    for right in {right.removeprefix("timm:") for right in MEANT.values() if right.startswith("timm:")}:
        assert timm.is_model(right.partition(".")[0])
        assert "." not in right or right in timm.list_pretrained(right)


def test_a_path_object_that_is_a_name_is_answered_with_the_string():
    assert 'Write backbone="resnet18".' in refusal(Path("resnet18"))
