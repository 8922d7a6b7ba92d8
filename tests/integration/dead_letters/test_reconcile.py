"""Rows of dead letters: written as a letter dies, and brought back in line with the broker."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone
from structlog.testing import capture_logs

from switchyard.broker.keys import Keys
from switchyard.broker.queue.codec import MESSAGE_ID
from switchyard.broker.redis.own_keys import noted
from switchyard.broker.stores.history_streams import LiveJob, live_step
from switchyard.dead_letters import acts, projection
from switchyard.dead_letters.models import DeadLetter
from tests.factories.letters import discard, keep, letter
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


def test_rows_are_made_for_letters_that_have_none(bury):
    made = {bury(queue=queue).id for queue in ("default", "webhook", "slow")}

    assert acts.reconcile_all()["made"] == 3
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == made
    assert not any(acts.reconcile_all().values())


def test_a_letter_that_cannot_be_read_hides_no_other(bury, facilities):
    keys, client = facilities.records.keys, facilities.records.calls.client
    for rubbish in (b"{", b"[]", b"[" * 100_000, b'{"id": "of a release to come", "more": 1}'):
        client.hset(keys.queue("default").dead_letters, rubbish, rubbish)
        client.rpush(keys.queue("default").dead, rubbish)
    made = bury()

    acts.reconcile_all()

    assert [row.message_id for row in DeadLetter.objects.all()] == [made.id]
    assert facilities.transport.find_dead_letter("default", "{") is None


def test_a_letter_that_fits_into_no_row_hides_no_other(bury):
    odd = [bury(attempts=10**30), bury(died_at=10**30)]
    made = bury(id="a" * 200)  # as long as the broker takes ids

    acts.reconcile_all()

    assert [row.message_id for row in DeadLetter.objects.all()] == [made.id]
    assert noted() == [Keys().queue(odd[0].queue).dead_letters]


def test_ids_as_long_as_the_broker_takes_them_fit():
    longest = DeadLetter._meta.get_field("message_id").max_length

    assert MESSAGE_ID.fullmatch("a" * longest)
    assert not MESSAGE_ID.fullmatch("a" * (longest + 1))


def test_long_list_is_walked_over_several_calls(bury):
    for _ in range(650):
        bury()

    counts = []
    for _ in range(4):
        acts.reconcile_all(pages=1)
        counts.append(DeadLetter.objects.count())

    assert counts == [400, 600, 650, 650]


def test_rows_whose_letter_is_gone_are_marked(bury, facilities):
    gone, there = bury(), bury()
    acts.reconcile_all()
    discard(facilities.transport, "default", gone.id)

    with capture_logs() as lines:
        report = acts.reconcile_all()

    assert report["missing"] == 1
    told = [(line["log_level"], line["count"]) for line in lines if "gone from the broker" in line["event"]]
    assert told == [("warning", 1)]
    assert dict(DeadLetter.objects.values_list("message_id", "state")) == {gone.id: "missing", there.id: "new"}


@pytest.mark.parametrize(("later_ms", "noted"), [(5_000, "died again"), (0, "reopened")])
def test_letter_that_is_listed_though_its_row_says_requeued_is_new_again(bury, facilities, later_ms, noted):
    made = bury()
    acts.act_on(made.id, "requeue", by="a.lind")
    keep(dataclasses.replace(made, died_at=made.died_at + later_ms))

    assert acts.reconcile_all()["made"] == 1

    row = DeadLetter.objects.get()
    assert (row.state, row.history[-1]["act"]) == ("new", noted)


def test_triaged_rows_are_deleted_after_ninety_days(bury):
    old, fresh, still_open = bury(), bury(), bury()
    acts.reconcile_all()
    for made in (old, fresh):
        acts.act_on(made.id, "discard", by="a.lind")
    long_ago = timezone.now() - timedelta(days=91)
    DeadLetter.objects.filter(message_id__in=[old.id, still_open.id]).update(state_at=long_ago)

    assert acts.reconcile_all()["pruned"] == 1

    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == {fresh.id, still_open.id}


def test_everything_agrees_after_each_interruption(bury, facilities):
    """Each step of record, requeue and discard is left undone in turn; reconciling once mends it."""
    only_listed, only_row, moved = bury(), bury(), bury()
    projection.project_or_log(only_row)
    projection.project_or_log(moved)
    discard(facilities.transport, "default", only_row.id)
    acts.act_on(moved.id, "requeue", by="a.lind")
    DeadLetter.objects.filter(message_id=moved.id).update(
        state="new", claim_token="x", claim_act="requeue", claim_at=timezone.now() - timedelta(minutes=5)
    )

    acts.reconcile_all()

    states = dict(DeadLetter.objects.values_list("message_id", "state"))
    assert states == {only_listed.id: "new", only_row.id: "missing", moved.id: "requeued"}


def test_a_job_whose_worker_was_killed_before_it_could_say_so_is_dead_by_its_letter(bury, facilities):
    buried = bury(error="'vat_rate' in \udcff")
    facilities.records.write([live_step("default", LiveJob(buried.id, "running", attempt=6))])

    found = facilities.records.read(buried.id)

    assert (found.state, found.reason, found.attempts, found.finished_at) == ("dead", "exhausted", 6, buried.died_at)
    assert found.error["type"] == "KeyError"


def test_recording_twice_makes_one_row(bury):
    made = bury()

    projection.project_or_log(made)
    projection.project_or_log(made)

    row = DeadLetter.objects.get()
    assert (row.message_id, row.state, row.deaths, row.history) == (made.id, "new", 1, [])
    assert row.payload["arguments"] == {"number": 7}


def test_letter_that_died_again_is_new_again_with_its_history(bury):
    first = bury()
    projection.project_or_log(first)
    acts.act_on(first.id, "requeue", by="a.lind")

    projection.project_or_log(dataclasses.replace(first, died_at=first.died_at + 1_000, attempts=1, error="again"))

    row = DeadLetter.objects.get()
    assert (row.state, row.deaths, row.attempts, row.error) == ("new", 2, 1, "again")
    assert [entry["act"] for entry in row.history] == ["sent", "died", "requeue", "died again"]


def test_late_news_of_an_earlier_death_changes_nothing(bury):
    first = bury()
    projection.project_or_log(dataclasses.replace(first, died_at=first.died_at + 1_000, error="later"))

    projection.project_or_log(first)

    assert DeadLetter.objects.get().error == "later"


def test_redacted_arguments_never_reach_the_database(bury):
    made = letter()
    kwargs = {"options": {"api_key": "k-123"}, "password": "p-123"}
    message = made.message | {"args": [3, "ada@example.com"], "kwargs": kwargs}

    projection.project_or_log(dataclasses.replace(made, message=message))

    row = DeadLetter.objects.get()
    assert row.payload["arguments"]["number"] == 3
    assert not {"ada@example.com", "k-123", "p-123"} & set(str(row.payload).replace("'", " ").split())


def test_arguments_of_an_unknown_actor_are_hidden():
    projection.project_or_log(letter(actor="gone_actor"))

    assert DeadLetter.objects.get().payload["arguments"] == {"number": "[redacted]"}


def test_text_that_no_database_takes_is_escaped():
    made = letter(error="nul \x00 and \ud800", traceback="\x00")
    kwargs = {"number": float("nan"), "text": "a\x00b\udfff"}

    projection.project_or_log(dataclasses.replace(made, message=made.message | {"kwargs": kwargs}))

    row = DeadLetter.objects.get()
    assert (row.error, row.traceback) == ("nul \\x00 and \\ud800", "\\x00")


def test_database_that_fails_costs_the_row_only(bury, facilities):
    made = bury()

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise DatabaseError("away")

    with connection.execute_wrapper(refuse):
        projection.project_or_log(made)

    assert facilities.transport.find_dead_letter("default", made.id) is not None
    assert DeadLetter.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_worker_mirrors_what_it_gives_up(fail_always, run_worker, facilities):
    message = fail_always.send(number=3, address="ada@example.com")

    with run_worker("default"):
        row = wait_for(lambda: DeadLetter.objects.filter(message_id=message.message_id).first())

    assert (row.actor, row.queue, row.exception, row.attempts) == ("fail_always", "default", "KeyError", 1)
    assert row.payload["arguments"] == {"number": 3, "address": "[redacted]"}
    assert "vat_rate" in row.traceback
