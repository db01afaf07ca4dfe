"""Hold one network: loaded and shared in this process, written down, and found again.

It is written down in one way, whoever asks for it: words and numbers, with its tensors or with their fingerprint.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import nn

from sktransfer._process._locks import Lock
from sktransfer.backbones._cut_names import CutNames
from sktransfer.backbones._loaded_network import LoadedNetwork, built_once, load, share
from sktransfer.backbones._recipes import recipe_of
from sktransfer.backbones.graphs._base import Block, Graph
from sktransfer.backbones.sources._base import Source
from sktransfer.backbones.sources._claims import no_larger_than
from sktransfer.backbones.sources._weights import fill, fingerprint, fingerprint_of_tensors
from sktransfer.inputs import restore_preprocessing


class KeptNetwork:
    """A network with its graph, its preprocessing and the place where it came from.

    Parameters
    ----------
    source : Source
        Where the network comes from.
    """

    def __init__(self, source: Source):
        self._source = source
        self._finding = Lock()
        self._end: Any = None
        self._shown: tuple[Any, tuple[int, ...] | None] = ("all", None)
        self._learning: tuple[str, int] = ("all", 0)
        self._install(load(source))

    def _install(self, loaded: LoadedNetwork) -> None:
        self._loaded: LoadedNetwork | None = loaded
        self._source = self._source.adopt(loaded.network)
        self._graph: Graph | None = loaded.graph
        self.preprocessing = loaded.preprocessing
        self.blocks: tuple[Block, ...] = loaded.graph.blocks
        if self._end is not None:
            self._graph = loaded.graph.ending_at(self._cuts.behind(self._end))
            self.blocks = self._graph.blocks

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def weights_name(self) -> str:
        return self._source.weights_name

    @property
    def network(self) -> nn.Module:
        """The whole network in eval mode, including the classification layer."""
        return self._shared.network

    @property
    def fingerprint(self) -> str:
        """Digest of every parameter and buffer, as 64 hexadecimal digits."""
        return self._shared.fingerprint

    @property
    def _shared(self) -> LoadedNetwork:
        self._find_weights()
        assert self._loaded is not None
        return self._loaded

    @property
    def _traced(self) -> Graph:
        self._find_weights()
        assert self._graph is not None
        return self._graph

    @property
    def _cuts(self) -> CutNames:
        return CutNames(self._traced, self.name)

    def _copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    @property
    def custom(self) -> Any:
        """The module of your own, or the function that returns it; `None` for other networks."""
        return getattr(self._source, "backbone", None)

    @property
    def custom_holds_weights(self) -> bool:
        """Whether `custom` is a module, which holds its weights itself."""
        return self._source.keeps_network

    def to_record(self, store_weights: bool = True) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what `restore_backbone` needs to rebuild this backbone, except for a network of your own.

        Parameters
        ----------
        store_weights : bool, default=True
            Whether to include the weights, or only their fingerprint. A module of your own always keeps them.

        Returns
        -------
        record : dict
            Words and numbers.
        tensors : dict of str to Tensor
            Parameters and buffers, as they are; empty where they are to be found again by name.
        """
        stored = store_weights or self.custom_holds_weights
        record = {
            "kind": self._source.kind,
            "source": self._source.record,
            "fingerprint": self.__dict__["_fingerprint"] if self._loaded is None else self.fingerprint,
            "preprocessing": self.preprocessing.record,
            "blocks": [asdict(block) for block in self.blocks],
            "layer": self._end,
            "freeze_depth": self._shown[0],
            "sample_shape": self._shown[1],
            "learning": list(self._learning),
        }
        return record, dict(self.network.state_dict()) if stored else {}

    @property
    def recipe_name(self) -> str | None:
        """Name of the weights whose preprocessing belongs to these, if a file of weights needs to say so."""
        return getattr(self._source, "recipe_name", None)

    @classmethod
    def from_record(cls, source: Source, record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Self:
        """Rebuild a backbone from what `to_record` returned.

        Parameters
        ----------
        source : Source
            Built from the record's own part.
        record : mapping
            Words and numbers.
        tensors : mapping of str to Tensor
            Parameters and buffers, or none.

        Returns
        -------
        Backbone
            As it was.
        """
        backbone = cls.__new__(cls)
        backbone.preprocessing = restore_preprocessing(record["preprocessing"])
        backbone.blocks = tuple(Block(**block) for block in record["blocks"])
        backbone._loaded = backbone._graph = None
        backbone._finding = Lock()
        backbone._source, backbone._end = source, record["layer"]
        backbone._shown = record["freeze_depth"], record["sample_shape"]
        trainable, rank = record.get("learning", ("all", 0))  # which earlier versions did not write
        backbone._learning = trainable, rank
        backbone.__dict__["_fingerprint"] = record["fingerprint"]
        if tensors:
            backbone._take(tensors)
        elif source.keeps_network and fingerprint(source.architecture()) == record["fingerprint"]:
            backbone._take(None)
        return backbone

    def __reduce__(self) -> tuple[Any, ...]:
        from sktransfer.backbones import restore_backbone

        record, tensors = self.to_record(store_weights=self._loaded is not None)
        return restore_backbone, (record, {} if self.custom_holds_weights else tensors, self.custom)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what earlier versions of this package pickled."""
        self.__dict__.update(state)
        self._finding = Lock()
        self._shown = self.__dict__.pop("freeze_depth"), self.__dict__.pop("_sample_shape", None)
        self._learning = ("all", 0)
        tensors = self.__dict__.pop("_state", None)
        if tensors is not None or self._source.keeps_network:
            self._take(tensors)

    def _take(self, tensors: Mapping[str, torch.Tensor] | None) -> None:
        if tensors is None:
            self._install(share(LoadedNetwork(self._source.architecture(), self._source)))
            return

        def build() -> LoadedNetwork:
            with ExitStack() as opened:
                if not self.custom:
                    from sktransfer.backbones.sources._unfilled import Unfilled

                    opened.enter_context(no_larger_than(tensors))
                    opened.enter_context(Unfilled())
                network = self._source.architecture()
            fill(network, tensors, "the file")
            return LoadedNetwork(network, self._source)

        recipe = recipe_of(self._source, self.preprocessing.record, weights=False)
        self._install(built_once(recipe, fingerprint_of_tensors(tensors), build))

    def _find_weights(self) -> None:
        """Load weights that a pickle left out, and refuse any that are not the same."""
        with self._finding:  # several threads may come to it at once
            if self._loaded is not None:
                return
            expected = self.__dict__["_fingerprint"]
            recipe = None  # what has a key is found by it
            if self._source.key is None:
                recipe = recipe_of(self._source, self.preprocessing.record, weights=True)
            loaded = built_once(recipe, expected, lambda: load(self._source))
            found = loaded.fingerprint
            if found != expected:
                raise ValueError(
                    f"Got weights {self.weights_name!r} of {self.name!r} with fingerprint {found[:12]}; expected "
                    f"{expected[:12]}, the ones this model was fitted with (store_backbone=False left them out of the "
                    "file). Put the original weights back, or fit again."
                )
            self._install(loaded)
