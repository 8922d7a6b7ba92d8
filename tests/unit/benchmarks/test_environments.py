"""Peers that this machine cannot run are named, with what would help."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import LOCKS, Environments
from benchmarks.peers import PEERS


def test_a_peer_without_its_checkout_is_left_out_once_and_by_name(tmp_path: Path) -> None:
    left_out: list[str] = []

    for _ in range(2):
        assert Environments(tmp_path).prepare([PEERS["streams"], PEERS["dramatiq"]], left_out) == [PEERS["dramatiq"]]

    assert left_out == ["streams is left out: no checkout of it was named; --streams-checkout DIR names one"]


def test_every_adapter_is_there_and_every_foreign_one_is_pinned_with_hashes() -> None:
    for peer in PEERS.values():
        if peer.needs == "node":
            assert (LOCKS / peer.adapter / "package-lock.json").exists()
            continue
        assert (LOCKS / f"{peer.adapter}.py").exists()
        lock = LOCKS / f"{peer.adapter}.txt"
        if lock.exists():
            pins = [line for line in lock.read_text().splitlines() if line and line[0].isalnum()]
            assert all("==" in pin and pin.endswith("\\") for pin in pins), lock
