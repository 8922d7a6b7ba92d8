"""What is done to a yard: a child is killed, its connections are cut, a message that is held is delivered again."""

from __future__ import annotations

import logging
import random
import re
import signal
from collections.abc import Sequence
from typing import cast

import psutil
import redis

from broker.queue.operations import QueueOperations, lane_of
from devtools.chaos.notes import client_name

# Titles of processes; tasks may have started others.
SUPERVISOR, CHILD = re.compile(r"pool \S+"), re.compile(r"\S+ (child|alone) \d+")

logger = logging.getLogger("switchyard.chaos")


class Harm:
    """Harms the pools below a process.

    Args:
        parent_pid: Of the common parent of all supervisors.
        families: Of all queues, over connections that answer soon.
    """

    def __init__(
        self, parent_pid: int, families: Sequence[QueueOperations], client: redis.Redis, draws: random.Random
    ) -> None:
        self._parent_pid = parent_pid
        self._families = list(families)
        self._client = client
        self._draws = draws

    def kill(self) -> str:
        """Kill a child; return what was done, or "" when there was none.

        Raises:
            redis.RedisError: the server does not let us, or is away.
        """
        children = list(self._connected())
        if not children:
            return ""
        victim = self._draws.choice(children)
        name = _name(victim)
        victim.send_signal(signal.SIGKILL)
        return f"killed {name} (pid {victim.pid})"

    def cut(self) -> str:
        """Cut a child's connections to the broker; return what was done, or "" when none had one.

        Raises:
            redis.RedisError: the server does not let us, or is away.
        """
        connected = self._connected()
        if not connected:
            return ""
        victim = self._draws.choice(list(connected))
        cut = sum(int(self._client.client_kill_filter(_id=id_)) for id_ in connected[victim])
        return f"cut {cut} connections of {_name(victim)} (pid {victim.pid})"

    def twice(self) -> str:
        """Deliver a message that a child holds once more; return what was done, or "" when nothing was held.

        Another child of the lane finds its id as if somebody had put it there by hand. Where there is none, the holder
        loses all that it holds while it runs, as after a partition: its supervisor replaces it.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        supervisors = {process.pid for process in self._supervisors()}
        held = [
            (family, owner, leases)
            for family in self._families
            for owner in family.owners()
            if _supervisor_of(owner) in supervisors and lane_of(owner) != "alone" and (leases := family.held(owner))
        ]
        if not held:
            return ""
        family, owner, leases = self._draws.choice(held)
        lane, queue = lane_of(owner), family.keys.queue
        others = [
            other for other in family.owners() if other != owner and lane_of(other) == lane and _supervisor_of(other)
        ]
        if not others:
            family.reclaim(owner)
            return f"took {len(leases)} messages of {queue} from {owner}, which runs on"
        lease = self._draws.choice(leases)
        family.wire.command("LPUSH", family.keys.waiting(lane)[1], lease.id)
        family.ring(lane)
        return f"put {lease.id.decode(errors='replace')} of {queue} there once more, {owner} holds it"

    def _supervisors(self) -> list[psutil.Process]:
        return self._titled(SUPERVISOR)

    def _connected(self) -> dict[psutil.Process, list[str]]:
        """Return the children that are up, with the server's ids of their connections.

        One that starts is spared: a pool whose children die before they work starts them later and later.
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
    """Return the pid in the name of a child's owner, ``pool.host.pid.random.place.generation/lane``; 0 for others."""
    words = owner.rpartition("/")[0].split(".")
    return int(words[-4]) if len(words) > 5 and all(word.isdigit() for word in (*words[-2:], words[-4])) else 0
