from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.conf import declared_yard
from switchyard.queues.queries import WIDTH, SlotRun, holders_of, line_of, picture_of
from tests.factories.brokers import the_global_broker
from tests.unit.operations.yards import running

NOW = 1_800_000_000_000


def test_runs_at_the_same_time_are_on_lines_of_their_own():
    runs = [
        SlotRun("export", NOW - 60_000, None),
        SlotRun("mail", NOW - 50_000, NOW - 40_000),
        SlotRun("mail", NOW - 30_000, None),
    ]

    found = picture_of(runs, 4, NOW, late_after_ms=None)

    blocks = found["blocks"]
    assert [(block["y"], block["kind"]) for block in blocks] == [(0, "live"), (26, "ok"), (26, "live")]
    assert [block["x"] + block["width"] == WIDTH for block in blocks] == [True, False, True]
    assert blocks[0]["title"] == "export, 1 min 00 s so far"
    assert (found["slots"], found["span"], found["has_long"]) == (4, "1 min 05 s", False)


def test_runs_longer_than_the_promise_of_a_late_queue_are_marked():
    runs = [SlotRun("export", NOW - 60_000, None), SlotRun("mail", NOW - 900, NOW - 800)]

    late, on_time = (picture_of(runs, 2, NOW, late_after_ms=promise) for promise in (1_000, None))

    assert [block["kind"] for block in late["blocks"]] == ["bad", "ok"] and late["has_long"]
    assert [block["hatch_x"] is not None for block in late["blocks"]] == [True, False]
    assert not on_time["has_long"]


def test_slots_of_a_pool_for_retries_are_not_counted_among_the_queues():
    jobs = [running("bad_import", "retries")] * 6 + [running("sync", "mail"), running("bad_import", "mail")] * 2
    first, second, third = holders_of("mail", ("mail",), [*jobs, running("old", "retries")])

    assert (first.actor, first.holding(8)) == ("bad_import", "holds 2 of 8 slots and 6 of other pools")
    assert (second.actor, second.holding(8), third.actor, third.here) == ("sync", "holds 2 of 8 slots", "old", 0)


@pytest.fixture
def actors() -> Iterator[None]:
    with the_global_broker(StubBroker()):
        dramatiq.actor(actor_name="export", queue_name="default")(line_of)
        yield


def test_the_line_names_the_queue_with_the_nearest_promise_that_fits(actors):
    yard = declared_yard()

    short, long = (line_of(yard.queue_of("default"), "export", took_ms) for took_ms in (8_000, 48_000))

    assert (short["after"], long["after"]) == ("images", "slow")
    assert (long["before"], long["took_ms"], long["promise"]) == ("default", 48_000, "start in 5 min")
    assert long["place"].startswith("switchyard/queues/queries.py:")


def test_no_line_is_named_where_none_helps(actors):
    yard = declared_yard()

    assert line_of(yard.queue_of("default"), "export", 86_400_000) is None
    assert line_of(yard.queue_of("images"), "export", 48_000) is None
    assert line_of(yard.queue_of("default"), "gone", 48_000) is None
