"""Command line of ``bin/demo``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from project.config import BASE_DIR

DEFAULT_PORT = 8000
DESCRIPTION = """\
Starts the whole yard on this machine: Valkey, worker pools, scheduler, web, a mailbox and a webhook receiver;
sends real work through it and shows its progress. Ctrl-C stops it: it drains, and keeps its data."""


@dataclass(frozen=True, slots=True)
class Options:
    """Parsed command line.

    Args:
        port: Web port; ``None`` takes 8000, or the next that is free.
        state: Folder that keeps everything.
        sample: Send the sample work.
        reload: Start the pools again when a Python file of the project changes.
        check: Verify every outcome in a throw-away folder, then stop.
    """

    port: int | None
    state: Path
    sample: bool
    reload: bool
    check: bool


def parse(argv: Sequence[str]) -> Options:
    """Parse the command line; print usage and exit with 2 when it is invalid."""
    parser = argparse.ArgumentParser(
        prog="bin/demo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=_port, help=f"web port (default {DEFAULT_PORT}, or the next that is free)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder that keeps everything (default var/)")
    parser.add_argument("--no-sample", action="store_true", help="start without sending the sample work")
    parser.add_argument(
        "--reload", action="store_true", help="drain the pools and start them again when a Python file changes"
    )
    parser.add_argument(
        "--check", action="store_true", help="send the sample work in a throw-away folder, verify every outcome, stop"
    )
    found = parser.parse_args(argv)
    if found.check and (found.state or found.port or found.no_sample or found.reload):
        parser.error("--check uses its own folder and ports and needs the sample work; give it alone")
    return Options(
        port=found.port,
        state=(found.state or BASE_DIR / "var").resolve(),
        sample=not found.no_sample,
        reload=found.reload,
        check=found.check,
    )


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)
