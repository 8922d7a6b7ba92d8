"""Faults injected into a yard: kill a child, cut its connections, deliver a held message twice."""

from __future__ import annotations

import logging
import random
import re
import signal
from collections.abc import Callable, Sequence
from typing import cast

import psutil
import redis

from devtools.attempts import client_name
from switchyard.broker.queue.operations import QueueOperations, lane_of

# Process titles of supervisors and children, to tell them from processes that tasks have started.
SUPERVISOR, CHILD = re.compile(r"pool \S+"), re.compile(r"\S+ (child|alone) \d+")

logger = logging.getLogger("switchyard.chaos")


class FaultInjector:
    """Injector of faults into the pools below one parent process.

    Args:
        parent_pid: Process id of the common parent of all supervisors.
        queues: Operations of all queues, over connections with short timeouts.
        draws: Generator that chooses the targets.
    """

    def __init__(
        self, parent_pid: int, queues: Sequence[QueueOperations], client: redis.Redis, draws: random.Random
    ) -> None:
        self._parent_pid = parent_pid
        self._queues = list(queues)
        self._client = client
        self._draws = draws

    @property
    def faults(self) -> dict[str, Callable[[], str]]:
        """Name of a fault -> function that injects it."""
        return {"kill": self.kill, "cut": self.cut, "twice": self.deliver_twice}

    def kill(self) -> str:
        """Kill a child; return a description, or "" when no child is up.

        Raises:
            redis.RedisError: the server refuses the command, or does not answer.
        """
        children = list(self._connected())
        if not children:
            return ""
        victim = self._draws.choice(children)
        name = _name(victim)
        victim.send_signal(signal.SIGKILL)
        return f"killed {name} (pid {victim.pid})"

    def cut(self) -> str:
        """Cut a child's connections to the broker; return a description, or "" when no child has one.

        Raises:
            redis.RedisError: the server refuses the command, or does not answer.
        """
        connected = self._connected()
        if not connected:
            return ""
        victim = self._draws.choice(list(connected))
        cut = sum(int(self._client.client_kill_filter(_id=id_)) for id_ in connected[victim])
        return f"cut {cut} connections of {_name(victim)} (pid {victim.pid})"

    def deliver_twice(self) -> str:
        """Deliver a message that a child holds once more; return a description, or "" when none is held.

        The message's id is pushed into its lane, where another child of the lane fetches it. Without another child,
        the holder's leases are reclaimed while it runs, as after a partition, and its supervisor replaces it.
        """
        supervisors = {process.pid for process in self._supervisors()}
        held = [
            (queue, owner, leases)
            for queue in self._queues
            for owner in queue.owners()
            if _supervisor_of(owner) in supervisors and lane_of(owner) != "alone" and (leases := queue.held(owner))
        ]
        if not held:
            return ""
        queue, owner, leases = self._draws.choice(held)
        lane, name = lane_of(owner), queue.keys.queue
        others = [
            other for other in queue.owners() if other != owner and lane_of(other) == lane and _supervisor_of(other)
        ]
        if not others:
            queue.reclaim(owner)
            return f"took {len(leases)} messages of {name} from {owner}, which runs on"
        lease = self._draws.choice(leases)
        queue.calls.command("LPUSH", queue.keys.waiting(lane)[1], lease.id)
        queue.notify(lane)
        return f"put {lease.id.decode(errors='replace')} of {name} there once more, {owner} holds it"

    def _supervisors(self) -> list[psutil.Process]:
        return self._titled(SUPERVISOR)

    def _connected(self) -> dict[psutil.Process, list[str]]:
        """Return child -> the server's ids of its connections, for the children that are up.

        Children that are still starting are spared: a pool delays the restart of children that die at start.
        """
        clients = cast("list[dict[str, str]]", self._client.client_list())
        found = {
            child: [client["id"] for client in clients if client["name"] == client_name(child.pid)]
            for child in self._titled(CHILD)
        }
        return {child: ids for child, ids in found.items() if ids}

    def _titled(self, title: re.Pattern[str]) -> list[psutil.Process]:
        try:
            below = psutil.Process(self._parent_pid).children(recursive=True)
        except psutil.Error:
            return []
        return sorted((one for one in below if title.fullmatch(_name(one))), key=lambda process: process.pid)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip().removeprefix("switchyard: ")
    except psutil.Error:
        return "a child"


def _supervisor_of(owner: str) -> int:
    """Return the pid in a child's owner name, ``pool.host.pid.random.place.generation/lane``; 0 for other owners."""
    parts = owner.rpartition("/")[0].split(".")
    return int(parts[-4]) if len(parts) > 5 and all(part.isdigit() for part in (*parts[-2:], parts[-4])) else 0
