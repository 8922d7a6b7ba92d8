"""Runs of many peers, in turn."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.environments import Environments
from benchmarks.peers import PEERS, Peer
from benchmarks.runs import Runs, run
from benchmarks.sending import PeerFailed

OURS, STOCK = PEERS["switchyard"], PEERS["dramatiq"]


def measured(measure: object, *, rounds: int, most_rounds: int = 100) -> Runs:
    runs = Runs()
    benchmark = Benchmark("thing", "?", measure, (OURS, STOCK), most_rounds)  # type: ignore[arg-type]
    run(benchmark, Bench(Environments(Path("nowhere"))), benchmark.peers, rounds, runs)
    return runs


def test_peers_take_turns() -> None:
    asked: list[str] = []

    def measure(bench: Bench, peer: Peer) -> Figures:
        asked.append(peer.name)
        return {"thing_ms": float(len(asked))}

    runs = measured(measure, rounds=5, most_rounds=2)

    assert asked == ["switchyard", "dramatiq"] * 2
    assert runs.values == {"thing_ms": {"switchyard": [1.0, 3.0], "dramatiq": [2.0, 4.0]}}
    assert not runs.own_failed


def test_a_failed_run_leaves_a_gap_in_its_round() -> None:
    failing = iter([True, False])

    def measure(bench: Bench, peer: Peer) -> Figures:
        if peer is OURS and next(failing):
            raise PeerFailed("it did not start")
        return {"thing_ms": 7.0}

    runs = measured(measure, rounds=2)

    assert runs.values["thing_ms"] == {"dramatiq": [7.0, 7.0], "switchyard": [None, 7.0]}
    assert runs.failures == ["thing, switchyard, run 1 failed: it did not start"]
    assert runs.own_failed


def test_everything_goes_into_the_json() -> None:
    runs = measured(lambda bench, peer: {"thing_ms": 7.0}, rounds=3)

    told = runs.as_dict([])

    assert told["runs"] == runs.values
    assert told["spreads"]["thing_ms"]["dramatiq"]["runs"] == 3  # type: ignore[index]
