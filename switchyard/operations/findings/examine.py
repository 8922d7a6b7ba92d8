"""Execution of all checks, one group after the other, within ten seconds even when servers do not answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from switchyard.operations.findings import (
    absent_pools,
    actors,
    alerts,
    configuration,
    database,
    dead_letters,
    disk,
    held,
    history,
    lateness,
    pools,
    queues,
    scheduler,
    snapshot,
)
from switchyard.operations.findings.facts import facts_of_snapshot
from switchyard.operations.findings.failures import SERVERS, findings_of, found_by, hangs, run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup
from switchyard.operations.findings.servers.causes import GROUP as BROKER
from switchyard.operations.findings.servers.look import look_at_addons, look_at_sentinels, look_at_servers
from switchyard.operations.timeouts import NoAnswer, TimedCall

DEADLINE_S = 2.0
WHOLE_S = 9.0
# A busy machine answers late: a server is called unanswering after so long, and others' checks are left out until then.
UNANSWERED_S = 4.0
# A bucket's own client gives up within 2 s, once it is loaded, and says why.
PATIENT = (*SERVERS, disk.STORAGE.name)
# The overview reads again and again, and can wait for longer before it says so; what was said before stays until then.
HANGS_S, ABANDONED_S, LOOK_AFTER_S = 10.0, 30.0, 0.2
MOST_ABANDONED = 1  # a thread each: a check that hangs for hours costs two
# The overview asks for the findings every 2 s, and repeats cheap and urgent checks more often than others.
SOON_S, SELDOM_S, RARELY_S = 3.0, 15.0, 120.0
# Nothing is told of a check that is due for so long: two examinations, each as long as one may take.
FORGOTTEN_S = 2 * WHOLE_S
# Codes of findings after which the other checks of a server are skipped -> the reason.
AWAY = {
    "away": "does not answer",
    "hangs": "does not answer",
    "refused": "takes no connection of ours",
    "bounced": "is behind a bouncer that refuses us",
    "broken": "was not understood",
    "unmigrated": "lacks its tables",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A function that checks one subject.

    Args:
        needs: Group of the server without which it cannot run.
        every_s: Age from which the overview repeats it.
    """

    group: FindingGroup
    look: Callable[[], Iterable[Finding]]
    every_s: float
    needs: FindingGroup | None = None


@dataclass
class Examination:
    """Findings so far. Groups run in sequence, so that the work of one does not slow the measurements of another."""

    findings: list[Finding] = field(default_factory=list)
    _ends: float = field(default_factory=lambda: time.monotonic() + WHOLE_S)

    def look(self, check: Check) -> list[Finding]:
        """Run a check, unless the server it needs did not answer, and return its findings."""
        found = self.without(check)
        if not found:
            longest_s = UNANSWERED_S if check.group.name in PATIENT else DEADLINE_S
            left_s = self._ends - time.monotonic()
            if left_s > DEADLINE_S / 2:
                found = self._run(check, min(longest_s, left_s))
            else:
                found = [check.group.skipped("not_checked", f"not checked: other checks took {WHOLE_S:g} s")]
        self.findings += found
        return found

    def _run(self, check: Check, deadline_s: float) -> list[Finding]:
        """Run a check; a server that does not answer at once is asked twice."""
        began_s = time.monotonic()
        found = run_checks(check.group, check.look, deadline_s)
        quick = time.monotonic() - began_s < DEADLINE_S
        if quick and check.group.name in SERVERS and any(one.code == "hangs" for one in found):
            found = run_checks(check.group, check.look, DEADLINE_S)
        return found

    def without(self, check: Check) -> list[Finding]:
        """Return the finding for a check whose server is known not to answer; none for one that can run."""
        if check.needs and (why := self._away(check.needs)):
            return [check.group.skipped("not_checked", f"not checked: the {check.needs.name} {why}")]
        return []

    def _away(self, group: FindingGroup) -> str:
        """Return why the server of a group cannot be checked, "" when it can."""
        codes = {found.code for found in self.findings if found.group == group.name}
        return next((why for code, why in AWAY.items() if code in codes), "")


def examine() -> list[Finding]:
    """Run every check and return the findings."""
    examination = Examination()
    for check in checks():
        examination.look(check)
    return examination.findings


class KeptCheck:
    """A check that is asked again and again; that it has no answer is a finding only after ``HANGS_S``."""

    def __init__(self, check: Check, clock: Callable[[], float]) -> None:
        self._check, self._clock = check, clock
        self._answer: Future[list[Finding]] | None = None
        self._abandoned: list[Future[list[Finding]]] = []
        self._asked_s = 0.0
        self._unanswered_s: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it had no answer when it was last asked."""
        return self._unanswered_s is not None

    def ask(self) -> list[Finding] | None:
        """Return what it finds; ``None`` while it has no answer, and after ``HANGS_S`` the finding of that."""
        answer = self._pending()
        wait([answer], LOOK_AFTER_S if self.waits else DEADLINE_S)
        if answer.done():
            self._answer = self._unanswered_s = None
            return findings_of(self._check.group, answer.result)
        if self._unanswered_s is None:
            self._unanswered_s = self._asked_s
        late_s = self._clock() - self._unanswered_s
        return [hangs(self._check.group, late_s)] if late_s > HANGS_S else None

    def _pending(self) -> Future[list[Finding]]:
        """Return the answer that is waited for; a new one after ``ABANDONED_S``, which finds a server that is back."""
        if self._answer is not None and self._clock() - self._asked_s > ABANDONED_S:
            self._abandoned = [answer for answer in self._abandoned if not answer.done()]
            if self._answer.done():
                self._answer = self._unanswered_s = None
            elif len(self._abandoned) < MOST_ABANDONED:
                self._abandoned.append(self._answer)
                self._answer = None
        if self._answer is None:
            self._answer, self._asked_s = Future(), self._clock()
            threading.Thread(
                target=_look, args=(self._check.look, self._answer), name=f"check {self._check.group.name}", daemon=True
            ).start()
        return self._answer


def _look(look: Callable[[], Iterable[Finding]], answer: Future[list[Finding]]) -> None:
    try:
        answer.set_result(found_by(look))
    except Exception as error:  # noqa: BLE001  raised where it is read
        answer.set_exception(error)


class KeptFindings:
    """Findings of this process's last examination, each check repeated once it is older than it may be."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[int, tuple[float, list[Finding]]] = {}
        self._checks: dict[int, KeptCheck] = {}
        self._call = TimedCall("examination", self._repeat)

    def findings(self, wait_s: float = 0.3) -> list[Finding] | None:
        """Return the findings; ``None`` before the first examination has ended, and after a time without any.

        Args:
            wait_s: Longest wait for checks that are due; one that takes longer is found by the next call.
        """
        if self._due():
            with contextlib.suppress(NoAnswer):
                self._call.result(DEADLINE_S if self._known() is None else wait_s)
        return self._known()

    def clear(self) -> None:
        """Forget every finding."""
        self._kept.clear()
        self._checks.clear()

    def _known(self) -> list[Finding] | None:
        """Return the findings, unless one is missing or so old that nobody has looked since."""
        now_s, kept, found = self._clock(), dict(self._kept), list[Finding]()
        for at, check in enumerate(checks()):
            if at not in kept or now_s - kept[at][0] > check.every_s + FORGOTTEN_S:
                return None
            found += kept[at][1]
        return found

    def _due(self) -> list[int]:
        now_s = self._clock()
        ages = {at: now_s - self._kept[at][0] if at in self._kept else RARELY_S for at in range(len(checks()))}
        return [at for at, check in enumerate(checks()) if ages[at] >= self._every_s(at, check)]

    def _every_s(self, at: int, check: Check) -> float:
        """Return the age from which a check is repeated: sooner for one that had no answer."""
        unanswered = at in self._checks and self._checks[at].waits
        return min(check.every_s, SOON_S) if unanswered else check.every_s

    def _repeat(self) -> None:
        due = set(self._due())
        examination = Examination()
        late: set[str] = set()
        for at, check in enumerate(checks()):
            # Checks that need a server without an answer wait with it, and are as they were.
            if at in due and (check.needs is None or check.needs.name not in late):
                kept = self._checks.setdefault(at, KeptCheck(check, self._clock))
                found = examination.without(check) or kept.ask()
                if found is None:
                    late.add(check.group.name)
                else:
                    self._kept[at] = self._clock(), found
            examination.findings += self._kept[at][1] if at in self._kept else ()


def _pools_and_queues() -> Iterator[Finding]:
    state = snapshot.read()
    facts = facts_of_snapshot(state)
    yield from pools.look(state)
    yield from absent_pools.look(facts)
    found = [*lateness.look(facts), *held.look(facts), *queues.look(state)]
    yield from found or [queues.on_time(state)]


def checks() -> tuple[Check, ...]:
    """Return every check in the order in which they run: those of a server before those that need it."""
    return (
        Check(configuration.GROUP, configuration.look, RARELY_S),
        Check(disk.GROUP, disk.look, SELDOM_S),
        Check(disk.STORAGE, disk.look_at_storage, SELDOM_S),
        Check(disk.STORAGE, disk.look_at_results, SELDOM_S),
        Check(BROKER, look_at_servers, SELDOM_S),
        Check(BROKER, look_at_sentinels, SELDOM_S),
        Check(BROKER, look_at_addons, SELDOM_S),
        Check(pools.GROUP, _pools_and_queues, SOON_S, needs=BROKER),
        Check(queues.GROUP, queues.look_at_undeclared, SELDOM_S, needs=BROKER),
        Check(queues.GROUP, held.look_at_purges, SOON_S, needs=BROKER),
        Check(scheduler.GROUP, scheduler.look_at_leader, SOON_S, needs=BROKER),
        Check(history.GROUP, history.look, SOON_S, needs=BROKER),
        Check(database.GROUP, database.look, SOON_S),
        Check(database.GROUP, database.look_at_migrations, RARELY_S, needs=database.GROUP),
        Check(scheduler.GROUP, scheduler.look_at_ticks, SELDOM_S, needs=database.GROUP),
        Check(actors.GROUP, actors.look, SOON_S, needs=database.GROUP),
        Check(dead_letters.GROUP, dead_letters.look, SELDOM_S, needs=database.GROUP),
        Check(alerts.GROUP, alerts.look, SOON_S, needs=database.GROUP),
    )


KEPT = KeptFindings()
