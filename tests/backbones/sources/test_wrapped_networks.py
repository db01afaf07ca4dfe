"""Networks in the wrapping of another library are unwrapped, or refused with what to give instead."""

import threading

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone


def features(network, X):
    return PretrainedFeatureExtractor(network, feature_cache=None, precision="float32").fit_transform(X)


def compiled_in_place(network):
    network.compile()
    return network


@pytest.mark.parametrize(
    "wrap",
    rest_exhaustive(
        [nn.DataParallel, torch.compile, compiled_in_place, lambda network: nn.DataParallel(torch.compile(network))],
        nn.DataParallel,
        compiled_in_place,
    ),
    ids=["DataParallel", "compiled", "compiled in place", "both"],
)
def test_what_only_spreads_or_compiles_a_network_is_taken_off(wrap, pictures):
    network = tiny_cnn()
    wrapped = wrap(network)
    np.testing.assert_array_equal(features(wrapped, pictures[0]), features(network, pictures[0]))
    np.testing.assert_array_equal(features(lambda: wrapped, pictures[0]), features(network, pictures[0]))
    model = FineTunedClassifier(wrapped, freeze_depth=2, max_epochs=1, random_state=0).fit(*pictures)
    assert model.backbone is wrapped


def named(library, name, bases=(nn.Sequential,)):
    """Return a class that looks like one of another library, which need not be installed."""
    return type(name, bases, {"__module__": f"{library}.models"})


class WithLock(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.lock = nn.Conv2d(3, 4, 3), threading.Lock()

    def forward(self, x):
        return self.layers(x)


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten())

    def forward(self, x):
        return self.layers(x)


REFUSED = {
    "half": (lambda: tiny_cnn().half(), r"of torch\.float16; expected float32.*network\.float\(\)"),
    "bfloat16": (lambda: tiny_cnn().bfloat16(), r"of torch\.bfloat16; expected float32"),
    "double": (lambda: tiny_cnn().double(), r"of torch\.float64; expected float32"),
    "meta": (lambda: tiny_cnn().to("meta"), "on the meta device, without values; expected weights"),
    "lock": (WithLock, "cannot be copied .*; expected layers, tensors and plain values"),
    "lazy": (Lazy, "has no shape yet; expected a network whose layers are all initialised"),
    "state_dict": (
        lambda: tiny_cnn().state_dict(),
        "a dict of 32 tensors.*a state_dict; expected the network",
    ),
    "transformers": (named("transformers", "BertModel", (named("transformers", "PreTrainedModel"),)), "hf:FOLDER"),
    "peft": (named("peft", "PeftModelForX", (named("peft", "PeftModel"),)), r"merge_and_unload\(\)"),
    "sentence-transformers": (named("sentence_transformers", "SentenceTransformer"), r"backbone\.save\(FOLDER\)"),
    "number": (lambda: 17, "Got backbone=17 of type int; expected a name"),
    "list": (lambda: ["resnet18"] * 1000, "of type list; expected a name"),
    "other dict": (lambda: {"a" * 1000: 1}, "of type dict; expected a name"),
    "none": (lambda: None, "of type NoneType; expected a name"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_cut_copied_or_computed_with_is_refused_with_what_to_do(kind, pictures):
    make, said = REFUSED[kind]
    backbone = make()
    for use in (
        lambda: load_backbone(backbone),
        lambda: PretrainedFeatureExtractor(backbone).fit(pictures[0]),
        lambda: FineTunedClassifier(backbone).fit(*pictures),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            use()
        assert len(str(caught.value)) < 600
        assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inside", [False, True])
def test_a_scripted_network_is_refused(inside):
    network = torch.jit.script(tiny_cnn())
    with pytest.raises(ValueError, match=r"before torch\.jit\.script or trace"):
        load_backbone(nn.Sequential(network, nn.ReLU()) if inside else network)
