"""A requeue as a rollout: its canary, its ramp, what stops it, and what is taken back of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.circuits import Circuit, note_circuit
from switchyard.broker.topology import Dependency
from switchyard.bulk import runner, services
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters import bulk_moves
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.reconcile import reconcile_all
from switchyard.jobs.queries import families
from tests.integration.bulk.conftest import WHO, Start
from tests.integration.bulk.test_canary import GROUP, letters, ran, step, work_off  # noqa: F401  a fixture
from tests.integration.bulk.test_letters import dead_ids, waiting_ids

pytestmark = pytest.mark.django_db(transaction=True)
Finish = Callable[[BulkAct], BulkAct]
KEEP = {"canary": 4, "stop_percent": 100}


@pytest.fixture
def stopped(start: Start, ran: list[str], facilities: Facilities, run_worker: Any) -> BulkAct:  # noqa: F811
    """A rollout whose canary of 4 has ended well, of whose other 10 none has started, and that was stopped."""
    letters(14)
    act = step(start("letter.canary", GROUP, plan=KEEP))
    work_off(facilities, run_worker)
    act = step(act)
    services.stop(act.pk, who=WHO)
    act = step(act)
    assert (act.state, act.done, len(waiting_ids(facilities))) == ("stopped", 14, 10)
    return act


def test_a_canary_of_its_own_size_stops_where_one_fails(
    start: Start, ran: list[str], facilities: Facilities, run_worker: Any  # noqa: F811
) -> None:  # fmt: skip
    ids = letters(30)
    dramatiq.get_broker().failing.add(ids[3])  # type: ignore[attr-defined]
    act = step(start("letter.canary", GROUP, plan={"canary": 5}))
    while act.unfinished:
        work_off(facilities, run_worker)
        act = step(act)

    assert (act.state, act.done, len(dead_ids(facilities))) == ("stopped", 5, 25)
    assert f"job {ids[3]} has failed and is to be retried" in act.error


def test_the_others_follow_at_the_rate_and_a_share_of_failures_stops_them(
    start: Start, ran: list[str], facilities: Facilities, run_worker: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
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
    start: Start, ran: list[str], facilities: Facilities, finish: Finish, run_worker: Any, admin_client: Client  # noqa: F811
) -> None:  # fmt: skip
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


def test_what_has_not_started_is_taken_back(
    stopped: BulkAct, finish: Finish, ran: list[str], facilities: Facilities, run_worker: Any  # noqa: F811
) -> None:  # fmt: skip
    before = dict(DeadLetter.objects.values_list("message_id", "died_at"))

    undo = finish(services.take_back(stopped.pk, who=WHO, reason="wrong release"))
    reconcile_all()

    assert (undo.state, undo.done, undo.skips) == ("done", 10, {"has started or moved": 4})
    assert (len(waiting_ids(facilities)), len(dead_ids(facilities))) == (0, 10)
    states = DeadLetter.objects.values_list("state", flat=True)
    assert sorted(states) == ["new"] * 10 + ["requeued"] * 4
    assert dict(DeadLetter.objects.values_list("message_id", "died_at")) == before
    assert AuditEntry.objects.get(act="letter.take_back").count == 10
    again = finish(services.start("letter.requeue", GROUP, who=WHO))
    work_off(facilities, run_worker)
    assert again.done == 10 and len(ran) == len(set(ran)) == 14


@pytest.mark.parametrize("killed", ["in hand", "moved"])
def test_a_kill_while_it_is_taken_back_is_exact(
    killed: str, stopped: BulkAct, finish: Finish, facilities: Facilities
) -> None:
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


def test_what_a_worker_has_fetched_or_somebody_else_requeued_stays(
    stopped: BulkAct, finish: Finish, facilities: Facilities
) -> None:
    [family] = families(["default"])
    family.join("default.h.7.0a1b2c3d.0.1/live")
    held = family.fetch("default.h.7.0a1b2c3d.0.1/live", 3, request=1).grants
    letters(2)
    other = finish(services.start("letter.requeue", GROUP, who=WHO))

    undo = finish(services.take_back(stopped.pk, who=WHO))

    assert len(held) == 3 and other.done == 2
    assert (undo.done, len(waiting_ids(facilities)), len(dead_ids(facilities))) == (7, 2, 7)


def test_page_and_command_start_it_and_take_it_back(
    ran: list[str], facilities: Facilities, admin_client: Client, finish: Finish  # noqa: F811
) -> None:  # fmt: skip
    letters(6)
    begin = reverse("switchyard-bulk-begin", args=["letter.canary"]) + "?fingerprint=f00dfacef00dface"
    form = {"count": "6", "canary": "3", "stop_percent": "5", "rate": "2"}
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

    assert "canary: 501 is not in its range" in refused
    assert (act.plan, act.rate) == ({"canary": 3, "stop_percent": 5}, 2)
    assert address in page and answer.status_code == 302
    assert (undo.kind, undo.filter, undo.done) == ("letter.take_back", {"act": act.pk}, 3)
    with pytest.raises(CommandError, match="cannot be taken back"):
        call_command("switchyard", "bulk", "take-back", str(undo.pk))


def test_the_command_starts_a_rollout_with_its_plan(ran: list[str], facilities: Facilities) -> None:  # noqa: F811
    letters(6)
    words = ["requeue", "--group", "f00dfacef00dface", "--canary", "3", "--rate", "7", "--stop-percent", "0"]

    call_command("switchyard", "deadletters", *words, "--json")

    act = BulkAct.objects.get()
    assert (act.plan, act.rate, act.total) == ({"canary": 3, "stop_percent": 0}, 7, 6)
    with pytest.raises(CommandError, match="--rate and --stop-percent take --canary"):
        call_command("switchyard", "deadletters", "requeue", "--group", "f00dfacef00dface", "--rate", "7")
