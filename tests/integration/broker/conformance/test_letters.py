"""Dead letters, unreadable messages and figures, as an operator meets them."""

import dataclasses
from typing import Any

from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.dead_lists import payload_of
from switchyard.broker.stores.history_streams import LiveJob, live_step
from tests.factories.letters import discard, letter, requeue
from tests.integration.broker.conformance.subjects import Subject
from tests.waiting import wait_for


def dead_letter(subject: Subject, number: int = 0) -> DeadLetter:
    id_, held = subject.send_and_hold(number)
    made = letter(id=id_, queue="work", actor="job", message=payload_of(held))
    subject.transport.dead_letter(held, made)
    subject.settle(held)
    wait_for(lambda: subject.transport.stats("work").live.running == 0)
    return made


def test_a_requeued_letter_waits_in_its_live_queue_in_a_new_life(subject):
    made = dead_letter(subject, number=7)

    assert requeue(subject.transport, "work", made.id) == "moved"
    again = subject.hold()

    assert (again.message_id, again.queue_name, tuple(again.args)) == (made.id, "work", (7,))
    assert (again.options["attempts"], again.options["generation"]) == (0, 1)
    assert subject.transport.stats("work").dead == 0
    assert requeue(subject.transport, "work", made.id) == "gone"


def test_a_letter_that_died_again_while_it_was_requeued_stays(subject):
    made = dead_letter(subject)
    second = dataclasses.replace(made, died_at=made.died_at + 1)
    subject.meanwhile.act = lambda: subject.dead_lists.add(second)

    answer = subject.transport.requeue("work", {made.id: made.died_at}, nonce="n")[made.id]

    assert answer == ("gone" if subject.promises.requeues_what_it_read else "moved")
    stats = subject.transport.stats("work")
    assert subject.transport.find_dead_letter("work", made.id) == second
    assert stats.dead == 1
    assert stats.live.waiting == (0 if subject.promises.requeues_what_it_read else 1)


def test_letters_are_listed_newest_first_page_by_page(subject):
    made = [dead_letter(subject, number).id for number in range(5)]

    pages: list[Any] = []
    cursor: int | None = 0
    while cursor is not None:
        page = subject.transport.dead_letters("work", cursor=cursor, limit=2)
        pages.append([found.id for found in page.items])
        cursor = page.cursor

    assert pages == [made[:2:-1], made[2:0:-1], made[:1]]


def test_a_discarded_letter_is_gone_and_a_second_time_is_said(subject):
    made = dead_letter(subject)

    assert discard(subject.transport, "work", made.id) == "moved"

    assert subject.transport.find_dead_letter("work", made.id) is None
    assert subject.places() == 0
    assert discard(subject.transport, "work", made.id) == "gone"


def test_a_letter_that_died_again_while_it_was_discarded_stays(subject):
    made = dead_letter(subject)
    second = dataclasses.replace(made, died_at=made.died_at + 1)

    answers = subject.transport.discard(
        "work", {made.id: made.died_at}, nonce="n", keep=lambda letters: subject.dead_lists.add(second)
    )

    assert answers != {made.id: "moved"}
    assert subject.transport.find_dead_letter("work", made.id) == second


def test_a_letter_that_nobody_wrote_is_none(subject):
    assert subject.transport.find_dead_letter("work", "nobody") is None
    assert subject.transport.dead_letters("work").items == []


def test_what_nobody_can_read_is_listed_newest_first_and_counted(subject):
    if not subject.promises.keeps_unreadable:
        assert subject.transport.unreadable("work").items == []
        assert subject.transport.stats("work").quarantined == 0
        return
    for raw in (b"\xff\xfe", b"[" * 5_000):
        subject.spoil(raw)

    found = subject.transport.unreadable("work").items

    assert [(item.size_bytes, item.raw) for item in found] == [(5_000, b"[" * 4_096), (2, b"\xff\xfe")]
    assert subject.transport.stats("work").quarantined == 2


def test_stats_tell_what_waits_is_scheduled_runs_and_is_dead(subject):
    dead_letter(subject)
    subject.send(1)
    subject.hold()
    for number in range(3):
        subject.send(number)
    subject.send(9, delay_ms=60_000)

    stats = subject.transport.stats("work")

    live, retry = stats.live, stats.retry
    if subject.promises.tells_all:
        assert live.waiting + live.running == 4, "a holder may have prefetched"
        assert live.running >= 1
    else:
        assert (live.waiting <= 3, live.running, live.oldest_age_ms) == (True, 0, None)
    assert (live.scheduled, stats.dead, stats.quarantined) == (1, 1, 0)
    assert (retry.waiting, retry.scheduled, retry.running, retry.oldest_age_ms) == (0, 0, 0, None)
    assert (
        live.waiting == 0
        or not subject.promises.tells_all
        or (live.oldest_age_ms is not None and 0 <= live.oldest_age_ms < 5_000)
    )


def test_a_cancelled_message_is_taken_out_where_that_is_promised(subject):
    waiting, unknown = subject.send(), "nobody"

    answer = subject.transport.cancel("work", waiting)

    assert answer == ("cancelled" if subject.promises.takes_out else "unknown")
    assert subject.transport.cancel("work", unknown) == "unknown"


def test_a_message_whose_worker_died_knows_that_it_was_asked_to_stop(subject):
    id_ = subject.send()
    subject.records.write([live_step("work", LiveJob(id_, "running", attempt=1))])
    before = subject.transport.cancel_requested(subject.hold())

    place = subject.transport.cancel("work", id_)
    subject.records.cancel(id_, place=place)
    subject.crash()
    consumer = subject.broker.consume("work", timeout=100)
    again = wait_for(lambda: next(consumer))

    assert place == ("asked" if subject.promises.takes_out else "unknown")
    assert (before, subject.transport.cancel_requested(again)) == (False, True)
    consumer.close()
