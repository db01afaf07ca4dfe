"""What each kind of input provides: a reader learns about X in `fit`, and turns any X into samples.

Loading (opening, decoding, resizing) happens here, in threads that run ahead of the network, never all at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, ClassVar, Self, TypeVar

import torch
from joblib import effective_n_jobs

from sktransfer._messages import shown
from sktransfer._process._workers import in_order

# Batches that may wait, loaded, beyond one a thread: enough to keep a network busy, few enough to keep memory flat.
BATCHES_AHEAD = 2

# Threads that wait for a network: they take no processor meanwhile.
FAR_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


# Changes one loaded sample at random.
Augmentation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Preprocessing(ABC):
    """What a network wants of its samples. It travels with the weights, and is a record of plain values."""

    kind: ClassVar[str]
    """The kind of X that the network takes, under which a reader is found."""

    @property
    def record(self) -> dict[str, Any]:
        """Its values, in words and numbers, for `restore_preprocessing`."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it again from its `record`."""
        return cls(**{name: value for name, value in record.items() if name != "kind"})

    @abstractmethod
    def example(self, shape: tuple[int, ...] | None, n_samples: int) -> torch.Tensor:
        """Return prepared samples with nothing real in them.

        Parameters
        ----------
        shape : tuple of int or None
            Of one sample that was seen, if any was.
        n_samples : int
            How many.

        Returns
        -------
        Tensor of shape (n_samples, ...)
            Of the type that the network takes.
        """


class UnreadableSampleError(ValueError):
    """One sample of X cannot be read: its file is gone or damaged, it is not an image, or it is too large."""


class Samples(ABC):
    """A checked X: rows that can be loaded in any order, from several threads."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def load(self, index: int) -> torch.Tensor:
        """Return one sample; samples of one reader have one type, and those of the same size one shape."""

    def size(self, index: int) -> int:
        """Return what tells samples of different shapes apart: the length of the side in which they differ."""
        return 1

    @abstractmethod
    def blank(self) -> torch.Tensor:
        """Return what has the shape and type of a loaded sample, and nothing in it."""

    def size_in_all(self) -> int:
        """Return the sum of all sizes; of a part of X, that of the whole."""
        return sum(map(self.size, range(len(self))))

    def is_blank(self, index: int) -> bool:
        """Tell whether `load` gave a blank in place of this sample."""
        return False

    @abstractmethod
    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn a stack of loaded samples, on any device, into what the network takes."""

    def augmentation(self, augment: Any) -> Augmentation | None:
        """Return the random changes that a level, or a callable, stands for with samples of this kind."""
        if augment is not None:
            raise ValueError(f"Got augment={shown(augment)} for X that holds {self.kind}; expected None.")
        return None

    kind: str = "samples"
    """What to call them."""

    decoding_takes_time: bool = False
    """Whether it is worth keeping what `load` returns, where a sample is loaded more than once."""

    are_far: bool = False
    """Whether some of them come over a network, so that many threads should wait for them at once."""

    @property
    @abstractmethod
    def recipe(self) -> str | None:
        """What `load` and `prepare` do to a sample, in words that differ where the result does.

        `None` where results are not worth keeping.
        """

    @abstractmethod
    def digest(self, index: int) -> bytes:
        """Return a digest of one sample's content: of a file's bytes, not of its path."""

    def stamp(self, index: int) -> object:
        """Return what changes when the content of a sample does, if it can while this object lives; else `None`."""
        return None

    @property
    @abstractmethod
    def n_values(self) -> int:
        """Number of values of one loaded sample, a piece of the size 1 where sizes differ."""


class SamplesOf(Samples):
    """Other samples, as they are in every respect: for those that differ from them in one thing.

    Parameters
    ----------
    samples : Samples
        The others.
    """

    def __init__(self, samples: Samples):
        self._samples = samples
        self.kind, self.decoding_takes_time = samples.kind, samples.decoding_takes_time
        self.are_far = samples.are_far

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> torch.Tensor:
        return self._samples.load(index)

    def blank(self) -> torch.Tensor:
        return self._samples.blank()

    def is_blank(self, index: int) -> bool:
        return self._samples.is_blank(index)

    def size(self, index: int) -> int:
        return self._samples.size(index)

    def size_in_all(self) -> int:
        return self._samples.size_in_all()

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return self._samples.prepare(batch)

    def augmentation(self, augment: Any) -> Augmentation | None:
        return self._samples.augmentation(augment)

    def stamp(self, index: int) -> object:
        return self._samples.stamp(index)

    @property
    def n_values(self) -> int:
        return self._samples.n_values

    @property
    def recipe(self) -> str | None:
        return self._samples.recipe

    def digest(self, index: int) -> bytes:
        return self._samples.digest(index)


class TolerantSamples(SamplesOf):
    """Samples that may be unreadable: a blank stands in for each unreadable one, and the reason is kept.

    Parameters
    ----------
    samples : Samples
        As they are.

    Attributes
    ----------
    problems : dict of int to str
        What was wrong, by row.
    """

    def __init__(self, samples: Samples):
        super().__init__(samples)
        self.problems: dict[int, str] = {}

    def load(self, index: int) -> torch.Tensor:
        try:
            return super().load(index)
        except UnreadableSampleError as error:
            self.problems[index] = str(error)
            blank, size = self.blank(), self.size(index)  # it is stacked with others of its size
            return blank if size == 1 else blank.repeat(size, *[1] * (blank.ndim - 1))

    def is_blank(self, index: int) -> bool:
        return index in self.problems

    def stamp(self, index: int) -> object:
        """Return what differs from any stamp that was taken before: nothing of a blank is to be kept."""
        return "blank" if index in self.problems else super().stamp(index)


class Reader(ABC):
    """What `fit` learned of X, and how any later X is read the same way."""

    kind: ClassVar[str]

    varying: str | None = None
    """What the second axis of a prepared batch counts, where samples differ in how many they have."""

    @abstractmethod
    def example(self, n_samples: int, n_features: int | None) -> torch.Tensor:
        """Return prepared samples as they come of an X like that of `fit`, without anything real in them."""

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What was learned, in words and numbers, for `restore_reader`."""

    @classmethod
    @abstractmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build a reader that has learned the same from its `record`."""

    @property
    def description(self) -> dict[str, Any]:
        """What a program without this package has to know to prepare samples, in words and numbers."""
        return {"kind": self.kind, "preprocessing": self.record.get("preprocessing")}

    @abstractmethod
    def learn(self, X: Any, tolerant: bool = False) -> Samples:
        """Learn what X looks like, from rows that can be read where a reader is tolerant, and return its samples.

        X is what `Rows` made of it, a list or an array, or an array that scikit-learn has checked since.
        """

    @abstractmethod
    def read(self, X: Any, tolerant: bool = False) -> Samples:
        """Check X against what was learned and return its samples.

        A tolerant reader leaves it to `Samples.load` to say that a row holds no sample.
        """


def batches_of(samples: Samples, order: Iterable[int], at_once: Callable[[int], int]) -> Iterator[list[int]]:
    """Divide rows into batches, in order: a batch holds samples of one shape.

    Parameters
    ----------
    samples : Samples
        Whose rows they are.
    order : iterable of int
        Rows, in the order wanted; no more are taken than a batch needs.
    at_once : callable
        Given a sample's number of values, returns the maximum number of such samples per batch.

    Yields
    ------
    list of int
        Rows of the next batch.
    """
    batch: list[int] = []
    size, full = 0, 1
    for row in map(int, order):
        found = samples.size(row)
        if batch and found != size:
            yield batch
            batch = []
        if not batch:
            size, full = found, at_once(samples.n_values * found)
        batch.append(row)
        if len(batch) >= full:
            yield batch
            batch = []
    if batch:
        yield batch


def several(batches: Iterable[T]) -> tuple[bool, Iterator[T]]:
    """Tell whether there are more than one.

    Parameters
    ----------
    batches : iterable
        The first two are taken.

    Returns
    -------
    several : bool
        Whether there are.
    batches : iterator
        All of them.
    """
    rest = iter(batches)
    first = list(islice(rest, 2))
    return len(first) > 1, chain(first, rest)


def each(work: Callable[[T], R], items: Sequence[T], far: bool) -> list[R]:
    """Do the same work on each item, in many threads where it waits for a network.

    Parameters
    ----------
    work : callable
        Called with one item.
    items : sequence
        All of them.
    far : bool
        Whether it does.

    Returns
    -------
    list
        What was returned, in order.
    """
    if not far or len(items) < 2:
        return [work(item) for item in items]
    threads = min(FAR_THREADS, len(items))
    with closing(in_order(work, items, threads, ahead=4 * threads, name="sktransfer-fetch")) as done:
        return list(done)


def load_batches(
    samples: Samples, batches: Iterable[Sequence[int]], n_jobs: int | None, pin: bool = False
) -> Generator[torch.Tensor, None, None]:
    """Load samples in threads ahead of whoever takes the batches.

    Parameters
    ----------
    samples : Samples
        What to load.
    batches : iterable of array-like of int
        Rows of each batch, of one shape.
    n_jobs : int or None
        Threads, as joblib counts them. A single batch is loaded without any.
    pin : bool, default=False
        Whether to load into page-locked memory, from which a GPU copies while it computes.

    Yields
    ------
    Tensor of shape (n, ...)
        The next batch, on the CPU, not yet prepared.
    """

    def load(rows: Sequence[int]) -> torch.Tensor:
        batch = load_batch(samples, rows)
        return batch.pin_memory() if pin else batch

    more, batches = several(batches)
    if not more:
        yield from map(load, batches)
        return
    threads = effective_n_jobs(n_jobs)
    ahead = threads + BATCHES_AHEAD
    with closing(in_order(load, batches, threads, ahead=ahead, name="sktransfer-load")) as loaded:
        yield from loaded


def load_batch(samples: Samples, rows: Sequence[int]) -> torch.Tensor:
    """Load some samples, here and now.

    Parameters
    ----------
    samples : Samples
        What to load.
    rows : array-like of int
        Which, in the order wanted.

    Returns
    -------
    Tensor of shape (n, ...)
        On the CPU, not yet prepared.
    """
    return _stack([samples.load(int(row)) for row in rows])


def prepared_batches(samples: Samples, most: int, at_once: int = 16) -> Callable[[], Iterator[torch.Tensor]]:
    """Load some samples once, to be prepared as often as they are wanted.

    Parameters
    ----------
    samples : Samples
        What to load.
    most : int
        How many at most; they are spread evenly.
    at_once : int, default=16
        The most that a batch has.

    Returns
    -------
    callable
        Returns an iterator of prepared batches, each of one shape.
    """
    n_samples = min(most, len(samples))
    rows = sorted((len(samples) * part // n_samples for part in range(n_samples)), key=samples.size)
    loaded = [load_batch(samples, batch) for batch in batches_of(samples, rows, lambda _: at_once)]
    return lambda: (samples.prepare(batch) for batch in loaded)


def _stack(samples: list[torch.Tensor]) -> torch.Tensor:
    """Stack samples in the order that they have in memory: pictures are decoded with channels last."""
    if samples[0].ndim == 3 and not samples[0].is_contiguous():
        return torch.stack([sample.movedim(0, -1) for sample in samples]).movedim(-1, 1)
    return torch.stack(samples)
