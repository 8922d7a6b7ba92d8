"""The interpreters that peers run in: the project's own for what is built on it, else one of their own."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers import Peer


class Environments:
    """Where peers are installed.

    Args:
        folder: State folder; each peer's environment is below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sender(self, peer: Peer) -> list[str]:
        """Return the command that sends a peer's tasks."""
        return [str(self._python(peer)), "-m", "benchmarks.peers.sender", peer.adapter]

    def worker(self, peer: Peer, slots: int) -> list[str]:
        """Return the command that runs a peer's tasks."""
        return [str(self._python(peer)), "-m", "benchmarks.peers.worker", peer.adapter, str(slots)]

    def _python(self, peer: Peer) -> Path:
        return Path(sys.executable)
