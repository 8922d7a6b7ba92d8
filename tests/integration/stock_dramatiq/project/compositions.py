"""Pipelines and groups, without results and with them; completion callbacks."""

from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import Message, group, pipeline
from dramatiq.results import ResultError, ResultFailure

from . import journal
from .journal import case

SHORT_MS = 1_000


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


@dramatiq.actor(store_results=True)
def total(*numbers: int) -> int:
    """Add numbers, and keep the sum."""
    return sum(numbers)


@dramatiq.actor
def describe(text: str) -> dict[str, Any]:
    """Return something that only messages may ask to keep."""
    return {"text": text, "parts": text.split(), "half": 0.5, "none": None}


@dramatiq.actor(store_results=True, result_ttl=600_000)
def nothing() -> None:
    """Keep that nothing was returned."""


@dramatiq.actor(store_results=True, max_retries=1, min_backoff=10, max_backoff=20)
def fails(times: int, which: str) -> str:
    if journal.note(f"fails {which}") <= times:
        raise LookupError(f"no {which}")
    return which


@dramatiq.actor
def all_done(which: str) -> None:
    journal.note("callbacks", which)


def outcome(message: Any, **options: Any) -> Any:
    """Return a result, or the names and texts of why there is none."""
    try:
        return message.get_result(**options)
    except ResultFailure as failure:
        return type(failure).__name__, str(failure), failure.orig_exc_type, failure.orig_exc_msg
    except ResultError as error:
        return type(error).__name__


@case
def stored_results() -> Callable[[], Any]:
    """Results that are there, in both ways to ask."""
    sent: list[Message[Any]] = [
        total.send(1, 2),
        total.send_with_options(args=(3,), delay=20),
        describe.send_with_options(args=("two words",), store_results=True, result_ttl=60_000),
        nothing.send(),
        fails.send(1, "paper"),
    ]
    backend = dramatiq.get_broker().get_results_backend()
    return lambda: [
        [outcome(message), outcome(message, block=True, timeout=SHORT_MS), outcome(message, backend=backend)]
        for message in sent
    ]


@case
def stored_failures() -> Callable[[], Any]:
    """A failure once the retries are used up, and results that never come."""
    failed, never = fails.send(9, "ink"), total.message(1)
    return lambda: [
        outcome(failed),
        outcome(failed, block=True, timeout=SHORT_MS),
        outcome(never),
        outcome(never, block=True, timeout=SHORT_MS),
    ]


@case
def stored_groups() -> Callable[[], Any]:
    plain = group([total.message(number, 1) for number in range(10)]).run()
    mixed = group([group([total.message(1), total.message(2)]), total.message(3) | total.message(4), total.message(5)])
    mixed.run(delay=20)
    open_ = group([total.message(1), total.message(2)])
    total_of_open = open_.children[0]
    dramatiq.get_broker().enqueue(total_of_open)

    def read() -> Any:
        plain.wait(timeout=SHORT_MS)
        counts = [(jobs.completed, jobs.completed_count, len(jobs)) for jobs in (plain, mixed, open_)]
        return counts, list(plain.get_results()), list(mixed.get_results(block=True, timeout=SHORT_MS))

    return read


@case
def stored_pipelines() -> Callable[[], Any]:
    """Pipelines whose every step keeps its result."""
    steps = (total.message(1, 2) | total.message(3) | total.message(4)).run()
    nested = pipeline([pipeline([total.message(1), total.message(2)]), total.message(3)]).run()
    return lambda: [
        (each.completed, each.completed_count, len(each), each.get_result(), list(each.get_results()))
        for each in (steps, nested)
    ]


@case
def completion_callbacks() -> Callable[[], Any]:
    """Callbacks after the last job of a group, and none where a job failed."""
    jobs = group([total.message(1), total.message(2) | total.message(3), fails.message(1, "glue")])
    jobs.add_completion_callback(all_done.message("first"))
    jobs.add_completion_callback(all_done.message("second"))
    jobs.run()
    failing = group([total.message(4), fails.message(9, "string")])
    failing.add_completion_callback(all_done.message("never"))
    failing.run()
    return lambda: (sorted(journal.of("callbacks")), [outcome(each) for each in failing.children])
