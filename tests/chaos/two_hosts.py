"""Two hosts on one yard, and what may happen to one of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dramatiq.message import Message

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.wiring import build_yard
from tests.chaos.hosts import Host
from tests.chaos.hosts_yard.yard import YARD
from tests.chaos.ledger import Account, Ledger, account
from tests.chaos.load import FIRST, QUEUE, Producers, declare_job, enqueue, let_pass
from tests.environment import SERVER
from tests.waiting import wait_for

FAULTS: Final = ("cut", "killed", "ahead", "behind")
WRONG_S: Final = {"ahead": 61, "behind": -61}
CUT_S: Final = 25.0


class TwoHosts:
    """Two hosts on one yard, a broker to send with, and the ledgers of all three.

    Args:
        place: Of :func:`switchyard.wiring.build_yard`; the Valkey of the tests is beside the server at ``place_url``.
    """

    def __init__(self, folder: Path, database_port: int, *, place: Any = None, place_url: str = "") -> None:
        self._folder, self.ledger, self._database_port = folder, Ledger(folder / "ledger"), database_port
        self._place_url = place_url
        self._client = connect(SERVER.url)
        options = {"url": place_url} if place_url else {}
        self.broker: Any = build_yard(YARD, self._client, Keys(), place=place, **options)
        declare_job(self.broker, self.ledger, QUEUE)
        self.hosts: list[Host] = []

    def add(self, *, clock_s: int = 0) -> Host:
        self.hosts.append(
            Host(
                self._folder, len(self.hosts) + 1, clock_s=clock_s, broker_port=SERVER.port,
                database_port=self._database_port, place_url=self._place_url,
            )
        )  # fmt: skip
        return self.hosts[-1]

    def account(self) -> Account:
        """Return the account over all ledgers, and check what no fault may do."""
        ledgers = (self.ledger, *(host.ledger for host in self.hosts))
        found = account(entry for ledger in ledgers for entry in ledger.entries())
        logs = "\n".join(host.log() for host in self.hosts)
        assert (found.lost, found.unexpected, found.dead) == ((), (), ()), f"{found}\n{logs}"
        return found

    def completed(self) -> set[str]:
        return {job for host in self.hosts for job in host.ledger.jobs("completed")}

    def send(self, actor: str, job: str, *, queue: str = QUEUE, delay_ms: int | None = None, **options: Any) -> None:
        message: Message[Any] = Message(queue, actor, (job,), {}, options, job)
        self.ledger.note("attempted", job)
        self.broker.enqueue(message, delay=delay_ms)
        self.ledger.note("accepted", job)

    def reports(self) -> list[PoolReport]:
        return facilities(self.broker).pools.read_all()

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self.broker.close()
        self._client.close()
        self.ledger.close()


def harm(fault: str, host: Host, *, cut_s: float = CUT_S) -> None:
    """Cut a host off for longer than a lease, or kill it; one with a wrong clock is killed as well."""
    if fault == "cut":
        host.cut()
        let_pass(cut_s)
        host.heal()
    else:
        host.kill()


def running_on(host: Host) -> set[str]:
    return set(host.ledger.jobs("started")) - set(host.ledger.jobs("completed"))


def begun_at(host: Host, job: str) -> float:
    """Return when a job began on a host; 0 before."""
    found = host.ledger.of("started", job)
    return found[0].at_s if found else 0.0


def take_over(two: TwoHosts, fault: str, *, wait_until_done: Callable[[], None], cut_s: float = CUT_S) -> list[float]:
    """Harm one of two hosts under load; the other completes everything.

    Returns:
        Seconds after which each job that had run on the harmed host began on the other one, sorted.
    """
    harmed, other = two.add(clock_s=WRONG_S.get(fault, 0)), two.add()
    harmed.start_pool("work")
    taken = [f"long-{number}." for number in range(4)]
    for job in taken:
        enqueue(two.broker, two.ledger, job, 1_500, FIRST)
    wait_for(lambda: set(taken) <= set(harmed.ledger.jobs("started")), what="the jobs run on the first host")
    # Half of the messages wait there when it is harmed.
    other.start_pool("work")
    held = [f"held-{number}." for number in range(8)]
    for job in held:
        enqueue(two.broker, two.ledger, job, 4_000, FIRST)
    for number in range(20):
        enqueue(two.broker, two.ledger, f"later-{number}.", 5, delay_ms=8_000, max_age=60_000)
    producers = Producers(two.broker, two.ledger, per_s=100, threads=2, ms=20, plain=True)
    producers.start()
    producers.wait_for_accepted(300)

    running = running_on(harmed)
    harmed_s = time.monotonic()
    harm(fault, harmed, cut_s=cut_s)
    producers.wait_for_accepted(200)
    wait_for(lambda: {*held, *taken} <= two.completed(), 120, what="what ran there was done elsewhere")
    producers.stop()
    wait_until_done()

    found = two.account()
    moved_s = sorted(at_s - harmed_s for job in running if (at_s := begun_at(other, job)))
    print(
        f"{fault}: {len(found.accepted)} accepted, lost {len(found.lost)}, twice {len(set(found.duplicated))}; "
        f"{len(moved_s)} of {len(running)} that ran there began on the other host after "
        f"{', '.join(f'{s:.1f}' for s in (*moved_s[:1], *moved_s[-1:]))} s"
    )
    assert set(found.duplicated) <= set(harmed.ledger.jobs("started")), "twice only where the other host had begun"
    return moved_s
