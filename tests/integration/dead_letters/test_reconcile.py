from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from structlog.testing import capture_logs

from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.codec import MESSAGE_ID
from switchyard.broker.redis.own_keys import noted
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.broker.stores.job_steps import LiveJob, live_step
from switchyard.dead_letters import acts, projection, reconcile
from switchyard.dead_letters.models import DeadLetter
from tests.factories.letters import discard, keep

pytestmark = pytest.mark.django_db


def test_rows_are_made_for_letters_that_have_none(bury: Callable[..., Letter]) -> None:
    made = {bury(queue=queue).id for queue in ("default", "webhook", "slow")}

    report = reconcile.reconcile_all()

    assert report["made"] == 3
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == made
    assert not any(reconcile.reconcile_all().values())


def test_a_letter_that_cannot_be_read_hides_no_other(bury: Callable[..., Letter], facilities: Facilities) -> None:
    keys, client = facilities.records.keys, facilities.records.calls.client
    for rubbish in (b"{", b"[]", b"[" * 100_000, b'{"id": "of a release to come", "more": 1}'):
        client.hset(keys.queue("default").dead_letters, rubbish, rubbish)
        client.rpush(keys.queue("default").dead, rubbish)
    made = bury()

    reconcile.reconcile_all()

    assert [row.message_id for row in DeadLetter.objects.all()] == [made.id]
    assert facilities.transport.find_dead_letter("default", "{") is None


def test_a_letter_that_fits_into_no_row_hides_no_other(bury: Callable[..., Letter]) -> None:
    odd = [bury(attempts=10**30), bury(died_at=10**30)]
    made = bury(id="a" * 200)  # as long as the broker takes ids

    reconcile.reconcile_all()

    assert [row.message_id for row in DeadLetter.objects.all()] == [made.id]
    assert noted() == [Keys().queue(odd[0].queue).dead_letters]


def test_ids_as_long_as_the_broker_takes_them_fit() -> None:
    longest = DeadLetter._meta.get_field("message_id").max_length

    assert longest is not None
    assert MESSAGE_ID.fullmatch("a" * longest)
    assert not MESSAGE_ID.fullmatch("a" * (longest + 1))


def test_long_list_is_walked_over_several_calls(bury: Callable[..., Letter]) -> None:
    for _ in range(650):
        bury()

    counts = []
    for _ in range(4):
        reconcile.reconcile_all(pages=1)
        counts.append(DeadLetter.objects.count())

    assert counts == [400, 600, 650, 650]


def test_rows_whose_letter_is_gone_are_marked(bury: Callable[..., Letter], facilities: Facilities) -> None:
    gone, there = bury(), bury()
    reconcile.reconcile_all()
    discard(facilities.transport, "default", gone.id)

    with capture_logs() as lines:
        report = reconcile.reconcile_all()

    assert report["missing"] == 1
    assert [(line["log_level"], line["count"]) for line in lines if "gone from the broker" in line["event"]] == [
        ("warning", 1)
    ]
    assert DeadLetter.objects.get(message_id=gone.id).state == "missing"
    assert DeadLetter.objects.get(message_id=there.id).state == "new"


def test_letter_that_died_again_unseen_is_new_again(bury: Callable[..., Letter], facilities: Facilities) -> None:
    made = bury()
    acts.act_on(made.id, "requeue", by="a.lind")
    keep(dataclasses.replace(made, died_at=made.died_at + 5_000))

    assert reconcile.reconcile_all()["made"] == 1

    assert DeadLetter.objects.get().state == "new"


def test_letter_still_listed_though_its_row_says_requeued_is_reopened(
    bury: Callable[..., Letter], facilities: Facilities
) -> None:
    made = bury()
    acts.act_on(made.id, "requeue", by="a.lind")
    keep(made)

    assert reconcile.reconcile_all()["made"] == 1

    row = DeadLetter.objects.get()
    assert (row.state, row.history[-1]["act"]) == ("new", "reopened")


def test_triaged_rows_are_deleted_after_ninety_days(bury: Callable[..., Letter]) -> None:
    old, fresh, still_open = bury(), bury(), bury()
    reconcile.reconcile_all()
    for made in (old, fresh):
        acts.act_on(made.id, "discard", by="a.lind")
    long_ago = timezone.now() - timedelta(days=91)
    DeadLetter.objects.filter(message_id__in=[old.id, still_open.id]).update(state_at=long_ago)

    assert reconcile.reconcile_all()["pruned"] == 1

    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == {fresh.id, still_open.id}


def test_everything_agrees_after_each_interruption(bury: Callable[..., Letter], facilities: Facilities) -> None:
    """Each step of record, requeue and discard is left undone in turn; reconciling once mends it."""
    only_listed, only_row, moved = bury(), bury(), bury()
    projection.project_or_log(only_row)
    projection.project_or_log(moved)
    discard(facilities.transport, "default", only_row.id)
    acts.act_on(moved.id, "requeue", by="a.lind")
    DeadLetter.objects.filter(message_id=moved.id).update(
        state="new", claim_token="x", claim_act="requeue", claim_at=timezone.now() - timedelta(minutes=5)
    )

    reconcile.reconcile_all()

    states = dict(DeadLetter.objects.values_list("message_id", "state"))
    assert states == {only_listed.id: "new", only_row.id: "missing", moved.id: "requeued"}


def test_a_job_whose_worker_was_killed_before_it_could_say_so_is_dead_by_its_letter(
    bury: Callable[..., Letter], facilities: Facilities
) -> None:
    buried = bury(error="'vat_rate' in \udcff")
    facilities.records.write([live_step("default", LiveJob(buried.id, "running", attempt=6))])

    found = facilities.records.read(buried.id)

    assert found is not None
    assert (found.state, found.reason, found.attempts, found.finished_at) == ("dead", "exhausted", 6, buried.died_at)
    assert found.error is not None
    assert found.error["type"] == "KeyError"
