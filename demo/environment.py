"""The environment of every process that the demo starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from demo.identity import Identity
from demo.ports import HOST
from demo.state import StateFolder

# What the caller has set for a yard of their own must not leak into the demo.
OURS = ("SWITCHYARD_", "DJANGO_")
OURS_EXACTLY = ("DATABASE_URL", "PROMETHEUS_MULTIPROC_DIR")
ALERT_MAILBOX = "operations@switchyard.example"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts listen."""

    web_port: int
    smtp_port: int
    receiver_port: int
    broker_url: str

    @property
    def site(self) -> str:
        """Root of the web, ending in a slash."""
        return f"http://{HOST}:{self.web_port}/"

    @property
    def receiver(self) -> str:
        """Root of the webhook receiver, without a slash at the end."""
        return f"http://{HOST}:{self.receiver_port}"


def for_children(
    state: StateFolder, identity: Identity, addresses: Addresses, base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the whole environment of the demo's processes, built on ``base`` without its Switchyard settings."""
    environment = {
        name: value for name, value in base.items() if not name.startswith(OURS) and name not in OURS_EXACTLY
    }
    return environment | {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DJANGO_DEBUG": "1",
        "DJANGO_SECRET_KEY": identity.django_secret_key,
        "DATABASE_URL": database_url(state),
        "PROMETHEUS_MULTIPROC_DIR": str(state.metrics),
        "SWITCHYARD_STATE_DIR": str(state.root),
        "SWITCHYARD_BROKER_URL": addresses.broker_url,
        "SWITCHYARD_STORAGE_URL": f"file://{state.media}",
        "SWITCHYARD_SMTP_URL": f"smtp://{HOST}:{addresses.smtp_port}",
        "SWITCHYARD_PUBLIC_URL": addresses.site.rstrip("/"),
        "SWITCHYARD_PAYMENT_SECRET": identity.payment_secret,
        "SWITCHYARD_ALERT_URLS": f"log: mailto:{ALERT_MAILBOX}",
        "SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": f"{HOST}:{addresses.receiver_port}",
        "SWITCHYARD_LOG_FORMAT": "console",
        "PYTHONUNBUFFERED": "1",
        # Threads of the C library keep freed memory in arenas of their own; two are enough for any part.
        "MALLOC_ARENA_MAX": "2",
    }


def database_url(state: StateFolder) -> str:
    """Return the URL of the demo's SQLite database."""
    return f"sqlite:///{state.database}"
