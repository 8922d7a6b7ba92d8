"""The filter of lists of jobs, read from addresses and commands."""

import re

import pytest
from django.http import QueryDict

from switchyard.broker.clock import now_ms
from switchyard.history.filters import Filter

WHOLE = Filter(
    states=("dead", "expired"), actor="send_mail", queue="default", owner="shop", tag="vip",
    argument=("customer_id", "a=b"), error="KeyError", fingerprint="beef", release="1.4", waited="80-320", ran="5-",
    since="9999d", until="2026-11-21T13:00:00Z", failures=True,
)  # fmt: skip


def test_a_filter_is_read_from_what_it_writes():
    assert Filter.from_query(WHOLE.to_query()) == WHOLE
    assert Filter().to_query() == {} and not Filter() and WHOLE


@pytest.mark.parametrize(
    "query",
    [
        QueryDict("state=dead&state=expired&actor=send_mail&after=5-6&limit=7"),
        {"state": ["dead", "expired"], "actor": "send_mail", "queue": "", "owner": None},
        {"state": "dead,expired,dead", "actor": ["send_mail"]},
    ],
)
def test_states_may_be_repeated_or_separated_by_commas(query):
    assert Filter.from_query(query) == Filter(states=("dead", "expired"), actor="send_mail")


@pytest.mark.parametrize(
    ("since", "fixed"),
    [
        ("999999d", "1970-01-01T00:00:00.000Z"),
        ("0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_that_no_job_can_have_are_the_first_and_the_last(since, fixed):
    assert Filter.from_query({"since": since, "until": since}).fixed() == Filter(since=fixed, until=fixed)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"colour": "red"}, "colour: is not a filter"),
        ({"state": "dying"}, "state: 'dying' is not a state"),
        ({"since": "yesterday"}, "since: 'yesterday' is not a time"),
        ({"until": "9999999999"}, "until: '9999999999' is not a time"),
        ({"argument": "customer_id"}, "argument: 'customer_id' has no name and value"),
        ({"waited": "-"}, "waited: '-' is no range of milliseconds"),
        ({"waited": "1s-2s"}, "waited: '1s-2s' is no range of milliseconds"),
        ({"ran": "long"}, "ran: 'long' is no range of milliseconds"),
        ({"waited": "9-3"}, "waited: '9-3' is no range of milliseconds"),
        ({"since": "1h", "until": "2h"}, "since: '1h' is later than until, '2h'"),
        ({"failures": "perhaps"}, "failures: 'perhaps' is neither"),
        ({"actor": "a" * 300}, "actor: 'aaa"),
        ({"actor": "a\x00"}, r"actor: 'a\x00' is too long or not printable"),
        ({"actor": ["a", "b"]}, "actor: is given 2 times"),
        ({"actor": [1]}, "actor: [1] is not text"),
    ],
)
def test_an_unusable_value_is_refused_with_its_name(query, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Filter.from_query(query)


def test_times_are_relative_until_they_are_fixed():
    before = now_ms()

    filter_ = Filter(since="2h", until="2026-11-21T14:00:00+01:00")

    assert filter_.since_ms is not None and 0 <= filter_.since_ms - (before - 7_200_000) < 60_000
    fixed = filter_.fixed()
    assert fixed.until == "2026-11-21T13:00:00.000Z" and fixed.until_ms == filter_.until_ms
    assert fixed.since_ms is not None and abs(fixed.since_ms - filter_.since_ms) < 60_000
    assert Filter(since="2026-11-21T13:00:00").since_ms == filter_.until_ms, "UTC without an offset"
