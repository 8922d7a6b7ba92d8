"""The flash sale's simulation, and the model of a real one."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks.flash_sale import (
    BULK_US,
    DAY_S,
    NOON_S,
    PEAK,
    Layout,
    Outcome,
    draw,
    made_day,
    row,
    simulate,
    with_sale,
)
from benchmarks.flash_sale_run import Cost, modelled
from switchyard.operations.plan import slots_with_backlog

# From ten minutes before the sale to half an hour after it, on an otherwise steady day.
RATES = with_sale([1_000.0] * 1_440)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    layouts = (
        Layout("autoscaled", 6, 200, send_us=BULK_US),
        Layout("early", 6, 200, early=130, send_us=BULK_US),
        Layout("one by one", 6, 200, early=130),
    )
    return {layout.name: simulate(layout, RATES, slots_with_backlog) for layout in layouts}


def test_a_day_has_its_peak_at_the_sale_and_little_of_it_an_hour_later() -> None:
    rates = with_sale(made_day())

    assert len(rates) == DAY_S
    assert max(rates) == pytest.approx(PEAK, rel=0.02)
    assert rates[NOON_S - 1] < 2_000 > rates[NOON_S + 3_600]


def test_pods_before_the_sale_keep_the_promise_that_an_autoscaler_misses(outcomes: dict[str, Outcome]) -> None:
    autoscaled, early = outcomes["autoscaled"], outcomes["early"]

    assert early.first == {}
    assert early.refused == 0
    assert next(iter(autoscaled.first)) == "promise missed"
    assert "queues full, 429" in autoscaled.first
    assert max(autoscaled.depth) <= 600_000
    assert early.wait_s(0.999) <= 1 < autoscaled.wait_s(0.9)


def test_servers_are_full_first_where_messages_are_sent_one_by_one(outcomes: dict[str, Outcome]) -> None:
    assert next(iter(outcomes["one by one"].first)) == "servers full"


@pytest.mark.parametrize("name", ["autoscaled", "early", "one by one"])
def test_what_was_sent_has_started_or_was_refused(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]

    assert sum(outcome.arrivals) == pytest.approx(sum(outcome.starts) + outcome.gave_up + outcome.depth[-1], rel=1e-6)
    assert sum(outcome.starts) == pytest.approx(outcome.waits.total(), rel=1e-6)


def test_the_picture_is_one_and_the_table_has_a_row_for_each(outcomes: dict[str, Outcome]) -> None:
    picture = ET.fromstring(draw(list(outcomes.values())))

    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 3 * len(outcomes) + 1
    assert row(outcomes["early"]).startswith("| early | 130 | ")
    assert "| nothing |" in row(outcomes["early"])


def test_a_modelled_sale_runs_what_the_processors_leave() -> None:
    # Two cores, 20,000 a second for 2 s: each costs 25 us to send and 100 us to run, so 15,000 of them start a second.
    found = modelled([2_000] * 20, Cost(25e-6, 100e-6), [0.2] * 100)

    assert found.deepest == pytest.approx(10_000, rel=0.02)
    assert found.per_s == pytest.approx(16_000, rel=0.05)
    assert found.over_s == pytest.approx(2.5, abs=0.11)
    assert 0.4 <= found.p95_s <= 0.8
