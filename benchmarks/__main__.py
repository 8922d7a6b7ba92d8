"""Switchyard beside its peers, in one run.

bin/bench [NAME…] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.catalogue import BENCHMARKS
from benchmarks.environments import Environments
from benchmarks.figures import spread
from benchmarks.peers import PEERS
from benchmarks.runs import Runs, run

QUICK = 0.2


def main() -> int:
    """Measure, print, judge."""
    asked = _arguments()
    if asked.list:
        for benchmark in BENCHMARKS.values():
            print(f"{benchmark.name:<12} {benchmark.question}")
        return 0
    bench = Bench(Environments(asked.state), QUICK if asked.quick else 1.0)
    runs = Runs()
    for name in asked.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        peers = [peer for peer in benchmark.peers if not asked.peers or peer.name in asked.peers]
        run(benchmark, bench, peers, asked.rounds or (3 if asked.quick else 5), runs)
    for figure, of_peers in runs.values.items():
        print(f"\n{figure}")
        for peer, values in of_peers.items():
            row = spread([value for value in values if value is not None])
            print(f"  {PEERS[peer].title:<44} {row.median:12,.2f}  ({row.lowest:,.2f} - {row.highest:,.2f})")
    for failure in runs.failures:
        print(failure, file=sys.stderr)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; all by default")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs: rough figures")
    parser.add_argument("--peers", nargs="*", metavar="PEER", help="only these")
    parser.add_argument("--rounds", type=int, help="runs of each peer; 5 by default, 3 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    parser.add_argument("--state", type=Path, default=Path("var/bench"), help="where peers are installed")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
