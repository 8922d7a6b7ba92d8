from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.conf import declared_yard
from switchyard.queues.facts import line_of


@pytest.fixture
def actors() -> Iterator[None]:
    before, broker = dramatiq.get_broker(), StubBroker()
    dramatiq.set_broker(broker)
    dramatiq.actor(actor_name="export", queue_name="default", broker=broker)(line_of)
    yield
    dramatiq.set_broker(before)


def test_the_line_names_the_queue_with_the_nearest_promise_that_fits(actors: None) -> None:
    yard = declared_yard()

    short, long = (line_of(yard.queue_of("default"), "export", took_ms) for took_ms in (8_000, 48_000))

    assert short is not None and long is not None
    assert (short.after, long.after) == ("images", "slow")
    assert (long.before, long.took_ms, long.promise) == ("default", 48_000, "start in 5 min")
    assert long.place.startswith("switchyard/queues/facts.py:")


def test_no_line_is_named_where_none_helps(actors: None) -> None:
    yard = declared_yard()

    assert line_of(yard.queue_of("default"), "export", 86_400_000) is None
    assert line_of(yard.queue_of("images"), "export", 48_000) is None
    assert line_of(yard.queue_of("default"), "gone", 48_000) is None
