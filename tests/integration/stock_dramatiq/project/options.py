"""Every option that Dramatiq's guide names, as an actor's and as a message's."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage, Shutdown, TimeLimitExceeded

from . import journal
from .journal import case

SOON = {"min_backoff": 10, "max_backoff": 50}


class LoudActor(dramatiq.Actor):
    """An actor class of the project's own."""

    def shout(self, *args: Any) -> Any:
        """Send in capital letters."""
        return self.send(*(arg.upper() for arg in args))


@dramatiq.actor
def plain(number: int) -> int:
    plain.logger.info("Got %d.", number)
    journal.note("plain", number)
    return 2 * number


@dramatiq.actor(
    actor_name="renamed", queue_name="mail", priority=10, broker=dramatiq.get_broker(), actor_class=LoudActor
)
def named(text: str) -> None:
    """Decorator's own options."""
    journal.note("named", (text, named.actor_name, named.queue_name, named.priority))


@dramatiq.actor(max_retries=2, **SOON)
def broken() -> None:
    journal.note("max_retries")
    raise RuntimeError("no")


@dramatiq.actor(max_retries=0)
def broken_once() -> None:
    """Fail, without retries of its own."""
    journal.note("max_retries_of_message")
    raise RuntimeError("no")


@dramatiq.actor(max_retries=None, **SOON)
def stubborn() -> None:
    """Fail more often than the broker retries by default."""
    if journal.note("retry_forever") < 8:
        raise RuntimeError("not yet")


def while_young(retries: int, exception: BaseException) -> bool:
    """Retry twice, and only what may get better."""
    journal.note("retry_when_asked", (retries, type(exception).__name__))
    return retries < 2 and isinstance(exception, RuntimeError)


@dramatiq.actor(retry_when=while_young, max_retries=0, **SOON)
def picky() -> None:
    journal.note("retry_when")
    raise RuntimeError("no")


@dramatiq.actor(throws=ValueError, on_failure="note_failure", on_retry_exhausted="note_exhausted", **SOON)
def refuses_one() -> None:
    journal.note("throws_class")
    raise ValueError("expected")


@dramatiq.actor(throws=(KeyError, ValueError), **SOON)
def refuses_many() -> None:
    journal.note("throws_tuple")
    raise KeyError("expected")


@dramatiq.actor(max_retries=1, on_retry_exhausted="note_exhausted", **SOON)
def exhausted(number: int) -> None:
    raise RuntimeError(f"no {number}")


@dramatiq.actor
def note_exhausted(message: dict[str, Any], retries: dict[str, Any]) -> None:
    """Note what the message after the last retry holds."""
    said = message["options"]["traceback"].splitlines()[-1]
    journal.note(
        "on_retry_exhausted", (message["actor_name"], message["args"], message["options"]["retries"], retries, said)
    )


@dramatiq.actor(max_age=50)
def news(which: str) -> None:
    """Do not run too late."""
    journal.note("max_age", which)


@dramatiq.actor(max_age=5_000, max_retries=5)
def old_news() -> None:
    """Be young when it first runs, however late a busy machine starts its worker, and too old when it is run again."""
    journal.note("max_age_of_a_retry")
    raise dramatiq.Retry(delay=5_500)


@dramatiq.actor(time_limit=300, max_retries=0)
def endless(case_name: str) -> None:
    """Run until something is raised."""
    started = time.monotonic()
    try:
        while time.monotonic() - started < 20:
            time.sleep(0.01)
    except TimeLimitExceeded:
        journal.note(case_name, "TimeLimitExceeded")
        raise


@dramatiq.actor(time_limit=float("inf"))
def patient() -> None:
    journal.note("time_limit_none")


@dramatiq.actor(notify_shutdown=True, max_retries=3, **SOON)
def interruptible() -> None:
    """Run until the worker stops, then be short."""
    if journal.note("notify_shutdown", "started") > 1:
        return
    started = time.monotonic()
    try:
        while time.monotonic() - started < 20:
            time.sleep(0.01)
    except Shutdown:
        journal.note("notify_shutdown", "Shutdown")
        raise


@dramatiq.actor(on_success="note_success", on_failure="note_failure", max_retries=1, **SOON)
def divides(a: int, b: int) -> int:
    return a // b


@dramatiq.actor
def note_success(message: dict[str, Any], result: Any) -> None:
    journal.note("on_success", (message["actor_name"], message["args"], result))


@dramatiq.actor
def note_failure(message: dict[str, Any], error: dict[str, Any]) -> None:
    journal.note("on_failure", (message["actor_name"], error))


@dramatiq.actor(max_retries=3, **SOON)
def asks_for_a_retry() -> None:
    """Ask for a retry after a while, as the guide shows."""
    if journal.note("retry_raised") < 3:
        raise dramatiq.Retry(delay=20)


@dramatiq.actor(max_retries=3, **SOON)
def introspective() -> None:
    message = CurrentMessage.get_current_message()
    kept = (message.message_id, message.options.get("retries", 0))
    if journal.note("current_message", kept) < 3:
        raise RuntimeError("not yet")


@dramatiq.actor(audited=True)
def audited(number: int) -> int:
    """Have an option of the project's own middleware."""
    return number + 1


@case
def plain_call_and_send() -> Callable[[], Any]:
    plain.send(1)
    plain.send_with_options(args=(2,))
    plain.send_with_options(kwargs={"number": 3}, delay=50)
    plain.send_with_options(args=(4,), delay=timedelta(milliseconds=60))
    called = plain(5)
    return lambda: (called, sorted(journal.of("plain")))


@case
def decorators_own_options() -> Callable[[], Any]:
    """Name, queue, priority, broker and class."""
    named.shout("loud")
    named.send_with_options(args=("first",), priority=-1)
    return lambda: sorted(journal.of("named"))


@case
def max_retries() -> Callable[[], Any]:
    """A number, none, and without end."""
    broken.send()
    broken_once.send_with_options(max_retries=3, **SOON)
    stubborn.send()
    return lambda: [journal.count(name) for name in ("max_retries", "max_retries_of_message", "retry_forever")]


@case
def retry_when() -> Callable[[], Any]:
    picky.send()
    return lambda: (journal.count("retry_when"), journal.of("retry_when_asked"))


@case
def throws() -> Callable[[], Any]:
    refuses_one.send()
    refuses_many.send()
    return lambda: (journal.count("throws_class"), journal.count("throws_tuple"))


@case
def on_retry_exhausted() -> Callable[[], Any]:
    """After the last retry another actor is told, of an actor's option and of a message's."""
    exhausted.send(1)
    broken_once.send_with_options(on_retry_exhausted="note_exhausted", max_retries=0)
    return lambda: sorted(journal.of("on_retry_exhausted"), key=repr)


@case
def max_age() -> Callable[[], Any]:
    """Never runs a message that is too old."""
    news.send_with_options(args=("late",), delay=200)
    news.send_with_options(args=("its own limit",), delay=200, max_age=60_000)
    old_news.send()
    return lambda: (journal.of("max_age"), journal.count("max_age_of_a_retry"))


@case
def time_limit() -> Callable[[], Any]:
    """An exception is raised in what runs too long."""
    endless.send("time_limit")
    endless.send_with_options(args=("time_limit_of_message",), time_limit=500)
    patient.send()
    return lambda: [journal.of(name) for name in ("time_limit", "time_limit_of_message", "time_limit_none")]


@case
def callbacks() -> Callable[[], Any]:
    """Success and failure, of an actor's options and of a message's."""
    divides.send(6, 3)
    divides.send(1, 0)
    plain.send_with_options(args=(6,), on_success=note_success, on_failure=note_failure)
    refuses_many.send_with_options(on_failure="note_failure")
    return lambda: (sorted(journal.of("on_success"), key=repr), sorted(journal.of("on_failure"), key=repr))


@case
def retry_raised() -> Callable[[], Any]:
    asks_for_a_retry.send()
    return lambda: journal.count("retry_raised")


@case
def current_message() -> Callable[[], Any]:
    sent = introspective.send()
    return lambda: [(id_ == sent.message_id, retries) for id_, retries in journal.of("current_message")]


@case
def own_middleware() -> Callable[[], Any]:
    audited.send(1)
    plain.send_with_options(args=(7,), audited=True)
    return lambda: sorted(journal.of("audit"))
