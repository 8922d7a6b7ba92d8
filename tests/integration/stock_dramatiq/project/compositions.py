"""Pipelines and groups, without results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import group, pipeline

from . import journal
from .cases import case


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=20)
def add(*numbers: int) -> int:
    return sum(numbers)


@dramatiq.actor
def note_sum(which: str, number: int = -1) -> None:
    journal.note("pipelines", (which, number))


@dramatiq.actor
def note_last(number: int) -> None:
    journal.note("pipelines", ("last", number))


@dramatiq.actor(pipe_ignore=True)
def keeps_its_result(number: int) -> int:
    return number


@case
def pipelines() -> Callable[[], Any]:
    """Each step gets the result of the step before it, unless it ignores it."""
    (add.message(1, 2) | add.message(3) | note_sum.message("three steps")).run()
    pipeline([add.message(4, 5), note_last.message()]).run(delay=50)
    pipeline([add.message(6), note_sum.message_with_options(args=("own option",), pipe_ignore=True)]).run()
    (keeps_its_result.message(7) | note_sum.message("kept")).run()
    return lambda: sorted(journal.of("pipelines"), key=repr)


@dramatiq.actor
def plain_note(number: int) -> None:
    journal.note("groups", number)


@case
def groups() -> Callable[[], Any]:
    """Messages and pipelines that run at once."""
    jobs = group([plain_note.message(1), plain_note.message(2), add.message(1) | plain_note.message()])
    jobs.run()
    return lambda: (len(jobs), sorted(journal.of("groups")))
