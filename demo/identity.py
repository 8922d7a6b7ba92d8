"""What a state folder keeps over restarts: secrets and ports."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from demo.private_files import read_private, write_private

SECRET_BYTES = 36
PASSWORD_BYTES = 12


@dataclass(frozen=True, slots=True)
class Identity:
    """Made once for a folder. A port of 0 was not chosen yet; ports are kept where they are still free."""

    django_secret_key: str
    payment_secret: str
    admin_password: str
    broker_port: int = 0
    smtp_port: int = 0
    receiver_port: int = 0

    def with_ports(self, *, broker: int, smtp: int, receiver: int) -> Identity:
        """Return the same identity with the ports that are used now."""
        return replace(self, broker_port=broker, smtp_port=smtp, receiver_port=receiver)

    def save(self, path: Path) -> None:
        """Keep it for the next start."""
        write_private(path, asdict(self))


def load(path: Path) -> Identity:
    """Return the folder's identity; what is missing or unusable is made anew."""
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
