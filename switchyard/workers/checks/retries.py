"""Retries that are over before an outage is, and retries that are hurried outside of a demo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from dramatiq.actor import Actor

from switchyard.broker.topology import Yard
from switchyard.console.formatting import retries_text
from switchyard.middleware.retry_options import RETRY_DELAYS, span_of
from switchyard.workers.checks.actors import subject_of
from switchyard.workers.checks.queues import TOPOLOGY

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
    return CheckWarning(fact, hint=hint, obj=subject, id="switchyard.W007")
