"""
The suite in processes that have three idle threads, as a notebook's kernel, a web server or an async program has.

Nothing is forked from the caller there, so amorsize's workers come from its fork server. `multiprocessing.Pool` with
a fork server takes part beside the pool that forks all the same.
"""

from __future__ import annotations

import argparse

import suite
from contenders import CONTENDERS

# The workloads that bars are for: what such programs compute, from many small items to arrays.
WORKLOADS = (
    "horner-40k", "spin-1ms-x40", "spin-1ms-x200", "spin-100ms-x8", "rising", "bimodal", "digests-2k",
    "json-documents", "word-counts", "csv-rows-out", "array-sort-4MB",
)  # fmt: skip

N_THREADS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `threads`: those of the suite, with other defaults."""
    suite.add_arguments(parser)
    contenders = [name for name, contender in CONTENDERS.items() if contender.in_suite]
    parser.set_defaults(
        idle_threads=N_THREADS,
        workloads=",".join(WORKLOADS),
        contenders=",".join([*contenders, "pool-forkserver"]),
    )


main = suite.main
