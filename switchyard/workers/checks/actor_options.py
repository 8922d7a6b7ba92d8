"""Options of actors without effect, in the wrong unit, or whose retries end too soon; ``CHECKS`` lists the checks."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning

from switchyard.broker.queue.arguments.types import argument_types
from switchyard.broker.topology import Queue, Yard
from switchyard.broker.validation import is_duration
from switchyard.console.formatting import retries_text
from switchyard.middleware.retry_options import RETRY_DELAYS, span_of
from switchyard.workers.checks.actors import DeclaredActor
from switchyard.workers.checks.queues import TOPOLOGY

# Below these milliseconds a value helps nobody: a result leaves before it is fetched, retries end within an outage. A
# first retry after a fraction of a second may be intended.
LEAST_MS = {
    "max_age": (1_000, "after which a job that has not started expires"),
    "result_ttl": (60_000, "after which its result may be gone"),
    "min_backoff": (100, "its first delay before a retry"),
    "max_backoff": (1_000, "its longest delay before a retry"),
}
# A restart, a failover or a bad release of a service lasts for minutes.
LEAST_SPAN_MS = 15 * 60_000


def options_without_effect(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W023: ``result_ttl`` without stored results, ``catch_up`` without a schedule, ``search`` for what is redacted."""
    options, id_ = each.actor.options, "switchyard.W023"
    if "result_ttl" in options and not options.get("store_results"):
        fact = "its result_ttl has no effect, because its results are not stored"
        yield each.warning(id_, fact, "Add store_results=True, or leave result_ttl out.")
    if options.get("catch_up") is not None and options.get("periodic") is None:
        fact = "its catch_up has no effect, because it is not periodic"
        yield each.warning(id_, fact, "Add periodic=cron('0 2 * * *'), or leave catch_up out.")
    redacted = options.get("redact") or ()
    if hidden := [name for name in options.get("search") or () if name in redacted]:
        fact = f"no job is found by {', '.join(hidden)}, because redacted arguments are not kept"
        yield each.warning(id_, fact, "Leave it out of search, or out of redact.")


def annotations_without_effect(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W025: annotations that count as none: their arguments are not compared, and have the values of JSON."""
    for name, (written, fault) in argument_types(each.actor.fn).faults.items():
        hint = "annotate one of the types, or Any"
        if "resolved" in fault:
            hint = "import its names outside of TYPE_CHECKING, or leave the annotation out"
        fact = f"argument {name} has the annotation {written}, which counts as none: {fault}"
        yield each.warning("switchyard.W025", fact, hint)


def options_in_seconds(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W020: a ``max_age``, ``result_ttl``, ``min_backoff`` or ``max_backoff`` that was most likely meant in seconds."""
    for name, (least_ms, meaning) in LEAST_MS.items():
        value = each.actor.options.get(name)
        if value is not None and is_duration(value) and value < least_ms:
            hint = f"It is milliseconds: for {value:g} s write {name}={int(value * 1_000):_}."
            yield each.warning("switchyard.W020", f"its {name} is {value:g} ms, {meaning}", hint)


def short_retries(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W007: an actor that shortens the retries of such a queue to less than 15 minutes. None at all are deliberate."""
    options, queue = each.actor.options, each.queue
    if queue is None or not queue.calls or "retry_when" in options or not RETRY_DELAYS & options.keys():
        return
    retries, span_ms = options.get("max_retries", queue.retry.retries), span_of(each.actor, queue.retry)
    if retries and span_ms[0] < LEAST_SPAN_MS:
        hint = "Leave max_retries and its backoff out for those of its queue, or write max_retries=0 for none."
        yield each.warning("switchyard.W007", _short(queue, retries, span_ms), hint)


CHECKS = (options_in_seconds, options_without_effect, annotations_without_effect, short_retries)


def short_policies(yard: Yard) -> Iterator[CheckMessage]:
    """W007: a queue that calls another service, whose retries may be over within 15 minutes."""
    hint = f"Leave retry out in {TOPOLOGY} for 12 retries over hours, or give it longer delays_ms."
    for queue in (queue for queue in yard.queues if queue.calls):
        span_ms = queue.retry.span_ms()
        if span_ms[0] < LEAST_SPAN_MS and queue.retry.retries:
            fact = _short(queue, queue.retry.retries, span_ms)
            yield Warning(fact, hint, f"queue {queue.name}", "switchyard.W007")


def hurried_retries(yard: Yard, *, debug: bool) -> list[CheckMessage]:
    """E034: a production yard whose retries are shortened as in a demo."""
    if yard.retry_speed == 1 or debug:
        return []
    fact = f"retry_speed is {yard.retry_speed:,}: retries are over {yard.retry_speed:,} times as fast as declared"
    return [Error(fact, f"Leave retry_speed out in {TOPOLOGY}.", "yard", "switchyard.E034")]


def _short(queue: Queue, retries: int, span_ms: tuple[int, int]) -> str:
    outage = f"an outage of what it calls ({queue.calls}) that lasts longer makes dead letters"
    return f"{retries_text(retries, span_ms)}; {outage}"
