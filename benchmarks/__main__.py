"""Switchyard beside its peers, in one run: figures, their spread, and whether the targets hold.

    bin/bench [NAME…] [--quick] [--json FILE] [--plot FILE]
    bin/bench plateau ACTOR [ARGUMENTS]    the concurrency at which an actor of yours stops gaining; see its --help

Peers are installed on first use. Everything takes about three hours, with --quick about half an hour. Exits 1 when the
lower quartile of a ratio is under 0.9 of its target, urgent work waits for more than 80 ms, or a run of Switchyard
failed. A peer is a module of ``peers/`` with a lock beside it, a question one here with an entry in ``catalogue.py``.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import plateau
from benchmarks.bench import Bench
from benchmarks.catalogue import BENCHMARKS
from benchmarks.environments import Environments
from benchmarks.judging import judge
from benchmarks.machine import describe
from benchmarks.peers import PEERS
from benchmarks.plot import draw
from benchmarks.report import show_figures, show_judgements
from benchmarks.runs import Runs, run
from benchmarks.targets import TARGETS

QUICK_SIZE, QUICK_ROUNDS, ROUNDS = 0.2, 3, 5


def main() -> int:
    """Measure, print, judge."""
    if sys.argv[1:2] == ["plateau"]:
        return plateau.main(sys.argv[2:])
    asked = _arguments()
    if asked.list:
        for benchmark in BENCHMARKS.values():
            print(f"{benchmark.name:<12} {benchmark.question}")
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    runs = _measure(asked)
    judgements = [judge(target, runs.values) for target in TARGETS]
    show_figures(console, runs.values)
    show_judgements(console, judgements)
    for failure in runs.failures:
        print(failure, file=sys.stderr)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": describe(), **runs.as_dict(judgements)}, indent=2) + "\n")
    if asked.plot:
        asked.plot.write_text(draw(runs.values))
    missed = any(entry.decides and entry.holds is False for entry in judgements)
    return int(missed or runs.own_failed)


def _measure(asked: argparse.Namespace) -> Runs:
    environments = Environments(asked.state)
    bench = Bench(environments, QUICK_SIZE if asked.quick else 1.0)
    rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    runs = Runs()
    for name in asked.names or BENCHMARKS:
        peers = [peer for peer in BENCHMARKS[name].peers if not asked.peers or peer.name in asked.peers]
        present = environments.prepare(peers, runs.failures)
        run(BENCHMARKS[name], bench, present, rounds, runs)
    return runs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; all by default")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs: rough figures")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help=f"only these of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, help=f"runs of each peer; {ROUNDS}, or {QUICK_ROUNDS} with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the main figures there, as SVG")
    parser.add_argument(
        "--state", type=Path, default=Path("var/bench"), metavar="DIR", help="where peers are installed"
    )
    asked = parser.parse_args()
    for given, known, what in ((asked.names, BENCHMARKS, "benchmark"), (asked.peers or [], PEERS, "peer")):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
