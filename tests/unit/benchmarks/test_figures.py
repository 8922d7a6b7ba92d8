"""Statistics behind every figure, the model of a flash sale, and the work and the yard of a measurement."""

import xml.etree.ElementTree as ET
from typing import cast

import dramatiq
import pytest
from django.conf import settings
from dramatiq.brokers.stub import StubBroker

from benchmarks import flash_sale
from benchmarks.figures import drain_rate, quantile, quartiles, ratios, spread, waits
from benchmarks.flash_sale import Layout, Outcome, row, simulate, with_sale
from benchmarks.flash_sale_run import Cost, modelled
from benchmarks.judging import judge
from benchmarks.plateau import climb, plateau_of
from benchmarks.records import Record
from benchmarks.targets import EVERY_KEEPING_PEER, EVERY_PEER, EVERY_PYTHON_PEER, Limit, Ratio
from devtools.measuring.apps import VARIABLE, AttemptLog, MeasuringConfig
from devtools.measuring.work import POOL, read_work, yard_with
from switchyard.broker.interface import Transport
from switchyard.broker.topology import Pool
from switchyard.middleware.dead_letters import DeadLetters
from switchyard.operations.plan import slots_with_backlog
from switchyard.workers.checks import check_yard


def starts(*times: tuple[float, int]) -> list[Record]:
    return [Record(0.0, started_s, worker, number) for number, (started_s, worker) in enumerate(times)]


def test_quartiles_lie_between_the_runs_and_a_spread_needs_at_least_one():
    assert (quartiles([5, 1, 3, 2, 4]), quartiles([1, 2])) == ((2, 3, 4), (1.25, 1.5, 1.75))
    assert quartiles([7]) == (7, 7, 7)

    row = spread([4, 2, 9])

    assert (row.lowest, row.median, row.highest, row.runs) == (2, 4, 9, 3)
    with pytest.raises(ValueError, match="no run"):
        spread([])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_quantile_is_a_value_that_was_measured(share, expected):
    assert quantile(list(range(100, 0, -1)), share) == expected


def test_ratios_pair_runs_of_one_round_and_leave_out_failed_ones():
    assert ratios([10.0, None, 30.0, 8.0], [5.0, 5.0, None, 2.0]) == [2.0, 4.0]
    assert ratios([10.0, 20.0], [5.0]) == [2.0]
    values = runs(switchyard=[10.0, 200.0, 30.0], dramatiq=[1.0, 100.0, 3.0])
    assert judge(over("dramatiq", at_least=9), values).median == pytest.approx(10)


def test_waits_are_milliseconds_from_sending_to_the_start():
    found = waits("idle", [Record(10.0, 10.0 + ms / 1000, 0, ms) for ms in range(1, 101)])

    assert (found["idle_p50_ms"], found["idle_p99_ms"]) == (pytest.approx(50), pytest.approx(99))
    assert found["idle_max_ms"] == pytest.approx(100)


def test_a_drain_counts_from_its_first_fifth_to_its_last_start_while_every_worker_runs():
    alone = [(second / 10, 0) for second in range(50)]
    together = [(5 + second / 20, second % 2) for second in range(101)]

    assert drain_rate(starts(*((second / 10, 0) for second in range(101)))) == pytest.approx(10)
    assert drain_rate(starts(*alone, *together)) == pytest.approx(20, rel=0.02)
    assert drain_rate(starts((0.0, 0), (1.0, 0), (2.0, 1))) == 0.0


def test_slots_double_until_a_step_gains_less_than_a_tenth():
    steps = climb(lambda slots: 100.0 * min(slots, 12), 128)

    assert steps == [(1, 100.0), (2, 200.0), (4, 400.0), (8, 800.0), (16, 1_200.0), (32, 1_200.0)]
    assert plateau_of(steps) == 16
    assert plateau_of(none := climb(lambda slots: 50.0 - slots, 128)) == 1
    assert ([slots for slots, _ in none], [slots for slots, _ in climb(float, 8)]) == ([1, 2], [1, 2, 4, 8])


DRAIN = "drain_1x8_per_s"


def over(peer: str, **bound: float) -> Ratio:
    return Ratio((DRAIN, "switchyard"), (DRAIN, peer), **bound)


def runs(**values: list[float | None]) -> dict[str, dict[str, list[float | None]]]:
    return {DRAIN: {name.replace("_", "-"): of for name, of in values.items()}}


@pytest.mark.parametrize(
    ("bound", "theirs", "ours", "holds"),
    [
        ({"at_least": 10}, 10.0, [90, 100, 110, 120, 130], True),
        ({"at_least": 10}, 10.0, [90, 90, 90, 200, 200], True),
        ({"at_least": 10}, 10.0, [89, 89, 100, 100, 100], False),
        ({"at_most": 0.75}, 1.0, [0.75, 0.8, 0.83], True),
        ({"at_most": 0.75}, 1.0, [0.7, 0.7, 1.2], False),
    ],
)
def test_a_ratio_holds_when_its_lower_quartile_or_the_upper_of_one_to_stay_low_is_within_a_tenth(
    bound, theirs, ours, holds
):
    found = judge(over("dramatiq", **bound), runs(switchyard=ours, dramatiq=[theirs] * len(ours)))

    assert (found.holds, found.decides) == (holds, True)


@pytest.mark.parametrize(
    ("group", "best"), [(EVERY_PEER, "bullmq"), (EVERY_PYTHON_PEER, "huey"), (EVERY_KEEPING_PEER, "bullmq")]
)
def test_the_best_of_a_group_is_found_and_named(group, best):
    values = runs(switchyard=[100], switchyard_stack=[90], dramatiq=[10], huey=[40], bullmq=[50])

    found = judge(over(group, at_least=1), values)

    assert f"({best})" in found.target
    lossy = runs(switchyard=[100], dramatiq=[10], huey=[40])
    assert "(dramatiq)" in judge(over(EVERY_KEEPING_PEER, at_least=1), lossy).target
    assert found.median == 100 / values[DRAIN][best][0]  # type: ignore[operator]


def test_a_limit_holds_by_its_median_and_leaves_the_exit_code_alone():
    values = {"idle_p50_ms": {"switchyard": [0.8, 0.9, 5.0]}}

    found = judge(Limit("idle_p50_ms", "switchyard", at_most=1.0), values)

    assert (found.holds, found.decides, found.median) == (True, False, 0.9)
    assert judge(Limit("idle_p50_ms", "switchyard", at_most=0.8), values).holds is False


@pytest.mark.parametrize("target", [over("dramatiq", at_least=9), over(EVERY_PEER, at_least=1), Limit("x", "y", 1)])
def test_what_was_not_measured_is_neither_held_nor_missed(target):
    found = judge(target, {DRAIN: {"switchyard": [None], "dramatiq": [1.0]}})

    assert (found.median, found.holds) == (None, None)


def test_a_ratio_may_be_of_two_figures_of_one_peer():
    values = {"deep_us": {"switchyard": [11.0]}, "shallow_us": {"switchyard": [10.0]}}
    target = Ratio(("deep_us", "switchyard"), ("shallow_us", "switchyard"), at_most=1.2)

    found = judge(target, values)

    assert found.holds is True
    assert found.target == "switchyard: deep_us ≤ 1.2 × shallow_us"


# From ten minutes before the sale to half an hour after it, on an otherwise steady day.
RATES = with_sale([1_000.0] * 1_440)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    layouts = (
        Layout("autoscaled", 6, 200, send_us=flash_sale.BULK_US),
        Layout("early", 6, 200, early=130, send_us=flash_sale.BULK_US),
        Layout("one by one", 6, 200, early=130),
    )
    return {layout.name: simulate(layout, RATES, slots_with_backlog) for layout in layouts}


def test_a_day_has_its_peak_at_the_sale_and_little_of_it_an_hour_later():
    rates = with_sale(flash_sale.made_day())

    assert len(rates) == flash_sale.DAY_S
    assert max(rates) == pytest.approx(flash_sale.PEAK, rel=0.02)
    assert rates[flash_sale.NOON_S - 1] < 2_000 > rates[flash_sale.NOON_S + 3_600]


def test_pods_before_the_sale_keep_the_promise_that_an_autoscaler_misses(outcomes):
    autoscaled, early = outcomes["autoscaled"], outcomes["early"]

    assert (early.first, early.refused, next(iter(autoscaled.first))) == ({}, 0, "promise missed")
    assert "queues full, 429" in autoscaled.first
    assert next(iter(outcomes["one by one"].first)) == "servers full", "messages are sent one by one"
    assert max(autoscaled.depth) <= 600_000
    assert early.wait_s(0.999) <= 1 < autoscaled.wait_s(0.9)


@pytest.mark.parametrize("name", ["autoscaled", "early", "one by one"])
def test_what_was_sent_has_started_or_was_refused(outcomes, name):
    outcome = outcomes[name]

    assert sum(outcome.arrivals) == pytest.approx(sum(outcome.starts) + outcome.gave_up + outcome.depth[-1], rel=1e-6)
    assert sum(outcome.starts) == pytest.approx(outcome.waits.total(), rel=1e-6)


def test_the_picture_is_one_and_the_table_has_a_row_for_each(outcomes):
    picture = ET.fromstring(flash_sale.draw(list(outcomes.values())))

    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 3 * len(outcomes) + 1
    assert row(outcomes["early"]).startswith("| early | 130 | ")
    assert "| nothing |" in row(outcomes["early"])


def test_a_modelled_sale_runs_what_the_processors_leave():
    # Two cores, 20,000 a second for 2 s: each costs 25 us to send and 100 us to run, so 15,000 of them start a second.
    found = modelled([2_000] * 20, Cost(25e-6, 100e-6), [0.2] * 100)

    assert found.deepest == pytest.approx(10_000, rel=0.02)
    assert found.per_s == pytest.approx(16_000, rel=0.05)
    assert found.over_s == pytest.approx(2.5, abs=0.11)
    assert 0.4 <= found.p95_s <= 0.8


@pytest.mark.parametrize("queue", [queue.name for queue in settings.SWITCHYARD.topology.queues])
def test_a_measured_pool_alone_serves_its_queue_in_a_sound_yard(queue):
    own = settings.SWITCHYARD.topology
    yard = yard_with(own, Pool(POOL, "gevent", (queue,), processes=1, slots=64))

    assert ([pool.name for pool in yard.pools_of(queue)], check_yard(yard)) == ([POOL], [])
    assert yard.dependencies == own.dependencies != ()


@pytest.mark.parametrize("arguments", ["[1", "7", '{"no_such_argument": 1}'])
def test_arguments_that_cannot_be_read_and_an_unknown_actor_are_refused_with_what_there_is(arguments):
    with pytest.raises(ValueError, match=r"does not take the arguments .*for example '\[1, 2\]'"):
        read_work(sorted(dramatiq.get_broker().actors)[0], arguments)
    with pytest.raises(ValueError, match="no actor 'no_such_actor'; the project has "):
        read_work("no_such_actor", "")


def test_what_fails_in_a_measurement_is_nobodys_dead_letter(monkeypatch, tmp_path):
    letters = DeadLetters(yard=settings.SWITCHYARD.topology, transport=cast(Transport, None), on_dead=(print,))
    broker = StubBroker(middleware=[letters])
    monkeypatch.setattr("dramatiq.get_broker", lambda: broker)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "times"))

    MeasuringConfig.ready(cast(MeasuringConfig, None))

    assert letters.on_dead == ()
    assert any(isinstance(entry, AttemptLog) for entry in broker.middleware)
