"""
Bad inputs for every parser of outside text: `python -m tests.faults.fuzz [--count 1000000] [--seed N]`.

Texts are mutations of real ones: cgroup files, mount tables, environment values. None may raise, and what comes out
must be a figure that a decision can use.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from typing import TYPE_CHECKING, Final

from amorsize._cgroup import cgroup_paths, parse_bytes, parse_cpu_max
from amorsize._host import Readings, available_memory, read_host, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping

REAL: Final = (
    "max 100000\n",
    "150000 100000\n",
    "-1",
    "9223372036854771712\n",
    "0::/user.slice/user-1000.slice\n",
    "12:cpu,cpuacct:/docker/0123\n3:memory:/\n0::/\n",
    "inactive_file 4096\ntotal_inactive_file 12\n",
    "1073741824\n",
    "",
    "\x00",
    "1e400 1e-400",
    "nan inf",
    "\u0663 \uff14",
    "0x10",
    "1_000",
)
ODD: Final = (
    "\x00",
    "\n",
    " ",
    ":",
    "/",
    "..",
    "-",
    "+",
    "e",
    "9" * 400,
    "\u2028",
    "\ud800",
    "max",
    "nan",
    "1_0",
    "\t",
)


def mutate(pick: random.Random) -> str:
    """Return a real text after some accidents."""
    text = pick.choice(REAL)
    for _ in range(pick.randrange(4)):
        at = pick.randrange(len(text) + 1)
        how = pick.randrange(4)
        if how == 0:
            text = text[:at] + pick.choice(ODD) + text[at:]
        elif how == 1:
            text = text[:at] + text[at + pick.randrange(1, 5) :]
        elif how == 2:
            text = text[:at] + pick.choice(REAL) + text[at:]
        else:
            text = text[:at] + chr(pick.randrange(0x2FF)) + text[at + 1 :]
    return text


def problem(text: str) -> str:
    """Say what is wrong with what the small parsers make of a text; empty if nothing is."""
    quota = parse_cpu_max(text)
    if quota is not None and not (quota > 0 and math.isfinite(quota)):
        return f"quota {quota}"
    size = parse_bytes(text)
    if size is not None and not 0 <= size < 1 << 60:
        return f"bytes {size}"
    if not all(isinstance(path, str) for path in cgroup_paths(text).values()):
        return "paths"
    return ""


def odd_readings(pick: random.Random) -> Readings:
    """Return readings of which each may be absurd, missing or failing."""
    files: Mapping[str, str] = {}

    def read_text(_: str) -> str:
        if pick.random() < 0.3:
            raise pick.choice((OSError, UnicodeDecodeError("ascii", b"x", 0, 1, "odd"), ValueError))
        return files.get(_, mutate(pick))

    def reading() -> object:
        return pick.choice((None, 0, -1, 1, 64, 10**30, math.nan, math.inf, -math.inf, "8", b"8", [], 2.5))

    environ = {name: mutate(pick) for name in ("LOKY_MAX_CPU_COUNT", "AMORSIZE_SERIAL") if pick.random() < 0.7}
    return Readings(
        logical=reading,  # type: ignore[arg-type]  # absurd on purpose
        physical=reading,  # type: ignore[arg-type]  # as above
        affinity=reading,  # type: ignore[arg-type]  # as above
        available=reading,  # type: ignore[arg-type]  # as above
        address_space=reading,  # type: ignore[arg-type]  # as above
        read_text=read_text,
        environ=environ,
        platform=pick.choice(("linux", "darwin", "win32", "odd")),
    )


def run(count: int, seed: int = 0) -> list[str]:
    """Try *count* bad inputs; returns what went wrong, the first hundred."""
    pick = random.Random(seed)
    wrong: list[str] = []
    for i in range(count):
        try:
            if i % 50:
                text = mutate(pick)
                found = problem(text)
                shown = repr(text)
            else:
                readings = odd_readings(pick)
                host = read_host(readings)
                n_cpus, n_physical, _ = usable_cpus(readings)
                memory, _ = available_memory(readings)
                good = host.n_cpus >= 1 and n_cpus >= n_physical >= 1 and memory >= 0
                found, shown = "" if good else f"{host}", f"readings {seed}/{i}"
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            found, shown = f"{type(error).__name__}: {error}", f"input {seed}/{i}"
        if found and len(wrong) < 100:
            wrong.append(f"{shown[:200]}: {found}")
    return wrong


def main() -> int:
    """Try as many as asked and print what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin = time.monotonic()
    wrong = run(options.count, options.seed)
    sys.stdout.write(
        "\n".join([*wrong[:10], f"{options.count} inputs, {len(wrong)} wrong, {time.monotonic() - begin:.0f} s"])
    )
    sys.stdout.write("\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
