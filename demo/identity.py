"""Private files of a state folder: secrets and ports that survive a restart, and ``credentials.json``.

All are JSON, readable for their owner only, and replaced atomically.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

USERNAME = "admin"
SECRET_BYTES = 36
PASSWORD_BYTES = 12


@dataclass(frozen=True, slots=True)
class Identity:
    """Secrets and ports of a folder, made once. Port 0 is not chosen yet; a chosen port is reused while it is free."""

    django_secret_key: str
    payment_secret: str
    admin_password: str
    broker_port: int = 0
    smtp_port: int = 0
    receiver_port: int = 0

    def with_ports(self, *, broker: int, smtp: int, receiver: int) -> Identity:
        """Return a copy with the present ports."""
        return replace(self, broker_port=broker, smtp_port=smtp, receiver_port=receiver)

    def save(self, path: Path) -> None:
        """Write the identity to its file, for the next start."""
        write_private(path, asdict(self))


def load(path: Path) -> Identity:
    """Return the folder's identity; fields that are missing or unusable are generated."""
    kept = read_private(path)
    made = Identity(
        django_secret_key=secrets.token_urlsafe(SECRET_BYTES),
        payment_secret=secrets.token_urlsafe(SECRET_BYTES),
        admin_password=secrets.token_urlsafe(PASSWORD_BYTES),
    )
    usable = {
        field.name: kept[field.name]
        for field in fields(Identity)
        if type(kept.get(field.name)) is type(getattr(made, field.name)) and kept[field.name] != ""
    }
    return replace(made, **usable)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Content of ``credentials.json``; its keys are documented and never change.

    Args:
        url: Root of the site, ending in a slash.
        api_token: Token with the scopes submit, read and operate.
        mail_dir_or_url: Folder of the mails that the sink received.
        pids: Name of a part -> its process id; ``demo`` is the process that owns the others.
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
        """Return a copy with the processes that run now."""
        return replace(self, pids=pids)

    def save(self, path: Path) -> None:
        """Replace ``credentials.json``."""
        write_private(path, asdict(self))


def kept_token(path: Path) -> str:
    """Return the API token of the last start, "" when there was none."""
    token = read_private(path).get("api_token", "")
    return token if isinstance(token, str) else ""


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path`` by JSON that only its owner may read. A crash leaves the old file or the new one."""
    write_private_text(path, json.dumps(content, indent=2) + "\n")


def write_private_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text that only its owner may read. A crash leaves the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_private(path: Path) -> dict[str, Any]:
    """Return the content of a private file; empty when it is missing or cannot be parsed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
