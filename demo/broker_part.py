"""The embedded Valkey as a part of the demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from apps.platform.embedded.server import EmbeddedServer


@dataclass
class BrokerPart:
    """Runs the embedded server; it is ready once it is started, for it waits for itself."""

    server: EmbeddedServer
    name: str = "valkey"
    log_start_bytes: int = 0
    ready_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0
    _was_started: bool = field(default=False, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self.server.pid

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.server.log_path

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedServerFailed: it does not.
        """
        self.server.start()
        self._was_started = True

    def exit_code(self) -> int | None:
        """Return whether it ended, as a code; ``None`` while it runs."""
        return 1 if self._was_started and not self.server.running else None

    def missing(self) -> str:
        """Return "": a started server answers."""
        return ""

    def terminate(self) -> None:
        """Have it sync its append-only file and end."""
        self.server.stop(self.stop_timeout_s)

    def kill(self) -> None:
        """End it at once."""
        self.server.kill()
