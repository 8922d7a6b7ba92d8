"""Errors that prevent the demo's start or stop the demo."""

from __future__ import annotations

from pathlib import Path

from switchyard.broker.errors import SwitchyardError


class DemoError(SwitchyardError):
    """Error that stops the demo with exit code 1 and this message."""


class PartFailed(DemoError):
    """A part did not start or did not become ready."""

    def __init__(self, part: str, fact: str, log: Path, last_lines: str) -> None:
        said = "".join(f"\n    {line}" for line in last_lines.splitlines())
        super().__init__(f"{part}: {fact}; its log is {log}" + (f" and ends with:{said}" if said else " and is empty"))


class PortTaken(DemoError):
    """The chosen port cannot be bound."""

    def __init__(self, port: int, cause: str) -> None:
        super().__init__(f"port {port}: {cause}; choose another with --port, or give none")


class StateUnusable(DemoError):
    """The state folder is used by another demo, or cannot be written to."""

    def __init__(self, folder: Path, fact: str) -> None:
        super().__init__(f"state folder {folder}: {fact}")


class Stopped(DemoError):
    """A stop was requested before the demo was ready."""
