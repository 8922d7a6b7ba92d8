"""A month of a healthy yard in virtual time: nights, weekends, bursts, a flaky dependency, deploys and a release.

Counts are drawn for each class of run times by itself: what arrives by chance is as many jobs of each class by chance.
The judged functions are those of the room; their past are the stored hours of the month so far.
Beside it the memory that the facts of a large yard take in the broker.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from unittest.mock import patch

import msgspec

from switchyard.broker.keys import Keys
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.yard_facts import Counts, actor_subject, dependency_subject, field, queue_subject
from switchyard.operations.findings import own_past, spending
from switchyard.operations.past import LEAST_DAYS, Usual, same_hours, usual_of
from tests.chaos.server import ServerUnderTest

EVERY_S, BUCKETS, SLOWED = 300, 90, 1.1
# The epoch was a Thursday; the month begins on a Monday.
BEGIN_S = 1_767_571_200


@dataclass(frozen=True)
class Kind:
    """An actor of the month: jobs a second at noon, its median run in ms, and its share of nights."""

    per_s: float
    run_ms: float
    night: float = 0.05
    failing: float = 0.002
    dependency: str = ""


KINDS: Mapping[str, Kind] = {
    "mail": Kind(6.0, 120), "sync": Kind(1.5, 400), "report": Kind(0.1, 4_000, night=0.3),
    "export": Kind(0.02, 20_000, night=1.0), "login": Kind(0.8, 40),
    "deliver": Kind(4.0, 250, failing=0.03, dependency="webhook"),
}  # fmt: skip


class Month:
    """Counts of any time of a month: hours, minutes and buckets are drawn by themselves."""

    def __init__(self, seed: int, days: int, slowed: float) -> None:
        self._draw, self._seed, self._slowed = random.Random(seed), seed, slowed
        self._days = [self._draw.lognormvariate(0, 0.12) for _ in range(days + 1)]
        self._release_s = BEGIN_S + days * 69_120  # after four fifths of them
        self._hours: dict[tuple[str, int], Counts] = {}

    def per_s(self, actor: str, at_s: float) -> float:
        """Return the rate of an actor: half on a weekend, least at 4 in the night, with waves of minutes."""
        kind, day = KINDS[actor], int((at_s - BEGIN_S) // 86_400)
        light = (1 - math.cos((at_s / 86_400 - 4 / 24) * 2 * math.pi)) / 2
        weekly = 0.5 if day % 7 >= 5 else 1.0
        wave = random.Random(f"{self._seed} {actor} {int(at_s // 600)}").lognormvariate(0, 0.25)
        of_the_day = weekly * self._days[max(day, 0) % len(self._days)]
        return kind.per_s * (kind.night + (1 - kind.night) * light) * of_the_day * wave

    def counts(self, actor: str, at_s: float, seconds: float) -> dict[int, int]:
        """Draw an actor's counts of some seconds."""
        kind, jobs = KINDS[actor], self.per_s(actor, at_s) * seconds
        wave = random.Random(f"{self._seed} run {actor} {int(at_s // 1_800)}").lognormvariate(0, 0.08)
        run_ms = kind.run_ms * wave * (self._slowed if at_s >= self._release_s else 1.0)
        curve, found, ran = NormalDist(math.log(run_ms), 0.6), dict[int, int](), 0
        for n in range(yard_facts.CLASSES):
            low = curve.cdf(math.log(yard_facts.LEAST_MS * 2 ** (n - 1))) if n else 0.0
            share = (curve.cdf(math.log(yard_facts.LEAST_MS * 2**n)) if n < yard_facts.CLASSES - 1 else 1.0) - low
            if share * jobs > 1e-4 and (count := self.some(share * jobs)):
                found[yard_facts.RUNS + n], ran = count, ran + count
        if not ran:
            return {}
        failing = kind.failing
        if kind.dependency and random.Random(f"{self._seed} flaky {int(at_s // 900)}").random() < 0.03:
            failing = 0.15
        failed = min(self.some(ran * failing), ran)
        found |= {
            yard_facts.WAITS: ran,
            yard_facts.SENT: ran,
            yard_facts.RUN_MS: round(ran * run_ms * 1.2),
            yard_facts.SQL_MS: round(ran * run_ms * 0.2),
        }
        return found | {
            yard_facts.PROCESSOR_MS: round(ran * run_ms * 0.2),
            yard_facts.SUCCEEDED: ran - failed,
            yard_facts.RETRIED: failed,
        }

    def some(self, mean: float) -> int:
        """Draw a number of independent events."""
        if mean > 50:
            return max(round(self._draw.gauss(mean, math.sqrt(mean))), 0)
        least, count, product = math.exp(-mean), 0, self._draw.random()
        while product > least:
            count, product = count + 1, product * self._draw.random()
        return count

    def hour(self, actor: str, hour: int) -> Counts:
        """Return the stored counts of an hour, made of six pieces."""
        if (actor, hour) not in self._hours:
            total: dict[int, int] = defaultdict(int)
            for piece in range(6):
                for code, count in self.counts(actor, hour * 3_600 + piece * 600, 600).items():
                    total[code] += count
            self._hours[actor, hour] = total
        return self._hours[actor, hour]

    def usual(self, at_s: int) -> dict[str, Usual]:
        """Return what is usual at an hour, as the room does: of the same hour of past days."""
        hours = [hour for hour in same_hours(at_s // 3_600) if hour * 3_600 >= BEGIN_S]
        if len(hours) < LEAST_DAYS:
            return {}
        return {
            actor: usual_of(
                [self.hour(actor, hour) for hour in hours], hour_ms=yard_facts.HOUR_MS, basis="at this hour"
            )
            for actor in KINDS
        }


def sentences(seed: int, days: int, *, every_s: int = EVERY_S, slowed: float = SLOWED) -> list[tuple[float, str, str]]:
    """Return what is said in some days: second, name and sentence; what lasts is said once.

    Args:
        slowed: How much longer jobs take since the release.
    """
    month, said, lasting = Month(seed, days, slowed), list[tuple[float, str, str]](), set[tuple[str, str]]()
    draw = random.Random(f"deploys {seed}")
    usual: dict[str, Usual] = {}
    for at_s in range(BEGIN_S, BEGIN_S + days * 86_400, every_s):
        if at_s % 3_600 == 0:
            usual = month.usual(at_s)
        if not usual:
            continue
        # A deploy: nothing starts for a minute, and what waited runs at once.
        paused = range(0) if draw.random() > 0.01 else range(80, 86)
        now = {(each.name, each.actor): each.seen for each in _judged(month, at_s, usual, paused)}
        said += [(at_s - BEGIN_S, name, seen) for (name, actor), seen in now.items() if (name, actor) not in lasting]
        lasting = set(now)
    return said


def _judged(month: Month, at_s: int, usual: Mapping[str, Usual], paused: range) -> Iterator[spending.Finding]:
    now = at_s * 1_000
    buckets = [(now - (BUCKETS - at) * yard_facts.BUCKET_MS, at) for at in range(BUCKETS)]
    recent = SimpleNamespace(
        facts=SimpleNamespace(
            minutes=lambda subject, since, until: {
                at: counts
                for at in range(since, until, yard_facts.MINUTE_MS)
                if (counts := month.counts(subject[2:], at / 1_000, 60))
            }
        )
    )
    with patch.multiple(own_past, facilities=lambda: recent, usual_again=lambda *_, **__: False):
        for actor in KINDS:
            mine: list[tuple[int, Counts]] = [
                (at, {} if number in paused else month.counts(actor, at / 1_000, yard_facts.BUCKET_MS / 1_000))
                for at, number in buckets
            ]
            own = usual[actor]
            yield from own_past.slower(actor, "default", own, mine, [], now)
            yield from own_past.silent(actor, "default", own, mine, now)
            grown = spending.grew([counts for _, counts in mine])
            yield from spending.leaking({actor: "default"}, {actor: grown})
            if dependency := KINDS[actor].dependency:
                with patch.object(spending, "dependency_of", lambda name, found=dependency: found):
                    calls = [
                        {code: of.get(code, 0) for code in (yard_facts.SUCCEEDED, yard_facts.RETRIED)} if of else {}
                        for _, of in mine
                    ]
                    yield from spending.down(dependency, {actor: "default"}, calls)


QUEUES, RETRY_LANES, ACTORS, POOLS, DEPENDENCIES = 30, 10, 60, 8, 10
# Attempts a minute of each subject, at most.
MOST: int = 300


def taken_mb(folder: Path) -> tuple[float, float]:
    """Fill a server with the facts of a yard whose queues and actors are all active all the time; return MB."""
    draw = random.Random(1)
    queues = [queue_subject(f"queue-number-{n}") for n in range(QUEUES + RETRY_LANES)]
    actors = [actor_subject(f"actor_of_some_name_{n}") for n in range(ACTORS)]
    others = [*(f"p:pool-{n}" for n in range(POOLS)), "r:2026.11", "y:"]
    dependencies = [dependency_subject(f"dependency-{n}") for n in range(DEPENDENCIES)]
    subjects = [*queues, *actors, *others, *dependencies]
    with ServerUnderTest(folder) as server:
        used = [_used(server)]
        for span in range(0, yard_facts.KEPT_MS, yard_facts.SPAN_MS):
            packed = {
                each: msgspec.msgpack.encode({n: _counts(draw, each, MOST) for n in range(10)}) for each in subjects
            }
            server.admin.hset(Keys().facts_span(span), mapping=packed)  # type: ignore[arg-type]
        used.append(_used(server))
        for bucket in range(0, yard_facts.BUCKET_TTL_MS, yard_facts.BUCKET_MS):
            counts = {field(each, code): n for each in subjects for code, n in _counts(draw, each, MOST // 6).items()}
            server.admin.hset(Keys().facts_bucket(bucket), mapping=counts)  # type: ignore[arg-type]
        used.append(_used(server))
    return (used[1] - used[0]) / 1e6, (used[2] - used[1]) / 1e6


def _used(server: ServerUnderTest) -> int:
    return int(server.admin.info("memory")["used_memory"])  # type: ignore[index]


def _counts(draw: random.Random, subject: str, most: int) -> dict[int, int]:
    found = {yard_facts.SUCCEEDED: draw.randrange(most), yard_facts.RETRIED: draw.randrange(5)}
    if subject.startswith("d:"):
        return found
    found |= {yard_facts.WAIT_MS: draw.randrange(most * 1_000), yard_facts.RUN_MS: draw.randrange(most * 1_000)}
    for first, classes in ((yard_facts.WAITS, 5), (yard_facts.RUNS, 6)):
        least = draw.randrange(8)
        found |= {first + n: draw.randrange(1, most) for n in range(least, least + classes)}
    if subject.startswith("q:"):
        found |= {yard_facts.DEPTH: draw.randrange(1_000), yard_facts.AGE_MS: draw.randrange(60_000)}
    if subject.startswith("a:"):
        found |= {
            yard_facts.SENT: draw.randrange(most),
            yard_facts.LATER + 3: draw.randrange(1, 9),
            yard_facts.PROCESSOR_MS: draw.randrange(most * 100),
        }
        found |= {yard_facts.SQL_MS: draw.randrange(most * 100), yard_facts.LOG_BYTES: draw.randrange(most * 400)}
    return found
