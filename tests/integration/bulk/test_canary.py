"""Requeue of one letter, then ten, then all: each step waits for its jobs, and the first failure ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.interface import Facilities
from switchyard.bulk import runner
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from switchyard.dead_letters.models import DeadLetter
from tests.factories.commands import json_of
from tests.integration.bulk.conftest import Start
from tests.integration.bulk.test_letters import bury, dead_ids, waiting_ids
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
GROUP = {"fingerprint": "f00dfacef00dface"}


@pytest.fixture
def ran(facilities: Facilities) -> Iterator[list[str]]:
    """Ids of the jobs of an actor that has been mended; those in ``failing`` of the broker fail as before."""
    started: list[str] = []
    broker: Any = dramatiq.get_broker()
    broker.failing = set()

    @dramatiq.actor(actor_name="mended", queue_name="default", max_retries=1, min_backoff=3_600_000)
    def mended(number: int = 7) -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        assert message is not None
        started.append(message.message_id)
        if message.message_id in broker.failing:
            raise KeyError("vat_rate")

    yield started
    del broker.actors["mended"], broker.failing


def letters(count: int) -> list[str]:
    return [one.id for one in bury(count, actor="mended")]


def step(act: BulkAct) -> BulkAct:
    act.refresh_from_db()
    runner.take_step(act.pk, act.run)
    act.refresh_from_db()
    return act


def work_off(facilities: Facilities, run_worker: Any) -> None:
    with run_worker("default", threads=1):
        wait_for(lambda: facilities.transport.stats("default").live.total == 0)


def test_one_then_ten_then_all(start: Start, ran: list[str], facilities: Facilities, run_worker: Any) -> None:
    ids = letters(30)
    act = start("letter.canary", GROUP)
    sizes = []
    for _ in range(3):
        for _ in range(3):  # the later ones wait
            act = step(act)
        sizes.append(len(waiting_ids(facilities)))
        work_off(facilities, run_worker)
    while act.unfinished:
        act = step(act)

    assert sizes == [1, 10, 19]
    assert (act.state, act.total, act.done, act.skipped) == ("done", 30, 30, 0)
    assert ran == ids
    assert {*DeadLetter.objects.values_list("state", flat=True)} == {"requeued"}


@pytest.mark.parametrize(("failing", "reached"), [(0, 1), (5, 11)])
def test_the_first_retry_stops_it_and_the_page_links_the_job(
    failing: int, reached: int, start: Start, ran: list[str], facilities: Facilities, run_worker: Any,
    admin_client: Client,
) -> None:  # fmt: skip
    ids = letters(30)
    dramatiq.get_broker().failing.add(ids[failing])  # type: ignore[attr-defined]
    act = step(start("letter.canary", GROUP))
    while act.unfinished:
        work_off(facilities, run_worker)
        act = step(act)

    page = admin_client.get(reverse("switchyard-bulk-act", args=[act.pk])).content.decode()
    assert (act.state, act.done) == ("stopped", reached)
    assert f"job {ids[failing]} has failed and is to be retried" in act.error
    assert reverse("switchyard-job", args=[ids[failing]]) in page and "It stopped itself" in page
    assert len(dead_ids(facilities)) == 30 - reached


def test_a_letter_that_is_dead_again_stops_it(
    start: Start, fail_always: Any, facilities: Facilities, run_worker: Any
) -> None:
    made = bury(3)
    act = step(start("letter.canary", GROUP))
    with run_worker("default"):
        wait_for(lambda: len(dead_ids(facilities)) == 3)

    act = step(act)

    assert (act.state, act.done) == ("stopped", 1)
    assert act.error.startswith(f"job {made[0].id} is dead again")


@pytest.mark.parametrize("killed", ["in hand", "moved", "waiting"])
def test_a_kill_of_the_scheduler_anywhere_requeues_each_letter_once(
    killed: str, start: Start, ran: list[str], facilities: Facilities, run_worker: Any
) -> None:
    ids = letters(12)
    act = start("letter.canary", GROUP)
    while act.unfinished:
        run = runner.claim(act.pk)  # another scheduler
        begun = runner.begin(act.pk, run)
        if begun is not None and begun[0].hand and killed != "waiting":
            if killed == "moved":
                kind_of(act.kind).apply(begun[0], begun[0].hand, repeated=False)
            assert runner.take_step(act.pk, runner.claim(act.pk)) is not None
        elif begun is not None:
            runner.take_step(act.pk, run)
        work_off(facilities, run_worker)
        act.refresh_from_db()

    assert (act.state, act.done, act.skipped) == ("done", 12, 0)
    assert ran == ids


def test_a_waiting_act_keeps_no_other_from_its_steps(
    start: Start, ran: list[str], facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters(3)
    bury(40, fingerprint="other", actor="mended")
    canary = start("letter.canary", GROUP)
    whole = start("letter.requeue", {"fingerprint": "other"})
    monkeypatch.setattr(runner, "AT_A_TIME_S", 1.0)

    BulkRunner().go_on()

    canary.refresh_from_db()
    whole.refresh_from_db()
    assert (whole.state, whole.done) == ("done", 40)
    assert (canary.state, canary.done, canary.step, canary.cursor["waits"]) == ("running", 1, 1, True)


def test_the_command_and_the_button_start_it(
    ran: list[str], facilities: Facilities, admin_client: Client, finish: Callable[[BulkAct], BulkAct]
) -> None:
    letters(3)
    group = admin_client.get(reverse("switchyard-letters"), GROUP).content.decode()
    address = reverse("switchyard-bulk-begin", args=["letter.canary"]) + "?fingerprint=f00dfacef00dface"
    asked = admin_client.get(address).content.decode()

    started = json_of("deadletters", "requeue", "--group", "f00dfacef00dface", "--canary")

    assert address in group and "Roll out the requeue of 3 dead letters?" in asked
    act = BulkAct.objects.get(pk=started["bulk_act"])
    assert (act.kind, act.total) == ("letter.canary", 3)
