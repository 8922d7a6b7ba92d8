"""The server that all peers are measured on: the bundled Valkey, in memory, and its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import EmbeddedServer


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources a server has used since its start."""

    cpu_s: float
    commands: int  # including those that scripts call
    used_bytes: int

    def since(self, before: Usage) -> Usage:
        """Return the difference."""
        return Usage(self.cpu_s - before.cpu_s, self.commands - before.commands, self.used_bytes - before.used_bytes)


class MemoryServer(EmbeddedServer):
    """A Valkey that writes nothing to disk."""

    def _configuration(self) -> str:
        return super()._configuration() + "appendonly no\n"

    def usage(self) -> Usage:
        """Read the server's processor time, commands and memory."""
        with connect(self.url) as client:
            about: dict[str, Any] = client.info("everything")
        calls = sum(entry["calls"] for name, entry in about.items() if name.startswith("cmdstat_"))
        return Usage(about["used_cpu_user"] + about["used_cpu_sys"], calls, about["used_memory"])

    def cpu_s(self) -> float:
        """Read the server's processor time from Linux, in nanoseconds' steps and at no cost to the server."""
        spent_ns = [int(thread.read_text().split()[0]) for thread in Path(f"/proc/{self.pid}/task").glob("*/schedstat")]
        return sum(spent_ns) / 1e9
