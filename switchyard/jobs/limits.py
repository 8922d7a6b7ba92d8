"""Limits that jobs wait for, for pages and commands."""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.broker.clock import datetime_of
from switchyard.broker.queue.limits import LimitWait, wait_of
from switchyard.broker.stores.job_record import Job
from switchyard.console.formatting import counted
from switchyard.jobs.queries import families

WAITS = ("concurrency", "order")


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """The limit that a job waits for, as pages and commands show it."""

    wait: LimitWait

    def sentence(self, *, arguments: bool) -> str:
        """Say the limit, who has its places, and since when the job waits; the value only where it may be seen."""
        actor, _, value = self.wait.key.partition(" ")
        of = f"{actor} with {value if arguments else 'such an argument'}" if value else actor
        before = f"{counted(self.wait.before, 'job')} before it" if self.wait.before else "none before it"
        since = f"since {datetime_of(self.wait.since_ms):%Y-%m-%d %H:%M:%S}"
        if self.wait.ordered:
            return f"It waits for its turn: {of} runs in the sequence of its sends, {before}, {since} UTC."
        taken = f"{self.wait.taken} of {self.wait.n} places taken"
        return f"It waits for a limit: {self.wait.n} of {of} at once, {taken}, {before}, {since} UTC."


def limit_of(job: Job) -> WaitingFor | None:
    """Return the limit that a job waits for. May raise ``switchyard.broker.errors.BrokerError``."""
    if job.ended or job.reason not in WAITS:
        return None
    for family in families([job.queue]):
        if (wait := wait_of(family, job.id)) is not None:
            return WaitingFor(wait)
    return None
