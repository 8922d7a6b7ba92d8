"""The parts of the demo's yard: what each runs, and how it tells that it is ready."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

from demo.environment import Addresses
from demo.errors import DemoError
from demo.manager import ProcessManager
from demo.parts import CommandPart
from demo.readiness import PoolsWatch, answers
from demo.state import StateFolder

SETUP_TIMEOUT_S = 120.0
WEB_GRACE_S = 8.0
POOLS_GRACE_S = 35.0  # the pools' own grace of 25 s, and what they need to kill what outlasts it


class YardParts:
    """Makes the parts.

    Args:
        lock: Descriptor of the state folder's lock, which every process keeps.
    """

    def __init__(
        self, state: StateFolder, environment: Mapping[str, str], addresses: Addresses, pools: PoolsWatch, lock: int
    ) -> None:
        self._state = state
        self._environment = environment
        self._addresses = addresses
        self._pools_watch = pools
        self._lock = lock

    def sidecars(self, smtp: socket.socket, receiver: socket.socket) -> CommandPart:
        """Mailbox and webhook receiver, on sockets that listen already."""
        descriptors = (smtp.fileno(), receiver.fileno())
        part = self._part("sidecars", "-m", "demo.sidecars", *map(str, descriptors), inherits=descriptors)
        part.readiness = answers(self._addresses.receiver_port, "/healthz")
        return part

    def pools(self, *, reload: bool = False) -> CommandPart:
        """Every worker pool; with ``reload`` started again when code changes, for which it is not to be forked."""
        part = self._part("pools", "manage.py", "runpools", *["--reload"] * reload)
        part.readiness = self._pools_watch.missing
        part.stop_timeout_s = POOLS_GRACE_S
        return part

    def scheduler(self) -> CommandPart:
        """The scheduler."""
        return self._part("scheduler", "manage.py", "runscheduler")

    def web(self, listener: socket.socket) -> CommandPart:
        """The web, on a socket that listens already."""
        descriptor = listener.fileno()
        part = self._part("web", "-m", "demo.web", str(descriptor), inherits=(descriptor,))
        part.readiness = answers(self._addresses.web_port, "/readyz")
        part.stop_timeout_s = WEB_GRACE_S
        return part

    def set_up(
        self, manager: ProcessManager, listener: socket.socket, forked: list[CommandPart], *, with_sample: bool
    ) -> dict[str, Any]:
        """Prepare the database and return what :func:`demo.setup.prepare` tells.

        Args:
            listener: The web's socket.
            forked: Parts whose first process is forked from the one that prepares.

        Raises:
            PartFailed: the preparation went wrong.
            Stopped: somebody asked to stop meanwhile.
        """
        for part in forked:
            part.open_log().close()
        options = ["--sample"] * with_sample
        options += ["--fork", ",".join(part.name for part in forked)] if forked else []
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as answer:
            try:
                descriptors = (writer, listener.fileno())
                part = self._part("set-up", "-m", "demo.setup", *map(str, descriptors), *options, inherits=descriptors)
                part.ready_timeout_s = SETUP_TIMEOUT_S
                manager.run(part)
            finally:
                os.close(writer)
            found: dict[str, Any] = json.loads(answer.read() or "{}")
        if not found:
            raise DemoError(f"set-up: it told nothing; its log is {part.log_path}")
        for part in forked:
            part.adopt(found["pids"][part.name])
        return found

    def _part(self, name: str, *arguments: str, inherits: tuple[int, ...] = ()) -> CommandPart:
        return CommandPart(
            name,
            (sys.executable, *arguments),
            self._environment,
            self._state.logs / f"{name}.log",
            inherits=(self._lock, *inherits),
        )
