"""Where weights come from: what libraries and model cards say, and nothing that they do not."""

import pytest
import torch
from networks import tiny_cnn
from pretrained_models import make_text_model

from sktransfer.backbones import load_backbone
from sktransfer.backbones.sources._origin import data_of_tag, read_card
from sktransfer.backbones.sources._torchvision import TorchvisionSource


def test_the_summary_says_it_in_one_line_and_the_repr_stays_short():
    backbone = load_backbone("squeezenet1_1", weights=None)
    summary = backbone.summary()
    assert summary.origin.data == "none"
    assert summary.origin.licence is None
    assert str(summary).splitlines()[-1] == "weights: random, seed 0; data: none; licence: not stated"
    assert "licence: not stated" in summary._repr_html_()
    assert len(repr(backbone)) < 100


def test_torchvisions_weights_name_their_data_and_address():
    origin = TorchvisionSource("resnet18", "DEFAULT").origin
    assert origin.source == "torchvision IMAGENET1K_V1, https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert origin.data == "ImageNet-1K"
    assert origin.licence is None
    swag = TorchvisionSource("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").origin
    assert "SWAG" in swag.data
    assert swag.licence.startswith("https://")


def test_of_a_file_nothing_is_said_but_its_name():
    origin = TorchvisionSource("resnet18", "weights.pth").origin
    assert "weights.pth" in origin.source
    assert (origin.data, origin.licence) == (None, None)


def test_timms_weights_name_tag_licence_and_hub():
    pytest.importorskip("timm")
    from sktransfer.backbones.sources._timm import TimmSource

    origin = TimmSource("timm:convnext_tiny.fb_in22k_ft_in1k", "DEFAULT").origin
    assert "fb_in22k_ft_in1k" in origin.source
    assert "https://" in origin.source
    assert origin.data == "ImageNet-22K, then ImageNet-1K"
    assert origin.licence == "apache-2.0"


def test_of_a_file_for_a_network_of_timm_or_ones_own_nothing_is_said_but_its_name(tmp_path):
    torch.save(tiny_cnn().state_dict(), tmp_path / "mine.pth")
    for origin in (
        load_backbone(tiny_cnn, weights=tmp_path / "mine.pth").summary().origin,
        _timm_source("timm:convnext_tiny", str(tmp_path / "mine.pth")).origin,
    ):
        assert origin.source.startswith("the file ")
        assert "mine.pth" in origin.source
        assert (origin.data, origin.licence) == (None, None)
    assert load_backbone(tiny_cnn).summary().origin.source == "the network that was given"


def _timm_source(name, weights):
    pytest.importorskip("timm")
    from sktransfer.backbones.sources._timm import TimmSource

    return TimmSource(name, weights)


def test_a_folder_of_the_hubs_form_says_what_its_card_says(tmp_path):
    pytest.importorskip("transformers")
    name = make_text_model("bert", tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\ndatasets:\n- s2orc\n---\n")
    origin = load_backbone(name).summary().origin
    assert origin.source.startswith("the folder ")
    assert (origin.data, origin.licence) == ("s2orc", "mit")
    assert load_backbone(name, weights=None).summary().origin.source == "random, seed 0"


def test_unknown_parts_of_a_tag_say_nothing():
    assert data_of_tag("openai") is None
    assert data_of_tag("fb_dist_in1k") == "ImageNet-1K"
    assert data_of_tag("laion2b_ft_in12k_in1k") == "LAION-2B, then ImageNet-12K and ImageNet-1K"


def test_a_model_card_that_is_there_is_read(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlanguage: en\nlicense: 'mit'\ndatasets:\n- s2orc\n- ms_marco\n---\nlicense: other\n")
    assert (read_card(card).data, read_card(card).licence) == ("s2orc, ms_marco", "mit")
    card.write_text("---\nlicense: other\nlicense_name: mine\n---\n")
    assert read_card(card).licence == "mine"
    for text in ("no rules\nlicense: mit\n", "", "---\nlicense:\n- \n---"):
        card.write_text(text)
        assert read_card(card).licence is None
    card.write_bytes(b"---\nlicense: \xff\xfe\n")
    read_card(card)
    assert read_card(tmp_path / "none").data is None
    assert read_card(None).data is None
