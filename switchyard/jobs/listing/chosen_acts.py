"""The acts on ticked jobs: which jobs they apply to, what they do to one, and how their answers read."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import DatabaseError
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, BrokerError, SwitchyardError
from switchyard.broker.stores.job_records import ENDED, Job
from switchyard.console.formatting import counted
from switchyard.history.queries import find_many, job_of_row
from switchyard.jobs.passport.again import run_again
from switchyard.jobs.passport.reading import passport_of
from switchyard.jobs.queries import records_of
from switchyard.jobs.services import request_cancel, start_now
from switchyard.loggers import get_logger

log = get_logger(__name__)
Answers = Mapping[str, tuple[str, str]]
# Names the second run of a job by the form, so that a form that is sent twice enqueues it once.
RUNS: Final = uuid.UUID("a5d0a5f4-3d0e-4f39-9f5c-0d5a2b1b7f5e")


@dataclass(frozen=True, slots=True)
class ChosenAct:
    """An act on ticked jobs.

    Args:
        verb, when: Of its last button, before and behind the number: ``Run 2 jobs now``.
        button: Its button above the list.
        right: Codename among those of jobs.
        effect: Sentences, the consequence.
        undo: Sentence.
        done: Participle, as in "may be cancelled".
        states: States of the jobs that it applies to; "" stands for no record.
        danger: It ends work.
        apply: Does it to one job, and returns a name of ``answers``.
        answers: What became of jobs, after their count: of one and of several.
        good: Answers that count as success.
    """

    verb: str
    when: str
    button: str
    right: str
    effect: tuple[str, str]
    undo: str
    done: str
    states: frozenset[str]
    apply: Callable[[str, Who, str, str], str]
    answers: Answers
    good: tuple[str, ...]
    danger: bool = False

    def applies(self, job: Job) -> bool:
        """Return whether there is something to do for a job."""
        return job.state in self.states

    def said(self, answer: str) -> str:
        """Return what became of one job, after its name: ``was cancelled and will not start``."""
        return self.answers[answer][0]

    def text_of(self, answers: Counter[str]) -> str:
        """Return what became of the jobs: ``2 jobs were cancelled and will not start; 1 job had ended already.``."""
        parts = [
            f"{counted(count, 'job')} {one if count == 1 else many}"
            for name, (one, many) in self.answers.items()
            if (count := answers[name])
        ]
        return f"{'; '.join(parts)}."


def chosen_jobs(ids: Sequence[str]) -> list[Job]:
    """Return ticked jobs from the broker, else from the history; one that keeps no record has nothing but its id."""
    known = records_of(list(ids))
    try:
        known |= {row.job_id: job_of_row(row) for row in find_many([id_ for id_ in ids if id_ not in known])}
    except DatabaseError as error:  # what has not ended can be cancelled all the same
        log.warning("chosen jobs that have ended are not found: the database does not answer", error=str(error))
    return [known.get(id_) or Job(id_) for id_ in ids]


def _run_again(job_id: str, who: Who, reason: str, form_id: str) -> str:
    known = passport_of(job_id)
    if known is None:
        return "unknown"
    if not known.job.ended:
        return "unfinished"
    try:
        run_again(known, who=who, reason=reason, job_id=str(uuid.uuid5(RUNS, f"{form_id} {job_id}")))
    except BrokerError:
        raise
    except ActRefused:
        return "not_kept"
    except (SwitchyardError, MiddlewareError):  # the others can run all the same
        return "refused"
    return "sent"


GONE: Final = ("is not known any longer", "are not known any longer")
ENDED_BEFORE: Final = ("had ended already", "had ended already")
ACTS: Final = {
    "run-now": ChosenAct(
        verb="Run",
        when=" now",
        button="Run chosen now…",
        right="run_job",
        effect=(
            "They start as soon as a slot is free, instead of at their time.",
            "A rate limit still holds; a paused queue starts nothing.",
        ),
        undo="Cancel them while they wait.",
        done="due now",
        states=frozenset({"", "scheduled", "retrying"}),
        apply=lambda job_id, who, reason, form_id: start_now(job_id, who=who, reason=reason),
        answers={
            "due": ("starts as soon as a slot is free", "start as soon as a slot is free"),
            "waiting": ("waits or runs already", "wait or run already"),
            "held": (
                "is held by a rate limit, by a pause, or until a worker knows its actor, and stays so",
                "are held by a rate limit, by a pause, or until a worker knows their actor, and stay so",
            ),
            "ended": ENDED_BEFORE,
            "unknown": GONE,
        },
        good=("due",),
    ),
    "run-again": ChosenAct(
        verb="Run",
        when=" again",
        button="Run chosen again…",
        right="run_job",
        effect=(
            "Each is enqueued as a new job with the same arguments, owner and tags.",
            "What the first run did may be done twice.",
        ),
        undo="Cancel the new jobs while they wait.",
        done="enqueued again",
        states=ENDED,
        apply=_run_again,
        answers={
            "sent": ("is enqueued again, as a new job", "are enqueued again, as new jobs"),
            "not_kept": (
                "cannot run again: its arguments are not kept whole, or this code has not its actor",
                "cannot run again: their arguments are not kept whole, or this code has not their actors",
            ),
            "refused": (
                "was refused: its arguments or tags do not fit this release, or its queue is full",
                "were refused: their arguments or tags do not fit this release, or their queue is full",
            ),
            "unfinished": ("has not ended, and was left as it is", "have not ended, and were left as they are"),
            "unknown": GONE,
        },
        good=("sent",),
    ),
    "cancel": ChosenAct(
        verb="Cancel",
        when="",
        button="Cancel chosen…",
        right="cancel_job",
        effect=(
            "What waits or is scheduled never starts; what runs stops within 10 seconds.",
            "What they have done stays done; nobody is told.",
        ),
        undo="Run them again, from their pages.",
        done="cancelled",
        states=frozenset({"", "queued", "scheduled", "running", "retrying"}),
        danger=True,
        apply=lambda job_id, who, reason, form_id: request_cancel(job_id, who=who, reason=reason),
        answers={
            "cancelled": ("was cancelled and will not start", "were cancelled and will not start"),
            "asked": ("runs and stops within 10 seconds", "run and stop within 10 seconds"),
            "ended": ENDED_BEFORE,
            "unknown": GONE,
        },
        good=("cancelled", "asked"),
    ),
}
