"""Parts of the demo's yard: the command of each, and its readiness check."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from demo.addresses import HOST, Addresses
from demo.errors import DemoError
from demo.manager import ProcessManager
from demo.processes import CommandPart
from demo.state import StateFolder
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport, PoolReports
from switchyard.broker.topology import Yard

ANSWER_TIMEOUT_S = 1.0


class PoolsWatch:
    """Reader of the reports that the pools keep in the broker.

    Args:
        broker_url: The demo's broker.
        yard: Declares the pools that must be up.
    """

    def __init__(self, broker_url: str, yard: Yard) -> None:
        self._reports = PoolReports(calls_on(connect(broker_url, profile="quick"), budget_s=1.0), Keys())
        self._yard = yard
        self._since_ms = 0

    def expect_new(self) -> None:
        """Ignore pools that started before now: reports of a killed demo's pools may not have expired yet."""
        self._since_ms = now_ms()

    def read(self) -> list[PoolReport]:
        """Return the newest report of each pool, in the yard's order; none while the broker is down."""
        try:
            reports = [report for report in self._reports.read_all() if report.started_at >= self._since_ms]
        except BrokerError:
            return []
        found = {report.pool: report for report in sorted(reports, key=lambda report: report.started_at)}
        return [found[pool.name] for pool in self._yard.pools if pool.name in found]

    def missing(self) -> str:
        """Return the names of the pools that are not up; "" when all are."""
        up = {report.pool for report in self.read() if report.state == "up"}
        lacking = [pool.name for pool in self._yard.pools if pool.name not in up]
        return f"not up: {', '.join(lacking)}" if lacking else ""


def answers(port: int, path: str) -> Callable[[], str]:
    """Return a readiness check: a GET on loopback must answer 200."""

    def missing() -> str:
        connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"no answer from {path} ({type(error).__name__})"
        finally:
            connection.close()
        return "" if status == http.HTTPStatus.OK else f"{path} answers {status}"

    return missing


SETUP_TIMEOUT_S = 120.0
WEB_GRACE_S = 8.0
# Ctrl-C in development must not wait for a task that is stuck.
# The history writer is a part of its own.
POOLS_ARGUMENTS = ("--grace=5", "--no-history")
POOLS_GRACE_S = 15.0  # the grace, plus the time to kill what outlasts it


class YardParts:
    """Factory of the parts.

    Args:
        lock: Descriptor of the state folder's lock, which every process inherits.
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
        """Return the part of mail sink and webhook receiver, on sockets that already listen."""
        descriptors = (smtp.fileno(), receiver.fileno())
        part = self._part("sidecars", "-m", "demo.servers", "sidecars", *map(str, descriptors), inherits=descriptors)
        part.readiness = answers(self._addresses.receiver_port, "/healthz")
        return part

    def pools(self, *, reload: bool = False) -> CommandPart:
        """Return the worker pools. With ``reload`` they restart when code changes, which a forked process cannot."""
        part = self._part("pools", "manage.py", "runpools", *POOLS_ARGUMENTS, *["--reload"] * reload)
        part.readiness = self._pools_watch.missing
        part.stop_timeout_s = POOLS_GRACE_S
        return part

    def scheduler(self) -> CommandPart:
        """Return the scheduler."""
        return self._part("scheduler", "manage.py", "runscheduler")

    def history(self) -> CommandPart:
        """Return the history writer."""
        return self._part("history", "manage.py", "runhistory")

    def web(self, listener: socket.socket) -> CommandPart:
        """Return the part of the web server, on a socket that already listens."""
        descriptor = listener.fileno()
        part = self._part("web", "-m", "demo.servers", "web", str(descriptor), inherits=(descriptor,))
        part.readiness = answers(self._addresses.web_port, "/readyz")
        part.stop_timeout_s = WEB_GRACE_S
        return part

    def set_up(
        self, manager: ProcessManager, listener: socket.socket, forked: list[CommandPart], *, with_sample: bool
    ) -> dict[str, Any]:
        """Run ``demo.setup`` and return its answer: that of :func:`demo.setup.prepare` and ``pids``.

        Args:
            listener: Socket of the web.
            forked: Parts whose first process set-up forks.

        Raises:
            PartFailed: set-up failed.
            Stopped: a stop was requested meanwhile.
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
            raise DemoError(f"set-up: it ended without a result; its log is {part.log_path}")
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
