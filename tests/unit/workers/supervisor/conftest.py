"""Children of a pool without a server and without processes: stand-ins for the parts around them."""

from typing import cast

import pytest

from switchyard.broker.errors import BrokerRefused
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Pool
from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.leases import ChildLeases, Served

SERVED = Served(("work",), (("work", "live"),))
ISOLATED = Served(("work-alone",), (("work", "alone"),))
# As a server refuses where a key is of a wrong type.
REFUSED = BrokerRefused("backlog", "WRONGTYPE Operation against a key holding the wrong kind of value")


class Server:
    """A server that grants every lease and has nothing waiting, or answers everything with an error, if it has one."""

    addon = None

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.lost: list[str] = []
        self.waiting = self.isolated = self.suspects = self.quiet = 0
        self.works: dict[str, str] = {}

    def call(self, operation: object, keys: object, args: list[str], *, budget_s: float = 1.0) -> object:
        self._refuse()
        name = operation.name  # type: ignore[attr-defined]
        if name == "join" and args[2]:
            self.works[args[0]] = args[2]
        if name == "report":
            self.works.update(zip(args[::2], args[1::2], strict=True))
        if name == "renew":
            return [owner.encode() for owner in args[1:] if owner in self.lost]
        return [-1, 0] if name == "reclaim" else []

    def stream(self, operation: object, calls: object, *, budget_s: float) -> object:
        """Answer polls of the backlog."""
        for _ in calls:  # type: ignore[attr-defined]
            self._refuse()
            yield [self.waiting, 0, self.isolated, 0, self.suspects, self.quiet]

    def close(self) -> None:
        """Close nothing."""

    def _refuse(self) -> None:
        if self.error:
            raise self.error


def make_leases(pool: Pool, server: Server) -> ChildLeases:
    """Return the leases of a pool that serves one queue on a stand-in for a server."""
    calls = cast(RedisCalls, server)
    queues = {"work": QueueOperations(calls, Keys().queue("work"))}
    return ChildLeases(pool, SERVED, ISOLATED, queues, calls, cast(JobRecords, None))


def make_children(pool: Pool, server: Server) -> ChildManager:
    return ChildManager(pool, make_leases(pool, server), grace_s=1.0)


def begin(row: ChildRow, id_: bytes = b"id") -> int:
    """Start a message in a child's row, and return its slot."""
    return row.start(0, id_, b"1", 0)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each child that is started a pid of its own and no process."""
    pids = iter(range(100, 200))
    monkeypatch.setattr("switchyard.workers.supervisor.children.start_child", lambda *_, **__: next(pids))
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.wait4", lambda pid, options: (0, 0, None))
