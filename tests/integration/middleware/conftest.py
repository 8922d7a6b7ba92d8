"""The broker of a small yard, and examples of Hypothesis that are the same in every run."""

from __future__ import annotations

import pytest

from switchyard.broker.redis_broker import RedisBroker
from tests import same_examples as same_examples
from tests.factories.yards import small_yard


@pytest.fixture
def broker(yard_broker) -> RedisBroker:
    return yard_broker(small_yard())
