"""Measures one suite against its peers: python tools/benchmark.py SUITE [--flags].

A suite is a module of tools/benchmarks with a function main() and flags of its own.
"""

import importlib
import pathlib
import sys

import cli

from absl import flags


def pop_suite() -> str:
    """Takes the name of the suite off the command line, which then holds flags only."""
    folder = pathlib.Path(__file__).parent / "benchmarks"
    suites = sorted(path.stem for path in folder.glob("[!_]*.py"))
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(f"{(__doc__ or '').strip()}\n\nSuites: {', '.join(suites)}")
        print("python tools/benchmark.py SUITE --help lists the flags of one.")
        sys.exit()
    if len(sys.argv) < 2 or sys.argv[1] not in suites:
        sys.exit(f"benchmark.py: error: the first argument names a suite: {', '.join(suites)}")
    return sys.argv.pop(1)


if __name__ == "__main__":
    suite = importlib.import_module(f"benchmarks.{pop_suite()}")
    flags.adopt_module_key_flags(suite)  # --help shows them
    __doc__ = suite.__doc__ or ""
    cli.run(suite.main)
