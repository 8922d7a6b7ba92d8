"""Plain text output: the console for lines, and addresses to open."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from rich.console import Console

from demo.identity import USERNAME
from switchyard.conf import shortened

FILE_WIDTH = 140


def line_console(stream: TextIO) -> Console:
    """Return a console that prints lines unchanged: no markup, highlighting or wrapping.

    Where the stream is no terminal, it is 140 characters wide.
    """
    width = None if stream.isatty() else FILE_WIDTH
    return Console(file=stream, width=width, soft_wrap=True, markup=False, highlight=False)


def addresses_to_open(site: str, credentials: Path, log: Path) -> list[tuple[str, str]]:
    """Return name and address (or path) of each page and file that a user of the demo may open.

    Args:
        site: Root of the web, ending in a slash.
        credentials: File that holds the password.
        log: Log of the pools.
    """
    return [
        ("Operations room", f"{site}   user {USERNAME}, password in {shortened(credentials)}"),
        ("Admin", f"{site}admin/"),
        ("Mailbox", f"{site}admin/mail/mailbox/"),
        ("API and its docs", f"{site}api/v1/docs"),
        ("Metrics", f"{site}metrics"),
        (
            "Commands",
            f". {shortened(credentials.with_name('environment'))}; .venv/bin/python manage.py switchyard doctor",
        ),
        ("Log of the jobs", shortened(log)),
    ]
