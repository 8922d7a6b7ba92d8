from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from switchyard.audit.services import Who
from switchyard.broker.errors import NotFound
from switchyard.broker.interface import Facilities
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.dead_letters import acts, projection, queries
from switchyard.dead_letters.models import DeadLetter
from tests.factories.letters import discard, requeue

pytestmark = pytest.mark.django_db

OPERATOR = Who("a.lind", "page")


@pytest.fixture
def made(bury: Callable[..., Letter]) -> Letter:
    """A letter with its row."""
    made = bury()
    projection.project_or_log(made)
    return made


def waiting(facilities: Facilities) -> int:
    return facilities.transport.stats("default").live.waiting


def test_requeue_moves_the_letter_and_says_who(made: Letter, facilities: Facilities, operator: User) -> None:
    act = acts.act_on(made.id, "requeue", by=operator.username, reason="mended")

    row = DeadLetter.objects.get()
    assert act == ""
    assert (row.state, row.state_by, row.claim_token) == ("requeued", "a.lind", "")
    assert [(entry["act"], entry["by"], entry["note"]) for entry in row.history] == [("requeue", "a.lind", "mended")]
    assert waiting(facilities) == 1
    assert facilities.transport.stats("default").dead == 0


def test_requeue_repeated_sends_nothing_twice(made: Letter, facilities: Facilities) -> None:
    first, second = (acts.act_on(made.id, "requeue", by="a.lind") for _ in range(2))

    assert first == "" and "is requeued already" in second
    assert waiting(facilities) == 1


def test_letter_without_a_row_yet_can_be_requeued(bury: Callable[..., Letter], facilities: Facilities) -> None:
    made = bury()

    assert acts.act_on(made.id, "requeue", by="a.lind") == ""

    assert DeadLetter.objects.get().state == "requeued"


def test_discard_drops_the_letter_and_keeps_the_row(
    bury: Callable[..., Letter], facilities: Facilities, operator: User
) -> None:
    made = bury()

    assert acts.act_on(made.id, "discard", by=operator.username, reason="duplicate") == ""

    assert DeadLetter.objects.get().state == "discarded"
    assert (facilities.transport.stats("default").dead, waiting(facilities)) == (0, 0)


def test_acknowledged_letter_stays_and_can_still_be_requeued(
    bury: Callable[..., Letter], facilities: Facilities, operator: User
) -> None:
    made = bury()

    assert acts.act_on(made.id, "acknowledge", by=operator.username) == ""
    assert acts.act_on(made.id, "acknowledge", by=operator.username) != ""
    assert facilities.transport.stats("default").dead == 1

    assert acts.act_on(made.id, "requeue", by=operator.username) == ""


def test_letter_that_something_else_took_is_missing(made: Letter, facilities: Facilities) -> None:
    discard(facilities.transport, "default", made.id)

    act = acts.act_on(made.id, "requeue", by="a.lind")

    assert act != ""
    assert DeadLetter.objects.get().state == "missing"
    assert waiting(facilities) == 0


def test_unknown_ids_and_groups_are_refused(facilities: Facilities) -> None:
    with pytest.raises(NotFound, match="'nope'"):
        acts.act_on("nope", "requeue", by="a.lind")
    with pytest.raises(NotFound, match="'nope'"):
        acts.apply("requeue", [], who=OPERATOR, group="nope")


def test_group_is_requeued_oldest_first_up_to_the_limit(bury: Callable[..., Letter], facilities: Facilities) -> None:
    made = [bury(died_at=1_800_000_000_000 + index) for index in range(5)]
    bury(fingerprint="another")
    acts.reconcile_all()

    oldest = list(queries.listing(fingerprint="f00dfacef00dface").order_by("died_at")[:3])
    outcome = acts.apply("requeue", oldest, who=OPERATOR, group="f00dfacef00dface")

    assert outcome.done == tuple(letter.id for letter in made[:3])
    assert waiting(facilities) == 3


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_requeue_a_letter_once(bury: Callable[..., Letter], facilities: Facilities) -> None:
    made = [bury() for _ in range(5)]
    acts.reconcile_all()
    barrier = threading.Barrier(2)

    def click(name: str, act: acts.ActName) -> list[bool]:
        done = []
        try:
            for letter in made:
                barrier.wait(30)
                done.append(acts.act_on(letter.id, act, by=name) == "")
        finally:
            connection.close()
        return done

    with ThreadPoolExecutor(2) as pool:
        requeued = pool.submit(click, "a.lind", "requeue")
        discarded = pool.submit(click, "m.keller", "discard")

    pairs = list(zip(requeued.result(), discarded.result(), strict=True))
    assert all(pair in ((True, False), (False, True)) for pair in pairs)
    assert waiting(facilities) == sum(requeue for requeue, _ in pairs)
    assert facilities.transport.stats("default").dead == 0
    states = {row.message_id: row.state for row in DeadLetter.objects.all()}
    expected = ["requeued" if requeue else "discarded" for requeue, _ in pairs]
    assert [states[letter.id] for letter in made] == expected


def interrupt(message_id: str, act: str, *, seconds_ago: int = 120) -> None:
    """Leave the row as a process does that was killed after it claimed the row."""
    DeadLetter.objects.filter(message_id=message_id).update(
        claim_token="dead-process", claim_act=act, claim_by="a.lind",
        claim_at=timezone.now() - timedelta(seconds=seconds_ago),
    )  # fmt: skip


def test_act_killed_before_the_letter_moved_changes_nothing(made: Letter, facilities: Facilities) -> None:
    interrupt(made.id, "requeue")

    report = acts.reconcile_all()

    row = DeadLetter.objects.get()
    assert (report["settled"], row.state, row.claim_token) == (1, "new", "")
    assert "interrupted before the letter moved" in row.history[-1]["note"]
    assert acts.act_on(made.id, "requeue", by="m.keller") == ""


@pytest.mark.parametrize(("act", "state"), [("requeue", "requeued"), ("discard", "discarded")])
def test_act_killed_after_the_letter_moved_is_finished(
    made: Letter, facilities: Facilities, act: str, state: str
) -> None:
    {"requeue": requeue, "discard": discard}[act](facilities.transport, "default", made.id)
    interrupt(made.id, act)

    acts.reconcile_all()
    acts.reconcile_all()

    row = DeadLetter.objects.get()
    assert (row.state, row.state_by, row.claim_token) == (state, "a.lind", "")
    assert len(row.history) == 1


def test_act_just_begun_elsewhere_is_not_done_twice(made: Letter, facilities: Facilities) -> None:
    interrupt(made.id, "requeue", seconds_ago=1)

    act = acts.act_on(made.id, "discard", by="m.keller")

    assert "a.lind has begun to requeue" in act
    assert facilities.transport.stats("default").dead == 1


def test_old_claim_is_settled_by_whoever_acts_next(made: Letter, facilities: Facilities) -> None:
    interrupt(made.id, "requeue")

    assert acts.act_on(made.id, "discard", by="m.keller") == ""

    assert DeadLetter.objects.get().state == "discarded"


@pytest.mark.parametrize("act", ["requeue", "discard", "acknowledge"])
def test_reason_is_written_without_what_postgresql_cannot_store(bury: Callable[..., Letter], act: acts.ActName) -> None:
    result = acts.act_on(bury().id, act, by="b.lind", reason="why\0")

    assert result == "" and DeadLetter.objects.get().history[-1]["note"] == "why\\x00"
