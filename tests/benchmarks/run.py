"""
The benchmark: `python tests/benchmarks/run.py [COMMAND] [OPTIONS]`, or `nox -s bench -- [COMMAND] [OPTIONS]`.

`suite` compares amorsize with its peers on open workloads: about three quarters of an hour on two
cores, ten minutes with `--quick`. `micro` measures single figures that have a bar to meet: some
fifteen minutes, half of that with `--quick`. `threads` is a part of the suite in processes with idle threads,
`kernel` a map in a Jupyter kernel: twenty minutes and two. `web` measures gaps of a web server's event loop: two
minutes. `clusters` compares with Dask's and Ray's own ways on two
workers of each here: ten minutes, four with `--quick`. `adopted` fits scikit-learn's estimators with and without
`register_joblib`: two minutes. `mechanisms` times single parts of amorsize, with and without each: three minutes.
`grain` times first calls over the seconds per item and draws the picture of README.md: three minutes; `scaling`
draws the picture of docs/motivation.md from the tables. Without a command: the
first two, quick. The machine should be quiet.
"""

from __future__ import annotations

import argparse
import sys

import adopted
import clusters
import grain
import kernel
import mechanisms
import micro
import scaling
import suite
import threads
import web


def parser() -> argparse.ArgumentParser:
    """Declare the commands."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)
    for module in (suite, threads, kernel, web, micro, grain, scaling, clusters, adopted, mechanisms):
        name = module.__name__
        description = module.__doc__
        command = commands.add_parser(
            name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return top


def main(arguments: list[str]) -> None:
    """Run one command, or the first two."""
    for command in [arguments] if arguments else [["suite", "--quick"], ["micro", "--quick"]]:
        options = parser().parse_args(command)
        options.main(options)


if __name__ == "__main__":
    main(sys.argv[1:])
