"""``credentials.json``: the addresses and passwords of a running demo, for people and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from demo.private_files import read_private, write_private


@dataclass(frozen=True, slots=True)
class Credentials:
    """The file's content; its keys are promised in the documentation and never change.

    Args:
        url: Root of the site, ending in a slash.
        api_token: May submit, read and operate.
        mail_dir_or_url: Folder that holds the mails the sink received.
        pids: Name of a part -> its process; ``demo`` is the process that owns the others.
    """

    url: str
    username: str
    password: str
    api_token: str
    broker_url: str
    database_url: str
    mail_dir_or_url: str
    pids: dict[str, int]

    def with_pids(self, pids: dict[str, int]) -> Credentials:
        """Return the same with the processes that run now."""
        return replace(self, pids=pids)

    def save(self, path: Path) -> None:
        """Replace the file, readable for its owner only."""
        write_private(path, asdict(self))


def kept_token(path: Path) -> str:
    """Return the API token of the last start, "" when there was none."""
    token = read_private(path).get("api_token", "")
    return token if isinstance(token, str) else ""
