"""The process that harms a yard and keeps its ledger, beside the supervisors of the pools."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import redis

from apps.platform.workers.child.main import MIDDLEWARE_VARIABLE
from apps.platform.workers.shared.fork import EX_CRASHED, fork
from apps.platform.workers.shared.signal_pipe import SignalPipe
from broker.errors import BrokerUnavailable
from broker.keys.keys import Keys
from broker.queue.operations import QueueOperations
from broker.redis.calls import RedisCalls
from broker.redis.connections import connect
from broker.stores.job_records import JobRecords
from broker.stores.pool_reports import PoolReports
from broker.topology import Yard
from devtools.chaos.faults import Harm
from devtools.chaos.ledger import make_account, read_notes
from devtools.chaos.monitor import Witness
from devtools.chaos.notes import NOTES_VARIABLE, Notes
from devtools.chaos.plan import ACTS, Plan

logger = logging.getLogger("switchyard.chaos")

READ_EVERY_S = 0.2


class Chaos:
    """Chaos as the pools' common parent has it: a child process beside the supervisors.

    Args:
        notes: Where children note what they did; removed at the end.
    """

    def __init__(self, plan: Plan, yard: Yard, url: str, notes: Path) -> None:
        self._plan, self._yard, self._url, self._notes = plan, yard, url, notes
        self._pid = 0

    def start(self, close_inherited: Callable[[], None]) -> None:
        """Fork the process, before any child of a pool.

        Args:
            close_inherited: Closes, in that process, what belongs to the parent alone.
        """
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        self._notes.unlink(missing_ok=True)
        os.environ[NOTES_VARIABLE] = str(self._notes)
        os.environ[MIDDLEWARE_VARIABLE] = f"{Notes.__module__}.{Notes.__qualname__}"
        parent_pid = os.getpid()
        self._pid = fork(
            lambda: run(self._plan, self._yard, self._url, self._notes, parent_pid),
            title="chaos",
            shed=[close_inherited],
        )

    def pools_drain(self) -> None:
        """Stop harming, because the pools drain."""
        self._signal(signal.SIGTERM)

    def finish(self) -> None:
        """Have it print the ledger, and wait for it."""
        self._signal(signal.SIGQUIT)
        if self._pid:
            os.waitpid(self._pid, 0)
        self._notes.unlink(missing_ok=True)

    def _signal(self, signum: int) -> None:
        if self._pid:  # not waited for yet, so nobody else has its pid
            os.kill(self._pid, signum)


def run(plan: Plan, yard: Yard, url: str, notes: Path, parent_pid: int) -> int:
    """Harm the pools below a parent until SIGTERM, go on with the ledger until SIGQUIT, and print it."""
    signals = SignalPipe(noted=(signal.SIGTERM, signal.SIGQUIT), ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
    client = connect(url, profile="quick")
    wire = RedisCalls(client)
    families = [QueueOperations(wire, Keys().queue(queue.name)) for queue in yard.queues]
    try:
        witness = Witness(url)
        before = _there(families)
        others = sorted({report.pool for report in PoolReports(client, Keys()).read_all()})  # ours have not started
    except (redis.RedisError, BrokerUnavailable) as error:
        logger.error("no chaos: the server does not show what is enqueued, so there would be no ledger: %s", error)
        return EX_CRASHED
    draws = plan.draws()
    harm = Harm(parent_pid, families, client, draws)
    done: Counter[str] = Counter()
    calm, gap = False, False
    act_at_s = time.monotonic() + draws.expovariate(plan.per_s)
    logger.warning("chaos: %.2g acts a second, --chaos-seed %d", plan.per_s, plan.seed)
    if others:
        logger.warning("chaos: %s", _of_others(others))
    while True:
        select.select([signals.read_fd, witness.fd], [], [], READ_EVERY_S)
        try:
            witness.read()
        except redis.RedisError as error:
            logger.warning("chaos: the server went away (%s); what is enqueued meanwhile is not in the ledger", error)
            gap = True
            witness = _again(witness, url, signals)
        told = signals.take()
        if signal.SIGQUIT in told or os.getppid() != parent_pid:
            break
        calm = calm or signal.SIGTERM in told
        if not calm and time.monotonic() >= act_at_s:
            act_at_s = time.monotonic() + draws.expovariate(plan.per_s)
            _act(harm, draws.choice(ACTS), done)
    witness.read()
    account = make_account(
        attempted=witness.attempted,
        accepted=witness.accepted,
        before=before,
        notes=read_notes(notes),
        families=families,
        records=JobRecords(client, Keys()),
    )
    acts = "  ".join(f"{name} {done[name]}" for name in ACTS)
    warning = "the server was away meanwhile: the ledger has a gap\n" if gap else ""
    warning += f"{_of_others(others)}\n" if others else ""
    sys.stdout.write(f"chaos: {acts}\n{warning}{account}\n")
    return 0


def _act(harm: Harm, name: str, done: Counter[str]) -> None:
    act = {"kill": harm.kill, "cut": harm.cut, "twice": harm.twice}[name]
    try:
        told = act()
    except (redis.RedisError, BrokerUnavailable) as error:
        logger.warning("chaos: %s: the server refused: %s", name, error)
        return
    if told:
        done[name] += 1
        logger.warning("chaos: %s", told)
    else:
        logger.info("chaos: %s: nobody to harm", name)


def _of_others(pools: list[str]) -> str:
    return (
        f"pools that this parent did not start ran as well ({', '.join(pools)}): what they complete counts as lost; "
        "stop them first, those of a demo too"
    )


def _there(families: Iterable[QueueOperations]) -> frozenset[str]:
    """Return the ids of everything that is there already."""
    found: set[str] = set()
    for family in families:
        found.update(str(id_, "utf-8", "replace") for id_ in family.wire.command("HKEYS", family.keys.bodies))
    return frozenset(found)


def _again(witness: Witness, url: str, signals: SignalPipe) -> Witness:
    """Return a witness with what an earlier one saw, once the server is there again."""
    witness.close()
    while True:
        try:
            following = Witness(url)
        except redis.RedisError:
            select.select([signals.read_fd], [], [], 1.0)
            if os.getppid() == 1:
                raise
            continue
        following.attempted, following.accepted = witness.attempted, witness.accepted
        return following
