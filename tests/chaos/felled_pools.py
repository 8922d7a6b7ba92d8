"""A message that ends its container, and a host that is killed again and again, on any broker."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Sequence

from switchyard.broker.interface import facilities
from switchyard.broker.shapes import DeadLetter
from tests.chaos.ledger import Account, Ledger
from tests.chaos.load import QUEUE, enqueue
from tests.chaos.pools import Pools, RunningPool
from tests.waiting import wait_for

BRIEF, USUAL = "tests.chaos.yard.brief_leases", "tests.chaos.yard.settings"
MOST_ROUNDS = 6


class Host:
    """A host that starts its container again whenever its processes have ended, and counts the kills."""

    def __init__(self, pools: Pools, settings: str) -> None:
        self._pools, self._settings = pools, settings
        self.rounds, self.failed_starts = 0, list[str]()
        self.pool = self._start()

    def restart_if_gone(self) -> bool:
        """Start the pool again if it has ended, and return whether it runs still."""
        if self.pool.process.poll() is None:
            return True
        if self.pool.process.returncode == -signal.SIGKILL:
            self.rounds += 1
        else:
            self.failed_starts.append(self.pool.log()[-2_000:])
        self.pool = self._start()
        return False

    def kill(self) -> None:
        self.pool.signal_all(signal.SIGKILL)
        self.pool.process.wait()
        self.pool = self._start()

    def _start(self) -> RunningPool:
        return self._pools.start("runpool", "work", settings=self._settings, ready=False)


def fell_until_buried(
    pools: Pools, ledger: Ledger, *, ms: int, neighbours: int, settings: str, wait_until_done: Callable[[], None]
) -> None:
    """Run a message that ends its container among neighbours; only it becomes a dead letter, after six rounds.

    Args:
        ms: Milliseconds that it runs before.
    """
    transport = facilities(pools.broker).transport
    for number in range(neighbours):
        enqueue(pools.broker, ledger, f"good-{number}.", 20)
        if number == neighbours // 2:
            enqueue(pools.broker, ledger, "pill", ms, "fell")
    host = Host(pools, settings)

    def buried() -> Sequence[DeadLetter]:
        host.restart_if_gone()
        return transport.dead_letters(QUEUE).items

    [letter] = wait_for(buried, 500, what="a dead letter")
    ledger.note("buried", letter.id)
    wait_until_done()

    found, felled = ledger.account(), len(ledger.of("started", "pill"))
    print(f"{host.rounds} rounds, {felled} starts of the pill")
    assert (found.dead, found.lost, found.unexpected) == (("pill",), (), ())
    assert (letter.id, letter.reason) == ("pill", "suspected_poison")
    assert felled == host.rounds <= MOST_ROUNDS, (felled, host.rounds, host.failed_starts)
    assert f"on {socket.gethostname()}" in letter.error
    times = re.findall(r"found expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, on host (\S+)", letter.traceback)
    assert times == [socket.gethostname()] * 5


def kill_five_times(
    pools: Pools, ledger: Ledger, *, jobs: int, ms: int, settings: str, wait_until_done: Callable[[], None]
) -> Account:
    """Run jobs on a host that is killed five times; no message is blamed, all complete."""
    host = Host(pools, settings)
    for number in range(jobs):
        enqueue(pools.broker, ledger, f"good-{number}.", ms)
    for _ in range(5):
        started = len(ledger.jobs("started"))
        wait_for(lambda: len(ledger.jobs("started")) > started, 120, what="more jobs started")  # noqa: B023
        host.kill()

    wait_until_done()

    found = ledger.account()
    assert facilities(pools.broker).transport.stats(QUEUE).dead == 0
    assert (found.lost, found.unexpected, len(found.completed)) == ((), (), jobs)
    return found
