"""First sentence of an actor's page: how its jobs of the last hour ended, and with what."""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.actors.ended_jobs import ActorHistory
from switchyard.console.formatting import duration

# Of the jobs that ended: fewer dead ones are told, and are no fault of the actor as a whole.
MANY_DEAD = 0.05
SLOWER = 2.0
# Fewer jobs say little about a change of the run time.
ENOUGH = 20


@dataclass(frozen=True, slots=True)
class Judgement:
    """A word with its level, and a sentence."""

    word: str
    level: str
    sentence: str


def of(ended: ActorHistory | None) -> Judgement:
    """Return the judgement of an actor; ``None`` stands for a database that does not answer."""
    if ended is None:
        return Judgement("Unknown", "", "How its jobs ended is unknown: the database does not answer.")
    hour, day = ended.hour, ended.day
    if not day.jobs:
        return Judgement("Quiet", "", "None of its jobs ended in the last day.")
    if not hour.jobs:
        return Judgement("Quiet", "", f"None of its jobs ended in the last hour; {_jobs(day.jobs)} in the last day.")
    dead = dict(hour.outcomes).get("dead", 0)
    if not dead:
        return _healthy(ended)
    share = f"{_jobs(dead)} of {hour.jobs:,} that ended in the last hour gave up"
    causes = ended.failures
    cause = f", all with {causes[0].exception}" if len(causes) == 1 else f", of {len(causes)} causes" if causes else ""
    since = f"; since release {ended.dead_since}, before it none did" if ended.dead_since else ""
    many = dead > hour.jobs * MANY_DEAD
    return Judgement("Failing" if many else "Some fail", "bad" if many else "warn", f"{share}{cause}{since}.")


def _healthy(ended: ActorHistory) -> Judgement:
    hour, day = ended.hour, ended.day
    median = f", {duration(hour.run_ms[0])} each at the median" if hour.run_ms else ""
    text = f"{_jobs(hour.jobs)} ended in the last hour, none gave up{median}"
    if hour.run_ms and day.run_ms and hour.jobs >= ENOUGH and hour.run_ms[0] >= SLOWER * max(day.run_ms[0], 1):
        times = hour.run_ms[0] / max(day.run_ms[0], 1)
        return Judgement("Slower", "warn", f"{text}: {times:.1f} times as long as in the last day.")
    return Judgement("Healthy", "ok", f"{text}.")


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"
