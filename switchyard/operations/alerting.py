"""Alerts about findings: a person is called for what the overview says, once it has lasted."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from django.db import DatabaseError

from switchyard.alerts.channels import ChannelFailed, ask, channels
from switchyard.alerts.intake import chosen
from switchyard.alerts.notice import sent_as_letters
from switchyard.alerts.sending import CALM_S, GAP_S, LastingAlerts
from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.loggers import get_logger
from switchyard.operations.findings import configuration
from switchyard.operations.findings.examine import DEADLINE_S, KeptFindings
from switchyard.operations.findings.finding import Ranked, causes, explains
from switchyard.operations.overview import FACTS, diagnose

# Seconds for which a finding of the level "bad" must last; and others, which call a person also as warnings.
BAD_AFTER_S = 30.0
AFTER_S = {
    "pools.down": 20.0, "database.locked": 20.0, "database.away": 20.0, "pools.host_gone": 60.0, "queues.late": 60.0,
    "queues.ends_late": 60.0, "queues.burning": 60.0, "queues.all_failing": 60.0, "queues.parked": 60.0,
    "actors.failing": 120.0, "actors.host_down": 120.0, "actors.dependency_down": 120.0, "scheduler.late": 60.0,
    "actors.database_bound": 120.0, "actors.slower": 120.0, "actors.silent": 120.0, "actors.outrun": 120.0,
    "actors.loops": 60.0, "scheduler.down": 5.0, "scheduler.replaced": 60.0, "history.down": 60.0,
    "history.behind": 60.0, "database.connections": 60.0, "disk.low": 60.0, "alerts.channel": 60.0,
    "queues.quarantined": 60.0, "queues.undeclared": 60.0, "pools.child_silent": 120.0,
    "queues.crashing": 60.0, "queues.retrying": 120.0, "actors.later": 120.0, "actors.leaking": 120.0,
    "queues.paused": 900.0, "pools.quieted": 900.0, "pools.paused": 900.0, "pools.crashing": 60.0,
}  # fmt: skip
# The first two have alerts of their own; the others are for whoever deploys, and last until he does.
LEFT_OUT = frozenset({"broker", "dead letters", "configuration", "checks"})
SHOWN = 10
LONGEST_SUBJECT = 80
HEARTBEAT_S, LATELY_S = 60.0, 60.0
# The age from which an examination is repeated while nothing calls, nor is to be resolved: it takes some 70 ms.
CALM_EVERY_S = 13.0

log = get_logger("switchyard.alerts")


class FindingAlerts:
    """Checks of the overview's findings, with an alert for each kind that lasts, however many queues it concerns.

    A queue, pool or actor that joins a kind after people were called has an alert of its own: it is news. Failures
    whose dead letters were sent have none.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasting, self._clock = LastingAlerts("finding", clock), clock
        # Without the configuration: it calls no person, and its checks would load all of the web.
        self._kept = KeptFindings(left_out=[configuration.GROUP.name])
        self._checked_s = self._found_s = -math.inf
        # Name and subject -> first subject of their alert, "" of a kind's first one, and when it was last found.
        self._alerts: dict[tuple[str, str], tuple[str, float]] = {}
        # Queue or pool -> since when something is found of it, whatever its name, and when it last was.
        self._since: dict[str, tuple[float, float]] = {}

    @property
    def checks(self) -> bool:
        """Whether the yard was known, and its findings were checked, within the last minute."""
        return self._clock() - self._checked_s < LATELY_S

    def check(self) -> None:
        """Check once. Nothing is raised or resolved while the yard or the last examination is not known.

        Raises:
            BrokerError, django.db.DatabaseError: the next check retries.
        """
        now_s = self._clock()
        if now_s - self._checked_s < CALM_EVERY_S and now_s - self._found_s > 2 * CALM_S:
            return
        facts, away = FACTS.read()
        examined = self._kept.findings(DEADLINE_S)
        found = diagnose(facts, examined, 0, away).findings
        if facts is None or examined is None or any(each.rank.ends for each in found):
            return
        name = attrgetter("finding.name")
        lasting = [each for each in causes(found) if after_s(each) is not None]
        calling = sorted((each for each in lasting if not self._sent_as_letters(each, found)), key=name)
        self._note_subjects(Counter(each.finding.subject for each in lasting))
        self._lasting.note(
            (fact_of(mine, of), min(self._waits_s(each) for each in mine))
            for named, alike in groupby(calling, name)
            for of, mine in self._by_alert(named, list(alike)).items()
        )
        self._lasting.resolve()
        self._checked_s, self._found_s = now_s, now_s if lasting else self._found_s

    def _note_subjects(self, present: Mapping[str, int]) -> None:
        """Note what is found of each queue or pool; of two findings at once neither is the other under a new name."""
        now_s, known = self._lasting.looked_s, self._since
        self._since = {name: each for name, each in known.items() if now_s - each[1] <= GAP_S}
        for name, count in present.items():
            self._since[name] = self._since[name][0] if name in self._since and name and count == 1 else now_s, now_s

    def _waits_s(self, each: Ranked) -> float:
        """Return after how many seconds a finding calls: at once where others of its subject lasted and none called."""
        after, subject = after_s(each) or 0.0, each.finding.subject
        since_s, at_s = self._since[subject]
        alerts = (fingerprint_of(name, of) for (name, about), (of, _) in self._alerts.items() if about == subject)
        if any(map(self._lasting.has_called, alerts)):
            self._since[subject] = since_s, _ = at_s, at_s
        return 0.0 if at_s - since_s >= after else after

    def _by_alert(self, name: str, alike: Sequence[Ranked]) -> dict[str, list[Ranked]]:
        """Return findings of one name by the alert that calls for them: its first subject, "" of the kind's first."""
        now_s, found = self._lasting.looked_s, dict[str, list[Ranked]]()
        self._alerts = {key: (of, at_s) for key, (of, at_s) in self._alerts.items() if now_s - at_s < CALM_S}
        for each in alike:
            subject = (each.finding.actor or each.finding.subject)[:LONGEST_SUBJECT]
            known = self._alerts.get((name, subject))
            of = known[0] if known else self._joined(name, subject)
            self._alerts[name, subject] = of, now_s
            found.setdefault(of, []).append(each)
        return found

    def _sent_as_letters(self, each: Ranked, found: Sequence[Ranked]) -> bool:
        """Return whether people were sent the dead letters of a finding before it called."""
        name, actor = each.finding.name, each.finding.actor
        told = [each, *(other for other in found if other.finding.actor == actor and explains(each, other))]
        if not actor or not any(one.finding.letters for one in told):
            return False
        subject = actor[:LONGEST_SUBJECT]
        known = self._alerts.get((name, subject))
        if known and self._lasting.has_called(fingerprint_of(name, known[0])):
            return False
        names = list(channels())
        try:
            return not self._lasting.is_open(fingerprint_of(name, subject)) and sent_as_letters(
                actor, chosen(fact_of([each]), names)
            )
        except DatabaseError:
            return False

    def _joined(self, name: str, subject: str) -> str:
        """Return the alert for a new subject: one that has not called yet, else one of its own, as a leader before."""
        if self._lasting.is_open(fingerprint_of(name, subject)):
            return subject
        of_name = ("", *(of for (named, _), (of, _) in self._alerts.items() if named == name))
        return next((of for of in of_name if not self._lasting.has_called(fingerprint_of(name, of))), subject)


def beat(alerts: FindingAlerts) -> None:
    """Call SWITCHYARD_ALERT_HEARTBEAT_URL, if it is set and the findings are checked; a failure is logged.

    Its watcher calls people once no heartbeat comes: when all else is gone. Takes at most 5 s.
    """
    url = switchyard_settings().alert_heartbeat_url
    if not url or not alerts.checks:
        return
    try:
        ask("heartbeat", url, None, {})
    except ChannelFailed as error:
        log.warning("the heartbeat is not accepted", why=error.fact)


def after_s(found: Ranked) -> float | None:
    """Return the seconds that a finding must last before a person is called; ``None``: nobody is."""
    if found.finding.group in LEFT_OUT or found.level not in ("bad", "warn"):
        return None
    rule = declared_yard().alert_rule(found.finding.name)
    after = AFTER_S.get(found.finding.name)
    if found.level == "bad":
        after = min(after or BAD_AFTER_S, BAD_AFTER_S)
    after = rule.after_s if rule is not None and rule.after_s is not None else after
    lasted_s = found.finding.lasted_s
    if after is None or lasted_s is None:
        return after
    return 0.0 if lasted_s >= after else math.inf


def fingerprint_of(name: str, of: str) -> str:
    """Return the fingerprint of a finding's alert; that of the first of a kind names no subject."""
    return f"finding-{name}:{of}" if of else f"finding-{name}"


def fact_of(alike: list[Ranked], of: str = "") -> AlertFact:
    """Return the alert of findings of one name, the worst first; critical if it is bad, or urgent in the table."""
    first = alike[0].finding
    urgent = alike[0].level == "bad" or AFTER_S.get(first.name, math.inf) <= BAD_AFTER_S
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    others = [each.sentence for each in alike[1:SHOWN]]
    lines = [*others, first.cause and f"Cause: {first.cause.removesuffix('.')}.", first.then or f"Next: {first.next}"]
    return AlertFact(
        fingerprint=fingerprint_of(first.name, of),
        kind="finding",
        title=f"{alike[0].sentence}{more}",
        detail="\n".join(line for line in lines if line),
        queue=first.subject if first.group == "queues" and len(alike) == 1 else "",
        severity="critical" if urgent else "warning",
    )
