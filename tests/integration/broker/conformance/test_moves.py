"""A message that a worker holds goes where it is moved, with what it carries, and never to nowhere."""

import time

import dramatiq
from dramatiq.middleware import CurrentMessage

from tests.factories.letters import letter
from tests.integration.broker.conformance.subjects import Subject
from tests.waiting import wait_for

CALL = '["job", 1, []]'


def test_a_diverted_message_is_in_the_other_lane_with_its_options(subject):
    id_, held = subject.send_and_hold(7)

    subject.transport.divert(held, lane="work-retry", delay_ms=0, options={"attempts": 1})
    subject.settle(held)
    again = subject.hold("work-retry")

    assert (again.message_id, again.queue_name, tuple(again.args)) == (id_, "work-retry", (7,))
    assert again.options["attempts"] == 1
    assert again.options["enqueued_at"] == held.options["enqueued_at"]
    assert subject.places() == 1


def test_a_deferred_message_goes_back_to_where_it_came_from(subject):
    id_, held = subject.send_and_hold()

    subject.transport.defer(held, delay_ms=0, options={"deferred_by": "rate_limit"})
    subject.settle(held)
    again = subject.hold()

    assert (again.message_id, again.queue_name) == (id_, "work")
    assert again.options["deferred_by"] == "rate_limit"
    assert "attempts" not in again.options


def test_a_parked_message_is_scheduled_where_it_came_from_and_says_how_long_it_was_parked(subject):
    id_, held = subject.send_and_hold(7)

    delay_ms = subject.transport.park(held, call=CALL, parked_ms=0, options={})
    subject.settle(held)

    wait_for(lambda: subject.places() == 1)
    stats = subject.transport.stats("work")
    assert (stats.live.scheduled, stats.live.waiting, stats.live.running, stats.dead) == (1, 0, 0, 0)
    assert stats.parked == (1 if subject.promises.lists_parked else 0)
    assert delay_ms <= (36_000 if subject.promises.lists_parked else 1_000)
    assert id_ in subject.scheduled(parked_ms=delay_ms)


def test_a_message_whose_actor_is_not_paused_stays_with_its_worker(subject):
    _, held = subject.send_and_hold()

    assert subject.transport.return_paused(held) is False
    assert not getattr(held, "moved", False)
    assert subject.places() == 1


def test_a_parked_message_runs_when_a_worker_knows_it(subject, run_worker):
    id_, held = subject.send_and_hold()
    subject.transport.park(held, call=CALL, parked_ms=0, options={})
    subject.settle(held)
    ran = record_runs(subject)

    started_s = time.monotonic()
    with run_worker(broker=subject.broker):
        wait_for(lambda: ran)
        took_s = time.monotonic() - started_s
        wait_for(subject.at_rest)

    assert [run[0] for run in ran] == [id_]
    assert took_s < 25, "it would be due again after 30 s"


def test_a_worker_that_dies_after_parking_loses_nothing_and_doubles_no_more_than_promised(subject):
    _, held = subject.send_and_hold()

    subject.transport.park(held, call=CALL, parked_ms=0, options={})
    before_the_ack = subject.places()
    subject.crash()

    assert before_the_ack == subject.promises.places
    wait_for(lambda: subject.places() == subject.promises.places)  # a server may take a moment to notice the crash


def test_whether_a_worker_knows_a_call_is_told_where_that_is_promised(subject, run_worker):
    _, held = subject.send_and_hold()
    subject.transport.park(held, call=CALL, parked_ms=0, options={})

    def known() -> bool:
        return subject.transport.known_lately(held, call=CALL, within_ms=60_000)

    before = known()
    record_runs(subject)
    with run_worker(broker=subject.broker):
        if subject.promises.lists_parked:
            wait_for(known)

    assert (before, known()) == (False, subject.promises.lists_parked)


def test_a_message_moved_for_later_is_scheduled(subject):
    _, held = subject.send_and_hold()

    subject.transport.divert(held, lane="work-retry", delay_ms=60_000, options={})
    subject.settle(held)

    wait_for(lambda: subject.places() == 1)
    stats = subject.transport.stats("work")
    assert (stats.live.running, stats.retry.scheduled, stats.retry.waiting) == (0, 1, 0)


def test_a_message_moved_for_later_runs_then_and_not_before(subject, run_worker):
    ran = record_runs(subject)
    _, held = subject.send_and_hold()

    moved_s = time.time()
    subject.transport.defer(held, delay_ms=300, options={})
    subject.settle(held)
    with run_worker(broker=subject.broker):
        wait_for(lambda: ran)
        wait_for(subject.at_rest)

    assert len(ran) == 1
    assert ran[0][1] - moved_s >= 0.299  # due times are whole milliseconds


def test_a_moved_message_is_in_no_more_places_than_promised(subject):
    _, held = subject.send_and_hold()

    subject.transport.divert(held, lane="work-retry", delay_ms=0, options={})
    before_the_ack = subject.places()
    subject.settle(held)

    assert before_the_ack == subject.promises.places
    wait_for(lambda: subject.places() == 1)


def test_a_worker_that_dies_after_a_move_loses_nothing_and_doubles_no_more_than_promised(subject, run_worker):
    ran = record_runs(subject)
    id_, held = subject.send_and_hold()

    subject.transport.divert(held, lane="work-retry", delay_ms=0, options={"attempts": 1})
    subject.crash()
    with run_worker(broker=subject.broker):
        wait_for(lambda: len(ran) == subject.promises.places)
        wait_for(subject.at_rest)

    assert [run[0] for run in ran] == [id_] * subject.promises.places


def test_a_worker_that_dies_without_a_move_has_its_message_run_once(subject, run_worker):
    ran = record_runs(subject)
    id_ = subject.send()
    subject.hold()

    subject.crash()
    with run_worker(broker=subject.broker):
        wait_for(lambda: ran)
        wait_for(subject.at_rest)

    assert [run[0] for run in ran] == [id_]


def test_a_buried_message_is_a_letter_and_nowhere_else(subject):
    id_, held = subject.send_and_hold()

    subject.transport.dead_letter(held, letter(id=id_, queue="work"))
    subject.transport.dead_letter(held, letter(id=id_, queue="work"))
    subject.settle(held)

    wait_for(lambda: subject.places() == 1)
    found = subject.transport.find_dead_letter("work", id_)
    assert subject.transport.stats("work").dead == 1, "the same id twice is one letter"
    assert found is not None and (found.id, found.reason) == (id_, "exhausted")


def test_a_worker_that_dies_after_a_burial_has_it_run_no_more_often_than_promised(subject, run_worker):
    ran = record_runs(subject)
    id_, held = subject.send_and_hold()

    subject.transport.dead_letter(held, letter(id=id_, queue="work"))
    subject.crash()
    with run_worker(broker=subject.broker):
        subject.send()
        wait_for(lambda: len(ran) >= subject.promises.places)
        wait_for(subject.at_rest)

    assert [run[0] for run in ran].count(id_) == subject.promises.places - 1
    assert subject.transport.find_dead_letter("work", id_) is not None


def test_a_message_is_isolated_where_that_is_promised(subject):
    _, held = subject.send_and_hold()

    moved = subject.transport.isolate(held)
    subject.settle(held)

    assert moved is subject.promises.isolates


def record_runs(subject: Subject) -> list[tuple[str, float]]:
    """Declare the job, and return where each run's message id and time will be."""
    ran: list[tuple[str, float]] = []

    @dramatiq.actor(broker=subject.broker, queue_name="work")
    def job(number: int) -> None:
        current = CurrentMessage.get_current_message()
        ran.append((current.message_id if current else "", time.time()))

    return ran
