"""Options of actors that have no effect as they are declared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from dramatiq.actor import Actor
from dramatiq.broker import Broker

from switchyard.broker.queue.arguments.types import argument_types
from switchyard.broker.topology import Yard
from switchyard.broker.validation import is_duration
from switchyard.console.formatting import retries_text
from switchyard.middleware.places import place_of
from switchyard.middleware.retry_options import RETRY_DELAYS, span_of
from switchyard.workers.checks.actors import subject_of
from switchyard.workers.checks.queues import TOPOLOGY


def options_without_effect(broker: Broker) -> list[CheckMessage]:
    """W023: ``result_ttl`` without stored results, ``catch_up`` without a schedule, ``search`` for what is redacted."""
    found: list[CheckMessage] = []
    for actor in broker.actors.values():
        options, slips = actor.options, list[tuple[str, str]]()
        if "result_ttl" in options and not options.get("store_results"):
            fact = "its result_ttl has no effect, because its results are not stored"
            slips.append((fact, "Add store_results=True, or leave result_ttl out."))
        if options.get("catch_up") is not None and options.get("periodic") is None:
            slips.append(
                (
                    "its catch_up has no effect, because it is not periodic",
                    "Add periodic=cron('0 2 * * *'), or leave catch_up out.",
                )
            )
        redacted = options.get("redact") or ()
        if hidden := [name for name in options.get("search") or () if name in redacted]:
            fact = f"no job is found by {', '.join(hidden)}, because redacted arguments are not kept"
            slips.append((fact, "Leave it out of search, or out of redact."))
        found += [Warning(fact, hint=hint, obj=subject_of(actor), id="switchyard.W023") for fact, hint in slips]
    return found


def annotations_without_effect(broker: Broker) -> list[CheckMessage]:
    """Return the annotations that count as none: their arguments are not compared, and have the values of JSON."""
    found: list[CheckMessage] = []
    for actor in broker.actors.values():
        for name, (written, fault) in argument_types(actor.fn).faults.items():
            hint = "import its names outside of TYPE_CHECKING, or leave the annotation out"
            if "resolved" not in fault:
                hint = "annotate one of the types, or Any"
            fact = f"argument {name} has the annotation {written}, which counts as none: {fault}"
            subject = f"actor {actor.actor_name} ({place_of(actor.fn)})"
            found.append(Warning(fact, obj=subject, hint=hint, id="switchyard.W025"))
    return found


# Below these milliseconds a value helps nobody: a result leaves before it is fetched, retries end within an outage. A
# first retry after a fraction of a second may be intended.
LEAST_MS = {
    "max_age": (1_000, "after which a job that has not started expires"),
    "result_ttl": (60_000, "after which its result may be gone"),
    "min_backoff": (100, "its first delay before a retry"),
    "max_backoff": (1_000, "its longest delay before a retry"),
}


def options_in_seconds(broker: Broker) -> list[CheckMessage]:
    """W020: a ``max_age``, ``result_ttl``, ``min_backoff`` or ``max_backoff`` that was most likely meant in seconds."""
    return [
        Warning(
            f"its {name} is {value:g} ms, {meaning}",
            hint=f"It is milliseconds: for {value:g} s write {name}={int(value * 1_000):_}.",
            obj=subject_of(actor),
            id="switchyard.W020",
        )
        for actor in broker.actors.values()
        for name, (least_ms, meaning) in LEAST_MS.items()
        if (value := actor.options.get(name)) is not None and is_duration(value) and value < least_ms
    ]


# A restart, a failover or a bad release of a service lasts for minutes.
LEAST_SPAN_MS = 15 * 60_000


def short_policies(yard: Yard) -> list[CheckMessage]:
    """W007: a queue that calls another service, whose retries may be over within 15 minutes."""
    found: list[CheckMessage] = []
    for queue in (queue for queue in yard.queues if queue.calls):
        span_ms = queue.retry.span_ms()
        if span_ms[0] < LEAST_SPAN_MS and queue.retry.retries:
            hint = f"Leave retry out in {TOPOLOGY} for 12 retries over hours, or give it longer delays_ms."
            found.append(_warning(f"queue {queue.name}", queue.calls, queue.retry.retries, span_ms, hint))
    return found


def short_actors(yard: Yard, actors: Iterable[Actor[..., Any]]) -> list[CheckMessage]:
    """W007: an actor that shortens the retries of such a queue to less than 15 minutes. None at all are deliberate."""
    queues = {queue.name: queue for queue in yard.queues if queue.calls}
    found: list[CheckMessage] = []
    for actor in actors:
        queue = queues.get(actor.queue_name)
        if queue is None or "retry_when" in actor.options or not RETRY_DELAYS & actor.options.keys():
            continue
        retries = actor.options.get("max_retries", queue.retry.retries)
        span_ms = span_of(actor, queue.retry)
        if retries and span_ms[0] < LEAST_SPAN_MS:
            hint = "Leave max_retries and its backoff out for those of its queue, or write max_retries=0 for none."
            found.append(_warning(subject_of(actor), queue.calls, retries, span_ms, hint))
    return found


def hurried_retries(yard: Yard, *, debug: bool) -> list[CheckMessage]:
    """E034: a production yard whose retries are shortened as in a demo."""
    if yard.retry_speed == 1 or debug:
        return []
    fact = f"retry_speed is {yard.retry_speed:,}: retries are over {yard.retry_speed:,} times as fast as declared"
    return [Error(fact, hint=f"Leave retry_speed out in {TOPOLOGY}.", obj="yard", id="switchyard.E034")]


def _warning(subject: str, calls: str, retries: int, span_ms: tuple[int, int], hint: str) -> CheckMessage:
    fact = (
        f"{retries_text(retries, span_ms)}; an outage of what it calls ({calls}) that lasts longer makes dead letters"
    )
    return Warning(fact, hint=hint, obj=subject, id="switchyard.W007")
