"""The watch over hash slots covers every test, not those of the broker alone."""

import pytest

from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from tests.spread_keys import SpreadKeys


@pytest.mark.parametrize("words", [("MGET", "{a}:1", "{b}:1"), ("DEL", "{a}:1", "{a}:2", "{b}:1")])
def test_a_call_over_two_slots_is_refused_before_it_is_sent(words):
    calls = RedisCalls(connect("redis://127.0.0.1:1"))

    with pytest.raises(SpreadKeys, match=words[0]):
        calls.command(*words)
    with pytest.raises(SpreadKeys, match=words[0]):
        calls.pipeline([words])
