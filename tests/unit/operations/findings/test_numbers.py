"""Each sentence with a number is right for one and for two."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from switchyard.broker.clock import now_ms
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.operations.diagnosis import diagnose
from switchyard.operations.findings import pools, queues
from switchyard.operations.findings.actors import FailingActor, judge
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.snapshot import QueueFacts, Snapshot
from tests.unit.operations.yards import down, facts, lane, pool, running, state

pytestmark = pytest.mark.usefixtures("small_yard")


def of_queues(count: int) -> list[Finding]:
    """Return what is found of a queue that has so many of everything, and of the pools."""
    many = {f"id-{number}": 3 for number in range(count)}
    stats = QueueStats("mail", lane("mail", count), lane("mail-retry"), 0, quarantined=count, parked=count)
    expired = dict.fromkeys(many, 60.0)
    known = QueueFacts(stats, expired, count, many, dict.fromkeys(many, "crash"), many, ("from_the_future",))
    calm = QueueFacts(QueueStats("hooks", lane("hooks"), lane("hooks-retry"), 0, 0), {}, 0, {}, {}, {}, ())
    now = now_ms()
    report = PoolReport("mail", "h", 7, "threads", count, 0, now - 90_000, now, "up")
    snapshot = Snapshot(now, {"mail": known, "hooks": calm}, [report, replace(report, state="starting")], [])
    return [*pools.look(snapshot), *queues.look(snapshot), queues.on_time(snapshot)]


def said(*of_pools: Any, waiting: int, paused: bool = False, dead: int = 0) -> list[str]:
    """Return what the overview says of a queue in which jobs wait."""
    live = lane("mail", waiting, running=4, age_ms=41_000)
    jobs = [running("export", "mail")] * waiting
    verdict = diagnose(facts(state(live, *of_pools, paused=paused, dead=dead), jobs), (), dead)
    return [found.sentence + found.finding.then for found in verdict.findings] + [verdict.action]


def sentences(count: int) -> list[str]:
    now = datetime.now(UTC)
    given_up = FailingActor("report", "mail", "KeyError", 0, 0, now, now, letters=count, fingerprint="f00d")
    ended = replace(given_up, last_at=datetime(2026, 1, 1, tzinfo=UTC))
    found = [*of_queues(count), judge(given_up), judge(ended), judge(replace(ended, failed=count, jobs=count))]
    return [
        *(text for one in found for text in (one.seen, one.cause, one.then, one.act.label if one.act else "")),
        *said(pool("mail", busy=4), waiting=count),
        *said(pool("mail", busy=1, slots=1), waiting=count),
        *said(pool("mail", busy=1, slots=2), waiting=count),
        *said(down("mail"), waiting=count),
        *said(waiting=count, paused=True, dead=count),
    ]


def test_one_is_never_a_plural() -> None:
    texts = sentences(1)

    nouns = r"messages|jobs|letters|leases|children|queues|slots|times|are|wait\b|call\b|run\b|them|they"
    wrong = re.compile(rf"(?<![\d.,×] )(?<![\d.,])\b1 (?:\w+ ){{0,2}}(?:{nouns})")
    found = [text for text in texts if wrong.search(re.sub(r"1 of \d+ slots|1 × \w+", "", text))]
    assert found == []
    assert {
        "mail: 1 lease with 1 message expired, 1 min 00 s ago",
        "mail: 1 message crashed its worker 2 times or more (crash, id-0)",
        "mail: 1 message ran when a whole pool ended, and runs alone (id-0)",
        "mail: 1 unreadable message is quarantined",
        "mail: 1 message waits for a worker that can run it; it calls from_the_future",
    } <= set(texts)


def test_two_are_a_plural() -> None:
    texts = sentences(2)

    nouns = "message|job|letter|lease|queue|time|slot|job waits|waits|is|calls|runs|it"
    assert [text for text in texts if re.search(rf"\b2 (?:\w+ )?(?:{nouns})\b", re.sub(r"2 ×|2 of", "", text))] == []
    assert {
        "mail: 2 leases with 2 messages expired, the first 1 min 00 s ago",
        "mail: 2 messages crashed their worker 2 times or more (crash, id-0, crash, id-1)",
        "mail: 2 messages ran when a whole pool ended, and run alone (id-0, id-1)",
        "mail: 2 unreadable messages are quarantined",
        "mail: 2 messages wait for a worker that can run them; they call from_the_future",
    } <= set(texts)
