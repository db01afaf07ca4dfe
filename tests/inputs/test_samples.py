"""Samples that stand for others are like them in every respect."""

import inspect

import numpy as np
import pytest
import torch

from sktransfer._computing._frozen_pass import _Subset
from sktransfer._training._activation_sources import _Decoded
from sktransfer.inputs import ImagePreprocessing, make_reader
from sktransfer.inputs._base import Samples, SamplesOf, TolerantSamples

X = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)
MEMBERS = [name for name in vars(Samples) if name == "__len__" or not name.startswith("_")]
# What is called gives another function each time.
COMPARED = [name for name in MEMBERS if name != "augmentation"]
WRAPPERS = {
    "as they are": SamplesOf,
    "some of them": lambda samples: _Subset(samples, range(3)),
    "kept once decoded": lambda samples: _Decoded(samples, "recipe"),
    "whether they can be read or not": TolerantSamples,
}


def asked(samples, name):
    """What a member gives, called with what it takes."""
    member = getattr(samples, name)
    takes = list(inspect.signature(member).parameters) if callable(member) else None
    given = {"index": 1, "batch": samples.load(0)[None], "augment": "flip"}
    return member if takes is None else member(*[given[one] for one in takes])


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_whatever_samples_are_asked_those_that_stand_for_them_answer_alike(wrapped, name):
    samples = make_reader("images", ImagePreprocessing(crop=(8, 10))).learn(X)
    found, expected = asked(WRAPPERS[wrapped](samples), name), asked(samples, name)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def test_each_member_is_forwarded_by_the_one_class_for_that():
    forwarded = set(vars(SamplesOf)) | {"kind", "decoding_takes_time", "are_far"}
    assert set(MEMBERS) <= forwarded
