"""Addresses of the demo's parts: listening sockets on loopback, and the environment that names them to every process.

The demo opens the sockets and its parts inherit them, so no port is lost between finding and binding it.
"""

import errno
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from demo.state import DemoError, Identity, StateFolder

HOST = "127.0.0.1"
BACKLOG = 512
NEXT_PORTS = 100
# Delays of retries are divided by this: 5 retries over 3 h 47 min to 7 h 36 min take 9 s to 19 s.
RETRY_SPEED = 1_500

# Settings that the caller made for another yard are kept out of the demo.
REMOVED_PREFIXES = ("SWITCHYARD_", "DJANGO_")
REMOVED_NAMES = ("DATABASE_URL", "PROMETHEUS_MULTIPROC_DIR")
ALERT_MAILBOX = "operations@switchyard.example"


class PortTaken(DemoError):
    """The chosen port cannot be bound."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on exactly this port; 0 is any free one.

    Raises:
        PortTaken: another program uses the port, or this user may not bind it.
    """
    try:
        return socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            cause = os.strerror(error.errno).lower()
            raise PortTaken(f"port {port}: {cause}; choose another with --port, or give none") from error
        raise


def listen_near(port: int, next_ports: int = NEXT_PORTS) -> socket.socket:
    """Return a socket that listens on this port, the first free one of those above it, or any; 0 is any."""
    for candidate in range(port, min(port + next_ports, 65536) if port else 0):
        try:
            return listen(candidate)
        except PortTaken:
            continue
    return listen(0)


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def free_again(port: int) -> int:
    """Return ``port`` if it is free now, else 0: a server that cannot inherit a socket then chooses its own port."""
    try:
        listen(port).close()
    except PortTaken:
        return 0
    return port


@dataclass(frozen=True, slots=True)
class Addresses:
    """Ports of the parts, and the broker's URL."""

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


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(REMOVED_PREFIXES) and name not in REMOVED_NAMES
    }


def settings_for(state: StateFolder, identity: Identity, addresses: Addresses) -> dict[str, str]:
    """Return the variables that make the project's settings those of the demo."""
    return {
        "DJANGO_SETTINGS_MODULE": "demo.settings",
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
        # The same footprint on every machine.
        "SWITCHYARD_CORES": "2",
    }


def as_exports(settings: Mapping[str, str]) -> str:
    """Return variables as shell lines, so that a program elsewhere reaches the demo: ``. var/environment``."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()))


def database_url(state: StateFolder) -> str:
    return f"sqlite:///{state.database}"
