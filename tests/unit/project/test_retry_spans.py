"""What is kept for a job outlives the longest time that its retries may take."""

from __future__ import annotations

from datetime import timedelta

import dramatiq
import pytest

from apps.webhooks.services import ATTEMPTS_KEPT
from project.topology import YARD
from switchyard.broker.stores.job_records import LIVE_TTL_MS
from switchyard.conf import DEFAULT_YARD
from switchyard.jobs.once import KEPT as ONCE_KEPT
from switchyard.middleware.retries import span_of

LEAST = timedelta(minutes=20)
MOST = min(ONCE_KEPT, ATTEMPTS_KEPT, timedelta(milliseconds=LIVE_TTL_MS))
ACTORS = [actor for actor in dramatiq.get_broker().actors.values() if actor.queue_name in YARD.lanes]


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.actor_name)
def test_retries_of_an_actor_outlast_twenty_minutes_and_nothing_that_is_kept_for_it(actor) -> None:
    least_ms, most_ms = span_of(actor, YARD.queue_of(actor.queue_name).retry)

    assert timedelta(milliseconds=least_ms) > LEAST
    assert timedelta(milliseconds=most_ms) < MOST


def test_a_project_that_declares_no_yard_has_the_same_patience() -> None:
    for queue in DEFAULT_YARD.queues:
        assert timedelta(milliseconds=queue.retry.span_ms()[0]) > LEAST
