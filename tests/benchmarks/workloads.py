"""
The open workloads: a function of one item each, and a factory for its items.

Shapes rather than programs: tiny to heavy items, costs that rise, fall, jump or have a long tail,
big inputs, big outputs, arrays, BLAS, waits, text, generators, many small calls. Every function
lives at module level, so that any kind of worker can import it, and none reads anything but its
argument.
"""

from __future__ import annotations

import ast
import csv
import functools
import hashlib
import io
import itertools
import json
import math
import os
import random
import statistics
import sysconfig
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

# Iterations of `spin` per millisecond. The suite measures it once per run and hands it to every
# child, so that all contenders of a run are given the same number of operations.
SPEED_VARIABLE = "BENCH_LOOPS_PER_MS"
LOOPS_PER_MS = float(os.environ.get(SPEED_VARIABLE, "100000"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """
    A function of one item and where its items come from.

    Attributes:
        func: Called once per item.
        make: Builds the items, anew for each timed call; never part of the timing.
        shape: What is special about it, in a few words.
        checked: Whether results are compared for equality with the loop's. Off where the last bit
            of a float may depend on the number of BLAS threads; the number of results is always
            compared.
        expect: What the result must be, where that is known without the work; None asks `func`.
        threads_ok: The function waits or gives up the GIL, and may run in threads.
        steady: All items cost about the same, so that a forecast can be held to account.
        n_calls: Maps per timed call.
        small: Part of a quick run.
    """

    func: Callable[..., object]
    make: Callable[[], Iterable[object]]
    shape: str
    checked: bool = True
    expect: Callable[..., object] | None = None
    threads_ok: bool = False
    steady: bool = False
    n_calls: int = 1
    small: bool = False


# --- functions of one item -------------------------------------------------------------------


def spin(loops: int) -> int:
    """
    Go round an empty loop in pure Python: a fixed number of operations, the GIL held throughout.

    Each round costs the same, which it would not with `range`: integers above 256 are made anew.
    """
    for _ in itertools.repeat(None, loops):
        pass
    return loops


def turned(data: bytes) -> bytes:
    """Turn bytes round after some twenty microseconds of work."""
    spin(2000)
    return data[::-1]


def identity(item: object) -> object:
    """Return the item: the smallest work there is."""
    return item


def triple(number: int) -> int:
    """Multiply by three, some 40 ns."""
    return number * 3


def horner(number: int) -> float:
    """Evaluate a polynomial of degree 100 at a number, some 3 µs."""
    x, total = (number % 97) / 97, 0.0
    for power in range(100):
        total = total * x + power
    return total


def checksum(block: bytes) -> int:
    """Checksum a block: far less work than moving it costs."""
    return zlib.adler32(block)


def deflated_size(block: bytes) -> int:
    """Compress a block without the GIL and return the size in bytes."""
    return len(zlib.compress(block))


def stretch_key(password: str) -> str:
    """Derive a key, some 3 ms without the GIL."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 10_000).hex()


def chain_digests(text: str) -> str:
    """Hash a short text 250 times over, the GIL held."""
    digest = text.encode()
    for _ in range(250):
        digest = hashlib.blake2b(digest, digest_size=32).digest()
    return digest.hex()


def count_up(length: int) -> list[int]:
    """Return a long list of integers: cheap to make, dear to send."""
    return list(range(length))


def mean_of(numbers: list[float]) -> float:
    """Average a long list of floats: slow to pickle."""
    return statistics.fmean(numbers)


def parse_rows(text: str) -> list[dict[str, str]]:
    """Parse CSV into one dictionary per row: the result outweighs the input."""
    return list(csv.DictReader(io.StringIO(text)))


def load_record(text: str) -> object:
    """Parse a small JSON record, some 2 µs."""
    return json.loads(text)


def load_document(text: str) -> int:
    """Parse a JSON document of some 15 kB and count the characters of its values."""
    return sum(len(value) for value in json.loads(text).values())


def letters_of(text: str) -> list[tuple[str, int]]:
    """Find the five most frequent words of a text."""
    return Counter(text.casefold().split()).most_common(5)


def count_nodes(source: str) -> int:
    """Parse Python source and count the nodes of its tree."""
    return sum(1 for _ in ast.walk(ast.parse(source)))


def wait(seconds: float) -> float:
    """Wait without computing."""
    time.sleep(seconds)
    return seconds


def wait_and_spin(loops: int) -> int:
    """Wait for 5 ms, then compute."""
    time.sleep(0.005)
    return spin(loops)


def total_of(array: Array) -> float:
    """Sum an array: memory-bound, a fraction of what sending it costs."""
    return float(array.sum())


def sorted_median(array: Array) -> float:
    """Sort a copy of an array without the GIL and return its middle element."""
    ordered = array.copy()
    ordered.sort()
    return float(ordered[len(ordered) // 2])


def normalised(array: Array) -> Array:
    """Return an array of the same size with mean 0 and deviation 1."""
    scaled: Array = (array - array.mean()) / array.std()
    return scaled


def settled(array: Array) -> Array:
    """Take the cosine of all elements over and over, some 15 ms for 1 MB; an array of the same size comes back."""
    import numpy as np  # noqa: PLC0415  most workloads do without

    values = array.copy()
    for _ in range(20):
        np.cos(values, out=values)
    return values


def matrix_cube(seed: int) -> float:
    """Multiply random 400 x 400 matrices: BLAS, which may use all cores on its own."""
    import numpy as np  # noqa: PLC0415  most workloads do without

    matrix = np.random.default_rng(seed).random((400, 400))
    return float((matrix @ matrix @ matrix).trace())


# --- items -----------------------------------------------------------------------------------


def loops_for(ms: float) -> int:
    """Convert milliseconds to iterations of `spin`."""
    return max(1, round(ms * LOOPS_PER_MS))


def loops_per_ms(repeats: int = 15) -> float:
    """Measure how many iterations of `spin` this machine does in a millisecond, at its fastest."""
    loops, best_s = 100_000, math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        spin(loops)
        best_s = min(best_s, time.perf_counter() - start)
    return loops / (best_s * 1e3)


def spins(*pieces: tuple[int, float]) -> list[int]:
    """List items for `spin` from pieces of *(how many, milliseconds each)*."""
    return [loops_for(ms) for count, ms in pieces for _ in range(count)]


def rising() -> list[int]:
    """List 400 items whose cost rises evenly from nothing to 6 ms."""
    return [loops_for(6 * i / 399) for i in range(400)]


def bimodal() -> list[int]:
    """List 1,000 items of 0.2 ms with one in twenty, at random places, of 20 ms."""
    dice = random.Random(11)
    return [loops_for(20 if dice.random() < 0.05 else 0.2) for _ in range(1000)]


def heavy_tail(n_items: int = 1000, cap_ms: float = 100) -> list[int]:
    """List items with Pareto-distributed costs (index 1.1), none above *cap_ms*."""
    dice = random.Random(12)
    return [loops_for(min(cap_ms, 0.2 * dice.paretovariate(1.1))) for _ in range(n_items)]


@functools.cache
def block(n_bytes: int, seed: int) -> bytes:
    """Build bytes that compress to about two thirds."""
    few = bytes(value % 40 for value in range(256))
    return random.Random(seed).randbytes(n_bytes).translate(few)


@functools.cache
def prose(n_words: int, seed: int) -> str:
    """Build a text of made-up words with natural frequencies."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 10))) for _ in range(400)]
    return " ".join(dice.choices(words, weights=[1 / (i + 1) for i in range(400)], k=n_words))


@functools.cache
def document(n_fields: int, seed: int) -> str:
    """Build a JSON object of text fields, some 40 bytes each."""
    dice = random.Random(seed)
    fields = {f"field{i}-{seed}": "x" * dice.randint(4, 50) for i in range(n_fields)}
    return json.dumps(fields)


@functools.cache
def sheet(n_rows: int, seed: int) -> str:
    """Build CSV text with six columns."""
    dice = random.Random(seed)
    rows = (",".join(str(dice.randint(0, 9999)) for _ in range(6)) for _ in range(n_rows))
    return "\n".join(("id,day,place,count,price,note", *rows))


@functools.cache
def numbers(length: int, seed: int) -> tuple[float, ...]:
    """Draw floats."""
    dice = random.Random(seed)
    return tuple(dice.random() for _ in range(length))


@functools.cache
def array(length: int, seed: int) -> Array:
    """Draw an array of float64."""
    import numpy as np  # noqa: PLC0415  most workloads do without

    drawn: Array = np.random.default_rng(seed).random(length)
    return drawn


def arrays(n_items: int, mb: float) -> list[Array]:
    """List arrays of *mb* times 2**20 bytes, each with memory of its own."""
    return [array(int(mb * 2**17), i % 4).copy() for i in range(n_items)]


@functools.cache
def sources(n_files: int) -> tuple[str, ...]:
    """Read modules of the running Python's standard library: sizes with a heavy tail."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:n_files]
    return tuple(path.read_text("utf-8", "replace") for path in paths)


def slowly(n_items: int, ms: float) -> Iterator[int]:
    """Produce items of 0.2 ms, each after a wait of *ms*."""
    for _ in range(n_items):
        time.sleep(ms / 1e3)
        yield loops_for(0.2)


# --- the suite -------------------------------------------------------------------------------

_spin = functools.partial(Workload, func=spin, expect=identity)

WORKLOADS: dict[str, Workload] = {
    "tiny-100k": Workload(func=triple, make=lambda: range(100_000), shape="40 ns items", steady=True, small=True),
    "sqrt-1m": Workload(
        func=math.sqrt,
        make=lambda: range(1_000_000),
        shape="a builtin, a million items",
        steady=True,
    ),
    "horner-1k": Workload(func=horner, make=lambda: range(1000), shape="3 µs items, few", steady=True, small=True),
    "horner-40k": Workload(func=horner, make=lambda: range(40_000), shape="3 µs items, many", steady=True, small=True),
    "spin-1ms-x40": _spin(make=lambda: spins((40, 1)), shape="1 ms items, few", steady=True),
    "spin-1ms-x200": _spin(make=lambda: spins((200, 1)), shape="1 ms items", steady=True, small=True),
    "spin-1ms-x1500": _spin(make=lambda: spins((1500, 1)), shape="1 ms items, many", steady=True),
    "spin-100ms-x8": _spin(make=lambda: spins((8, 100)), shape="heavy items, few", steady=True),
    "spin-400ms-x2": _spin(make=lambda: spins((2, 400)), shape="two heavy items"),
    "rising": _spin(make=rising, shape="costs rise from 0 to 6 ms", small=True),
    "falling": _spin(make=lambda: rising()[::-1], shape="costs fall from 6 ms to 0"),
    "last-heavy": _spin(make=lambda: spins((400, 1), (1, 400)), shape="the last item is half the work"),
    "first-heavy": _spin(
        make=lambda: spins((1, 200), (4000, 0.02)),
        shape="200 ms first, then 20 µs items",
        small=True,
    ),
    "first-only": _spin(make=lambda: spins((1, 200), (1000, 0.0002)), shape="200 ms first, then almost nothing"),
    "bimodal": _spin(make=bimodal, shape="5 % of the items cost 100 times the others"),
    "heavy-tail": _spin(make=heavy_tail, shape="Pareto costs, index 1.1"),
    "half-way": _spin(
        make=lambda: spins((2000, 0.02), (400, 2)),
        shape="items cost 100 times more from the middle on",
    ),
    "checksum-1MB": Workload(
        func=checksum,
        make=lambda: [block(2**20, i % 4) for i in range(100)],
        shape="big inputs, light work",
        threads_ok=True,
        steady=True,
        small=True,
    ),
    "deflate-200kB": Workload(
        func=deflated_size,
        make=lambda: [block(200_000, i % 4) for i in range(40)],
        shape="big inputs, GIL-free work",
        threads_ok=True,
        steady=True,
        small=True,
    ),
    "pbkdf2": Workload(
        func=stretch_key,
        make=lambda: [f"password {i}" for i in range(150)],
        shape="small inputs, GIL-free work",
        threads_ok=True,
        steady=True,
    ),
    "digests-2k": Workload(
        func=chain_digests,
        make=lambda: [f"text {i}" for i in range(2000)],
        shape="0.1 ms of hashing",
        steady=True,
    ),
    "big-lists-out": Workload(func=count_up, make=lambda: [200_000] * 30, shape="big outputs, light work", steady=True),
    "float-lists-in": Workload(
        func=mean_of,
        make=lambda: [list(numbers(20_000, i % 4)) for i in range(100)],
        shape="inputs that are slow to pickle",
        steady=True,
    ),
    "csv-rows-out": Workload(
        func=parse_rows,
        make=lambda: [sheet(300, i % 5) for i in range(150)],
        shape="text in, dictionaries out",
        steady=True,
    ),
    "array-sum-8MB": Workload(
        func=total_of,
        make=lambda: arrays(24, 8),
        shape="big arrays in, light work",
        threads_ok=True,
        steady=True,
        small=True,
    ),
    "array-sort-4MB": Workload(
        func=sorted_median,
        make=lambda: arrays(20, 4),
        shape="big arrays in, GIL-free work",
        threads_ok=True,
        steady=True,
    ),
    "array-scale-1MB": Workload(
        func=normalised,
        make=lambda: arrays(60, 1),
        shape="arrays in and out",
        threads_ok=True,
        steady=True,
    ),
    "blas-cube": Workload(
        func=matrix_cube,
        make=lambda: range(50),
        shape="BLAS inside, already parallel",
        checked=False,
        threads_ok=True,
        small=True,
    ),
    "wait-10ms": Workload(func=wait, make=lambda: [0.01] * 60, shape="pure waits", threads_ok=True, small=True),
    "wait-and-spin": Workload(
        func=wait_and_spin,
        make=lambda: spins((80, 1)),
        shape="5 ms waits, 1 ms work",
        expect=identity,
        threads_ok=True,
    ),
    "json-records": Workload(
        func=load_record,
        make=lambda: [f'{{"id": {i}, "ok": true, "tags": ["a", "b"]}}' for i in range(60_000)],
        shape="2 µs of parsing, objects out",
        steady=True,
    ),
    "json-documents": Workload(
        func=load_document,
        make=lambda: [document(400, i % 50) for i in range(600)],
        shape="0.1 ms of parsing",
        steady=True,
    ),
    "word-counts": Workload(
        func=letters_of,
        make=lambda: [prose(2000, i % 5) for i in range(400)],
        shape="0.2 ms of text work",
        steady=True,
        small=True,
    ),
    "syntax-trees": Workload(
        func=count_nodes,
        make=lambda: (source for source in sources(60)),
        shape="a generator of source files, heavy tail",
    ),
    "generator-1ms": _spin(
        make=lambda: (loops_for(1) for _ in range(400)),
        shape="a generator of 1 ms items",
        small=True,
    ),
    "slow-producer": _spin(make=lambda: slowly(150, 1), shape="a generator slower than the function"),
    "many-calls": _spin(
        make=lambda: spins((20, 0.05)),
        shape="200 calls of 20 items of 50 µs",
        n_calls=200,
        small=True,
    ),
}
