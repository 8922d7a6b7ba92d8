"""The addresses a person opens."""

from __future__ import annotations

from pathlib import Path


def to_open(site: str, username: str, credentials: Path) -> list[tuple[str, str]]:
    """Return name and address (or place) of everything worth opening.

    Args:
        site: Root of the web, ending in a slash.
    """
    return [
        ("Operations room", f"{site}   user {username}, password in {shown(credentials)}"),
        ("Admin", f"{site}admin/"),
        ("Mailbox", f"{site}admin/mail/mailbox/"),
        ("API and its docs", f"{site}api/v1/docs"),
        ("Metrics", f"{site}metrics"),
    ]


def shown(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
