"""What a look at the evidence found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demo.sample.journal import SentJob
from demo.view.words import counts


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen, whether it is what must be seen in the end, and how long it took, in seconds."""

    text: str
    as_expected: bool
    seconds: float | None = None


def states(jobs: Sequence[SentJob]) -> str:
    """Return how many jobs are in each state, in words."""
    return ", ".join(f"{count} {state}" for state, count in counts(jobs).items()) or "nothing sent yet"


def all_succeeded(jobs: Sequence[SentJob]) -> bool:
    """Whether there are jobs and all went well."""
    return bool(jobs) and all(job.state == "succeeded" for job in jobs)


def longest_s(jobs: Sequence[SentJob]) -> float | None:
    """Return the longest time from enqueueing to the end, in seconds."""
    return max((job.took_s for job in jobs if job.took_s is not None), default=None)
