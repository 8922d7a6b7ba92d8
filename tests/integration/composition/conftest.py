"""A broker with the whole stack, which is Dramatiq's global one, and a worker on it."""

from collections.abc import Iterator

import pytest

from switchyard.broker.redis_broker import RedisBroker
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard


@pytest.fixture
def broker(yard_broker) -> Iterator[RedisBroker]:
    """A broker of a small yard whose failed jobs are retried once."""
    made = yard_broker(small_yard(max_retries=1))
    with the_global_broker(made):
        yield made
