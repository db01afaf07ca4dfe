"""Parts of a network leave nothing behind when they are gone."""

import copy
import gc
import linecache

import numpy as np
import pytest
import torch
from networks import tiny_cnn

from sktransfer import FineTunedClassifier
from sktransfer.backbones.graphs._parts import source_texts
from sktransfer.backbones.graphs._traced_graph import NetworkGraph


def test_torch_keeps_the_source_of_generated_modules_where_it_is_looked_for():
    graph = NetworkGraph(tiny_cnn().eval())
    part = graph.between(graph.end_of_block(0))
    assert source_texts()[type(part).forward.__code__.co_filename] == part.code, (
        "torch.fx.graph_module._loader.eval_cache"
    )


def test_the_source_of_a_part_is_there_while_the_part_is_and_not_for_longer():
    graph = NetworkGraph(tiny_cnn().eval())
    part = graph.between(graph.end_of_block(0))
    twin = copy.deepcopy(part)
    names = [type(one).forward.__code__.co_filename for one in (part, twin)]
    assert all(linecache.getlines(name) for name in names)
    del part, twin
    gc.collect()
    assert not any(name in source_texts() or name in linecache.cache for name in names)


@pytest.mark.exhaustive
def test_repeated_fits_do_not_leave_more_and_more_sources():
    X = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    network, counts = tiny_cnn(), []
    for _ in range(5):
        FineTunedClassifier(network, freeze_depth=2, head_epochs=1, max_epochs=1, device="cpu").fit(X, [0, 1] * 4)
        gc.collect()
        counts.append((len(source_texts()), sum("eval_with_key" in name for name in linecache.cache)))
    assert counts[-1] == counts[1]


def test_parts_work_where_torch_keeps_sources_elsewhere(monkeypatch):
    monkeypatch.delattr(torch.fx.graph_module, "_loader")
    assert source_texts() == {}
