"""Requeues by steps, a canary or a rollout with its ramp: what stops them, and what is taken back."""

from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.limits import Circuit, note_circuit
from switchyard.broker.topology import Dependency
from switchyard.bulk import runner, services
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from switchyard.dead_letters import bulk_moves
from switchyard.dead_letters.acts import reconcile_all
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.queries import families
from tests.factories.commands import json_of
from tests.integration.bulk.conftest import WHO
from tests.integration.bulk.test_letters import bury, dead_ids, waiting_ids
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
GROUP = {"fingerprint": "f00dfacef00dface"}
KEEP = {"canary": 4, "stop_percent": 100}


@pytest.fixture
def ran(facilities):
    """Ids of the jobs of an actor that has been mended; those in ``failing`` of the broker fail as before."""
    started: list[str] = []
    broker: Any = dramatiq.get_broker()
    broker.failing = set()

    @dramatiq.actor(actor_name="mended", queue_name="default", max_retries=1, min_backoff=3_600_000)
    def mended(number: int = 7) -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        started.append(message.message_id)
        if message.message_id in broker.failing:
            raise KeyError("vat_rate")

    yield started
    del broker.failing


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


def test_one_then_ten_then_all(start, ran, facilities, run_worker):
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


@pytest.mark.parametrize(("failing", "reached", "plan"), [(0, 1, {}), (5, 11, {}), (3, 5, {"canary": 5})])
def test_the_first_retry_stops_it_and_the_page_links_the_job(
    failing, reached, plan, start, ran, facilities, run_worker, admin_client
):
    ids = letters(30)
    dramatiq.get_broker().failing.add(ids[failing])  # type: ignore[attr-defined]
    act = step(start("letter.canary", GROUP, plan=plan))
    while act.unfinished:
        work_off(facilities, run_worker)
        act = step(act)

    page = admin_client.get(reverse("switchyard-bulk-act", args=[act.pk])).content.decode()
    assert (act.state, act.done) == ("stopped", reached)
    assert f"job {ids[failing]} has failed and is to be retried" in act.error
    assert reverse("switchyard-job", args=[ids[failing]]) in page and "It stopped itself" in page
    assert len(dead_ids(facilities)) == 30 - reached


def test_a_letter_that_is_dead_again_stops_it(start, fail_always, facilities, run_worker):
    made = bury(3)
    act = step(start("letter.canary", GROUP))
    with run_worker("default"):
        wait_for(lambda: len(dead_ids(facilities)) == 3)

    act = step(act)

    assert (act.state, act.done) == ("stopped", 1)
    assert act.error.startswith(f"job {made[0].id} is dead again")


@pytest.mark.parametrize("killed", ["in hand", "moved", "waiting"])
def test_a_kill_of_the_scheduler_anywhere_requeues_each_letter_once(killed, start, ran, facilities, run_worker):
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

    assert (act.state, act.done, act.skipped, ran) == ("done", 12, 0, ids)


def test_a_waiting_act_keeps_no_other_from_its_steps(start, ran, facilities, monkeypatch):
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


@pytest.fixture
def stopped(start, ran, facilities, run_worker):
    """A rollout whose canary of 4 has ended well, of whose other 10 none has started, and that was stopped."""
    letters(14)
    act = step(start("letter.canary", GROUP, plan=KEEP))
    work_off(facilities, run_worker)
    act = step(act)
    services.stop(act.pk, who=WHO)
    act = step(act)
    assert (act.state, act.done, len(waiting_ids(facilities))) == ("stopped", 14, 10)
    return act


def test_the_others_follow_at_the_rate_and_a_share_of_failures_stops_them(
    start, ran, facilities, run_worker, monkeypatch
):
    monkeypatch.setattr(bulk_moves, "LEAST_ENDED", 10)
    ids = letters(60)
    dramatiq.get_broker().failing |= {*ids[10:14], *ids[20:40]}  # type: ignore[attr-defined]
    act = step(start("letter.canary", GROUP, rate=10, plan={"canary": 2, "stop_percent": 30}))
    sizes = []
    while act.unfinished:
        sizes.append(len(waiting_ids(facilities)))
        work_off(facilities, run_worker)
        act = step(act)

    # 2, then tens: of the first 22 six failed (27 %), of the first 32 sixteen.
    assert sizes == [2, 10, 10, 10]
    assert (act.state, act.done, len(dead_ids(facilities))) == ("stopped", 32, 28)
    assert act.error.startswith("16 of 32 jobs that were watched have failed")


def test_nothing_is_requeued_while_the_circuit_of_its_actor_is_open(
    start, ran, facilities, finish, run_worker, admin_client
):
    letters(3)
    [family] = families(["default"])
    circuit = Circuit(Dependency("stripe", open_ms=1_000), 60_000, {"mended": 0})
    note_circuit(family, circuit, "another", "failed", until_ms=now_ms() + 3_600_000)
    act = start("letter.canary", GROUP, plan={"canary": 3})

    for _ in range(3):
        act = step(act)
    page = admin_client.get(reverse("switchyard-bulk-act", args=[act.pk])).content.decode()
    held = (act.state, act.done, act.cursor["circuit"])
    family.calls.command("DEL", family.keys.actor_pauses)
    act = step(act)

    assert held == ("running", 0, "stripe") and "the circuit of stripe is open" in page
    assert (act.done, act.cursor["circuit"]) == (3, "")


def test_what_has_not_started_is_taken_back(stopped, finish, ran, facilities, run_worker):
    before = dict(DeadLetter.objects.values_list("message_id", "died_at"))

    undo = finish(services.take_back(stopped.pk, who=WHO, reason="wrong release"))
    reconcile_all()

    assert (undo.state, undo.done, undo.skips) == ("done", 10, {"has started or moved": 4})
    assert (len(waiting_ids(facilities)), len(dead_ids(facilities))) == (0, 10)
    assert sorted(DeadLetter.objects.values_list("state", flat=True)) == ["new"] * 10 + ["requeued"] * 4
    assert dict(DeadLetter.objects.values_list("message_id", "died_at")) == before
    assert AuditEntry.objects.get(act="letter.take_back").count == 10
    again = finish(services.start("letter.requeue", GROUP, who=WHO))
    work_off(facilities, run_worker)
    assert again.done == 10 and len(ran) == len(set(ran)) == 14


@pytest.mark.parametrize("killed", ["in hand", "moved"])
def test_a_kill_while_it_is_taken_back_is_exact(killed, stopped, finish, facilities):
    undo = services.take_back(stopped.pk, who=WHO)
    begun = runner.begin(undo.pk, undo.run)
    assert begun is not None and len(begun[0].hand) == 14
    if killed == "moved":
        kind_of(undo.kind).apply(begun[0], begun[0].hand, repeated=False)
        reconcile_all()
    BulkAct.objects.filter(pk=undo.pk).update(run=runner.claim(undo.pk))

    undo = finish(undo)

    assert (undo.state, undo.done, undo.skipped) == ("done", 10, 4)
    assert (len(waiting_ids(facilities)), len(dead_ids(facilities))) == (0, 10)
    assert DeadLetter.objects.filter(state="new").count() == 10


def test_what_a_worker_has_fetched_or_somebody_else_requeued_stays(stopped, finish, facilities):
    [family] = families(["default"])
    family.join("default.h.7.0a1b2c3d.0.1/live")
    held = family.fetch("default.h.7.0a1b2c3d.0.1/live", 3, request=1).grants
    letters(2)
    other = finish(services.start("letter.requeue", GROUP, who=WHO))

    undo = finish(services.take_back(stopped.pk, who=WHO))

    assert len(held) == 3 and other.done == 2
    assert (undo.done, len(waiting_ids(facilities)), len(dead_ids(facilities))) == (7, 2, 7)


def test_page_and_command_start_it_and_take_it_back(ran, facilities, admin_client, finish):
    letters(6)
    begin = reverse("switchyard-bulk-begin", args=["letter.canary"]) + "?fingerprint=f00dfacef00dface"
    form = {"count": "6", "canary": "3", "stop_percent": "5", "rate": "2"}
    group = admin_client.get(reverse("switchyard-letters"), GROUP).content.decode()
    asked = admin_client.get(begin).content.decode()
    refused = admin_client.post(begin, form | {"canary": "501"}).content.decode()

    admin_client.post(begin, form)
    act = BulkAct.objects.get()
    act = step(act)
    with pytest.raises(ActRefused, match="it goes on; stop it first"):
        services.take_back(act.pk, who=WHO)
    call_command("switchyard", "bulk", "stop", str(act.pk))
    act = step(act)
    page = admin_client.get(reverse("switchyard-bulk-act", args=[act.pk])).content.decode()
    address = reverse("switchyard-bulk-act-take-back", args=[act.pk])
    answer = admin_client.post(address, {"reason": "wrong"})
    undo = finish(BulkAct.objects.latest("pk"))

    assert begin in group and "Roll out the requeue of 6 dead letters?" in asked
    assert "canary: 501 is not in its range" in refused
    assert (act.plan, act.rate) == ({"canary": 3, "stop_percent": 5}, 2)
    assert address in page and answer.status_code == 302
    assert (undo.kind, undo.filter, undo.done) == ("letter.take_back", {"act": act.pk}, 3)
    with pytest.raises(CommandError, match="cannot be taken back"):
        call_command("switchyard", "bulk", "take-back", str(undo.pk))


def test_the_command_starts_a_rollout_with_its_plan_or_without_one(ran, facilities):
    letters(6)
    words = ["requeue", "--group", "f00dfacef00dface", "--canary", "3", "--rate", "7", "--stop-percent", "0"]

    planned, plain = (BulkAct.objects.get(pk=json_of("deadletters", *each)["bulk_act"]) for each in (words, words[:4]))

    assert (planned.plan, planned.rate, planned.total) == ({"canary": 3, "stop_percent": 0}, 7, 6)
    assert (plain.kind, plain.plan, plain.total) == ("letter.canary", {}, 6)
    with pytest.raises(CommandError, match="--rate and --stop-percent take --canary"):
        call_command("switchyard", "deadletters", "requeue", "--group", "f00dfacef00dface", "--rate", "7")
