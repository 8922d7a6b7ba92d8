"""Real pools whose messages are on RabbitMQ, and an account of the jobs that ran twice there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from tests.addons.rabbitmq.server import RabbitServer
from tests.addons.rabbitmq.yards import build_rabbit_yard
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.load import JOBS_THAT_ARE_DELAYED, JOBS_THAT_FAIL_ONCE, let_pass
from tests.chaos.pools import Pools
from tests.chaos.yard.yards import YARDS

# Workers connect again after 3 s.
AROUND_S = 5.0
STALE_S = 60.0
UNEXPLAINED = "unexplained"
TWO_COPIES = "was moved twice: the copy was enqueued, the original not acknowledged"
MOVED = (JOBS_THAT_FAIL_ONCE, JOBS_THAT_ARE_DELAYED)


class RabbitPools(Pools):
    """Pools of one yard on a RabbitMQ server, with a Valkey beside it.

    Args:
        beside: Address of the Valkey.
    """

    def __init__(self, folder: Path, ledger: Ledger, server: RabbitServer, yard: str, *, beside: str) -> None:
        self._beside = beside
        super().__init__(folder, ledger, server.url, yard)

    def build(self) -> Any:
        return build_rabbit_yard(YARDS[self._yard], connect(self._beside), Keys(), url=self._url)

    def addresses(self, url: str) -> dict[str, str]:
        return {**super().addresses(url), "SWITCHYARD_REDIS_URL": self._beside}

    @property
    def _lanes(self) -> list[str]:
        yard = YARDS[self._yard]
        return [*yard.lanes, *(queue.alone_lane for queue in yard.queues)]

    def empty(self) -> None:
        """Drop what other tests left on the server."""
        for lane in self._lanes:
            self.broker.declare_queue(lane)
            self.broker.flush(lane)

    def left(self) -> int:
        """Return how many messages the server has that nothing holds, rejected ones included."""
        queues = self.broker.server_queues
        return sum(self.broker.count((lane, name) for lane in self._lanes for name in queues.every(lane)))

    def suspects(self) -> list[str]:
        """Return the ids of the lapse suspects."""
        return [id_ for queue in YARDS[self._yard].queues for id_ in self.broker.redeliveries.suspects(queue.name)]


def wait_until_completed(ledger: Ledger, stale_s: float = STALE_S) -> None:
    """Wait until every accepted job has completed.

    Raises:
        AssertionError: none completed for so long.
    """
    left, changed_s = -1, time.monotonic()
    while now_left := len(ledger.account().lost):
        if now_left != left:
            left, changed_s = now_left, time.monotonic()
        assert time.monotonic() - changed_s < stale_s, f"{left} jobs have not completed, none in {stale_s:g} s"
        let_pass(0.5)


def why_twice(ledger: Ledger, faults: Sequence[tuple[float, float]], victims: set[int]) -> Counter[str]:
    """Return why jobs completed more than once, each with a count.

    Args:
        faults: Monotonic time at which each began and ended.
        victims: Processes that were killed.
    """
    return Counter(_reason(ledger, job, faults, victims) for job in set(ledger.account().duplicated))


def _reason(ledger: Ledger, job: str, faults: Sequence[tuple[float, float]], victims: set[int]) -> str:
    """Return why a job completed twice; :data:`UNEXPLAINED` where no fault was near any of its runs but the last."""
    starts, ends = ledger.of("started", job), ledger.of("completed", job)
    runs = sorted([*starts[:-1], *ends[:-1]], key=lambda entry: entry.at_s)
    began_s, ended_s = next((fault for fault in faults if _near(runs, *fault)), (0.0, 0.0))
    [accepted] = ledger.of("accepted", job) or ledger.of("attempted", job)
    if not ended_s and job.endswith(MOVED) and any(accepted.at_s < ended_s < starts[0].at_s for _, ended_s in faults):
        return TWO_COPIES  # behind a backlog
    if not ended_s:
        return f"{UNEXPLAINED}: {[(run.phase, run.pid, round(run.at_s - faults[0][0], 2)) for run in [*starts, *ends]]}"
    if any(end.pid in victims and end.at_s <= began_s for end in ends):
        return "had ended in a killed process, which was not noted"
    if any(end.at_s <= began_s for end in ends):
        return "had ended, and its acknowledgement was lost"
    pids = {end.pid for end in ends}
    if any(start.at_s < began_s and start.pid in pids for start in starts):
        return "ran on while another worker got it"
    return TWO_COPIES


def _near(runs: Sequence[Entry], began_s: float, ended_s: float) -> bool:
    """Whether a run began or ended around a fault, or lasted over it."""
    around = any(began_s - AROUND_S <= entry.at_s <= ended_s + AROUND_S for entry in runs)
    return around or (runs[0].at_s < began_s and runs[-1].at_s > ended_s)
