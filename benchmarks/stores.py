"""Compare ways to keep activations on disk, for the choice of the one that the package has.

    python benchmarks/stores.py [--output benchmarks/results/stores.md] [--quick]

Values are written in batches of 32, as a network yields them, and read back through a fresh handle, as a new process
does; the system still has the files in its memory then. All stores keep a checksum beside each value and verify it.
"""

import argparse
import hashlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measuring import machine

from sktransfer._cache._disk_store import DiskStore

HERE = Path(__file__).resolve().parent
BATCH = 32
REPEATS = 3
LIMIT = 8 * 2**30
Items = Iterable[tuple[bytes, np.ndarray]]


class SQLite(DiskStore):
    """The package's own, as it is."""

    def __init__(self, folder: Path):
        super().__init__(folder, LIMIT)


class Lmdb:
    """A memory map of one file."""

    def __init__(self, folder: Path):
        import lmdb

        # Safe against a crash of the system but for the last few transactions, as SQLite is here.
        self.map = lmdb.open(str(folder), map_size=LIMIT, metasync=False)

    def put(self, items: Items):
        with self.map.begin(write=True) as transaction:
            for key, value in items:
                transaction.put(key, seal(value))

    def get(self, keys: Sequence[bytes]):
        with self.map.begin() as transaction:
            return [unseal(transaction.get(key)) for key in keys]

    def close(self):
        self.map.close()


class DiskCache:
    """SQLite for what is small, files for what is large."""

    def __init__(self, folder: Path):
        import diskcache

        self.cache = diskcache.Cache(folder, size_limit=LIMIT)

    def put(self, items: Items):
        with self.cache.transact():
            for key, value in items:
                self.cache.set(key, seal(value))

    def get(self, keys: Sequence[bytes]):
        return [unseal(self.cache.get(key)) for key in keys]

    def close(self):
        self.cache.close()


class Files:
    """A file a value, which appears under its name once it is whole."""

    def __init__(self, folder: Path):
        self.folder = folder

    def put(self, items: Items):
        for key, value in items:
            whole = self.folder / key.hex()
            part = whole.with_suffix(".part")
            part.write_bytes(seal(value))
            part.rename(whole)

    def get(self, keys: Sequence[bytes]):
        return [unseal((self.folder / key.hex()).read_bytes()) for key in keys]

    def close(self):
        pass


def seal(value: np.ndarray) -> bytes:
    content = value.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest() + content


def unseal(sealed: bytes) -> np.ndarray:
    content = sealed[16:]
    assert hashlib.blake2b(content, digest_size=16).digest() == sealed[:16]
    return np.frombuffer(content, np.float32)


def measure(make: Callable, keys: list[bytes], values: np.ndarray) -> tuple[float, float, float]:
    """Return writes a second, reads a second, and bytes on disk as a multiple of those of the values."""
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder))
        start = time.perf_counter()
        for first in range(0, len(keys), BATCH):
            store.put(zip(keys[first : first + BATCH], values[first : first + BATCH], strict=True))
        writing = time.perf_counter() - start
        store.close()
        store = make(Path(folder))
        start = time.perf_counter()
        found = store.get(keys)
        reading = time.perf_counter() - start
        assert np.array_equal(found, values)
        store.close()
        # Blocks that are taken, not the length that a sparse file claims.
        taken = sum(file.stat().st_blocks * 512 for file in Path(folder).rglob("*") if file.is_file())
    return len(keys) / writing, len(keys) / reading, taken / values.nbytes


def stores() -> dict[str, Callable]:
    """Return the stores that are installed."""
    makers: dict[str, Callable] = {f"SQLite {sqlite3.sqlite_version}, the package's": SQLite}
    for name, make in (("lmdb", Lmdb), ("diskcache", DiskCache)):
        if find_spec(name):
            makers[name] = make
        else:
            print(f"{name} is not installed: left out")
    return {**makers, "files": Files}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "stores.md")
    parser.add_argument("--quick", action="store_true", help="few values, once, printed and not written")
    given = parser.parse_args()
    lines = ["| store | values | writes a second | reads a second | disk, times the values |", "|---|---|---|---|---|"]
    for n, size in ((200, 2), (50, 200)) if given.quick else ((10_000, 2), (1_000, 200)):
        values = np.random.default_rng(0).random((n, size * 256), dtype=np.float32)
        keys = [hashlib.blake2b(number.to_bytes(8, "little"), digest_size=32).digest() for number in range(n)]
        # In turns, so that a machine that slows down slows all alike.
        runs = [{name: measure(make, keys, values) for name, make in stores().items()} for _ in range(REPEATS)]
        for name in runs[0]:
            writes, reads, taken = (
                statistics.median(figures) for figures in zip(*(r[name] for r in runs), strict=True)
            )
            lines.append(f"| {name} | {n:,} of {size} KiB | {writes:,.0f} | {reads:,.0f} | {taken:.2f} |")
    here = machine()
    lines += ["", f"Medians of {REPEATS}. {here['processor']}, {here['cores']} cores, Python {here['python']}."]
    print("\n".join(lines))
    if not given.quick:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
