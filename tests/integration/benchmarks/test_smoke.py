"""The benchmarks run, on our own broker and with tiny sizes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.drain import drain
from benchmarks.environments import Environments
from benchmarks.peers import PEERS


def test_a_drain_on_our_broker_gives_its_figures(tmp_path: Path) -> None:
    bench = Bench(Environments(tmp_path), size=0.01)

    figures = drain(bench, PEERS["switchyard"], workers=1)

    assert figures["drain_1x8_per_s"] > 100
    assert figures["drain_1x8_server_us_per_task"] > 0
    assert 0 < figures["drain_1x8_commands_per_task"] < 50
