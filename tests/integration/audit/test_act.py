"""Acts are written before they begin, whatever ends them; the log's page and files have the same filters."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError
from django.db import DatabaseError, OperationalError, connection
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import READ_ONLY, Who, act, delete_old_rows
from switchyard.broker.errors import BrokerUnavailable
from switchyard.dead_letters import acts
from switchyard.jobs.services import submit
from tests.factories.brokers import broker_without_server
from tests.factories.commands import output_of
from tests.factories.letters import keep, letter
from tests.factories.staff import client_of

pytestmark = pytest.mark.django_db
ADA = Who("ada", "page")
KILLED = """
import os, signal, django
django.setup()
from switchyard.audit.services import Who, act
with act("letter.discard", who=Who("ada", "command"), target="a", reason="test data"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_detail_is_written_without_what_postgresql_cannot_store():
    with act("queue.relocate", who=Who("ada", "page"), detail={"actor": "a\0\ud800", "ids": ["\0", 7]}) as entry:
        entry.count = 0

    row = AuditEntry.objects.get()
    assert (row.outcome, row.detail) == ("done", {"actor": "a\\x00\\ud800", "ids": ["\\x00", 7]})


def test_act_is_written_before_it_begins_and_completed_after():
    with act("queue.pause", who=ADA, target="slow", reason="the provider is away") as entry:
        begun = AuditEntry.objects.get()
        entry.count = 3

    done = AuditEntry.objects.get()
    assert (begun.outcome, begun.count, begun.ended_at) == ("begun", None, None)
    assert (done.act, done.target, done.who, done.via, done.reason) == (
        "queue.pause", "slow", "ada", "page", "the provider is away",
    )  # fmt: skip
    assert (done.outcome, done.count, done.error) == ("done", 3, "")
    assert done.ended_at is not None and done.ended_at >= done.at


def test_failed_act_keeps_what_it_did_and_the_class_of_its_error():
    with pytest.raises(ConnectionError), act("letter.requeue", who=ADA) as entry:
        entry.count = 2
        raise ConnectionError("secret of the third letter")

    row = AuditEntry.objects.get()
    assert (row.outcome, row.count, row.error) == ("failed", 2, "ConnectionError")


def test_unknown_act_is_refused_before_it_runs():
    with pytest.raises(ValueError, match="is not known"), act("queue.explode", who=ADA):
        pytest.fail("it ran")

    assert not AuditEntry.objects.exists()


def refuse_writes(execute: Any, sql: str, *args: Any) -> Any:
    if sql.startswith(("INSERT", "UPDATE")):
        raise OperationalError("database is locked")
    return execute(sql, *args)


def test_database_that_is_away_refuses_an_act():
    with connection.execute_wrapper(refuse_writes), pytest.raises(OperationalError):  # noqa: SIM117
        with act("letter.discard", who=ADA):
            pytest.fail("it ran")


def test_database_that_is_away_does_not_refuse_a_pause():
    ran = False
    with connection.execute_wrapper(refuse_writes), act("queue.pause", who=ADA, target="slow", essential=False):
        ran = True

    assert ran and not AuditEntry.objects.exists()


def test_database_that_goes_away_does_not_undo_an_act_that_is_done():
    with act("queue.pause", who=ADA, target="slow"):
        wrapped = connection.execute_wrapper(refuse_writes)
        wrapped.__enter__()
    wrapped.__exit__(None, None, None)

    assert AuditEntry.objects.get().outcome == "begun"


def test_request_is_of_the_user_who_is_logged_in(admin_user):
    request = RequestFactory().post("/")
    request.user = admin_user

    assert Who.of_request(request) == Who("admin", "page")


def test_command_is_of_the_system_user_and_of_the_person_behind_sudo(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.setenv("SUDO_USER", "ada")

    assert Who.of_command() == Who("ada as root", "command")


@contextmanager
def failing_at_the_third(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the action work for two letters, then raise."""
    real, calls = acts.act_on, []

    def action(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(acts, "act_on", action)
    yield


@pytest.mark.parametrize("error", [BrokerUnavailable("requeue", "away"), DatabaseError("disk I/O error")])
def test_an_act_on_several_that_a_server_ends_counts_what_it_did(error, facilities, monkeypatch):
    ids = [keep(letter(id=f"{number}")).id for number in range(5)]

    with failing_at_the_third(error, monkeypatch), suppress(DatabaseError):
        acts.apply("requeue", ids, who=Who("ada", "command"), reason="fixed")

    entry = AuditEntry.objects.get()
    assert (entry.act, entry.who, entry.reason, entry.count) == ("letter.requeue", "ada", "fixed", 2)
    assert (entry.outcome, entry.error) == (
        "failed", "BrokerError" if isinstance(error, BrokerUnavailable) else "DatabaseError",
    )  # fmt: skip


def test_killed_process_leaves_a_row_that_has_begun(transactional_db, process_environment):
    environment = process_environment | {"DJANGO_SETTINGS_MODULE": "project.settings"}

    died = subprocess.run([sys.executable, "-c", KILLED], env=environment, timeout=60, check=False)

    entry = AuditEntry.objects.get()
    assert died.returncode == -9
    assert (entry.act, entry.target, entry.outcome, entry.ended_at) == ("letter.discard", "a", "begun", None)


def row() -> AuditEntry:
    return AuditEntry.objects.get()


def seen(entry: AuditEntry) -> tuple[Any, ...]:
    return entry.act, entry.target, entry.via, entry.reason, entry.count, entry.outcome


@pytest.mark.usefixtures("facilities")
def test_pause_that_the_broker_does_not_answer_is_a_failed_row():
    with broker_without_server(), pytest.raises(CommandError):
        output_of("queues", "pause", "default")

    assert (row().outcome, row().error) == ("failed", "BrokerUnavailable")


def test_letters_are_moved_with_one_row_for_all(facilities):
    for number in range(3):
        keep(letter(id=f"{number}"))

    with pytest.raises(SystemExit):
        output_of("deadletters", "discard", "0", "1", "nope", "--reason", "test data")

    assert seen(row()) == ("letter.discard", "", "command", "test data", 2, "done")
    assert row().detail == {"ids": ["0", "1", "nope"], "chosen": 3}


@pytest.mark.usefixtures("facilities")
def test_cancelled_job_is_a_row_with_the_answer():
    @dramatiq.actor(actor_name="audited", queue_name="default")
    def audited() -> None: ...

    job_id = submit(audited, kwargs={}, delay_ms=60_000)
    output_of("jobs", "cancel", job_id)

    assert seen(row()) == ("job.cancel", job_id, "command", "", 1, "done")
    assert row().detail == {"answer": "cancelled"}


@pytest.mark.usefixtures("facilities")
def test_tokens_are_created_and_revoked_with_rows_without_their_secret():
    User.objects.create_user("ada")
    plain = output_of("tokens", "create", "--user", "ada", "--scopes", "read").strip()
    output_of("tokens", "revoke", plain)

    revoked, created = AuditEntry.objects.all()
    assert (created.act, created.target, created.count) == ("token.create", plain.split("_")[1], 1)
    assert (revoked.act, revoked.target, revoked.count) == ("token.revoke", plain.split("_")[1], 1)
    assert plain.split("_", 2)[2] not in f"{created.__dict__}{revoked.__dict__}"


PAGE = reverse("switchyard-audit")


@pytest.fixture
def reader():
    """A logged-in user with the read-only role."""
    user = User.objects.create_user("r.eader", is_staff=True)
    user.groups.add(Group.objects.get(name=READ_ONLY))
    return client_of(user)


def did(name: str, who: str = "ada", via: str = "page", **more: Any) -> None:
    with act(name, who=Who(who, via), **more) as entry:
        entry.count = 1


def test_page_shows_an_act_with_a_link_to_its_target_escaped(reader):
    did("schedule.run", target="nightly")
    did("job.cancel", target="0f8fad5b-d9cb-469f-a165-70867728950e", reason="<script>alert(1)</script>")

    page = reader.get(PAGE).content.decode()

    assert "&lt;script&gt;" in page and "<script>alert(1)" not in page
    assert reverse("switchyard-job", args=["0f8fad5b-d9cb-469f-a165-70867728950e"]) in page
    assert "<time datetime=" in page and "nightly" in page


def test_arguments_in_details_are_hidden_from_who_may_not_view_them(reader):
    did("letter.edit", detail={"changed": {"month": {"from": "argument-1", "to": "argument-2"}}, "actor": "reconcile"})
    did("bulk.start", detail={"kind": "job.cancel", "filter": {"argument": "month=argument-3", "queue": "billing"}})
    did("actor.pause", target="export", detail={"argument": "month=argument-4"})
    did("job.edit", detail={"changes": {"month": {"from": "argument-5", "to": ""}, "(due)": {"to": "2026-11-05"}}})
    did("circuit.open", target='notify with month="argument-6"')  # as earlier releases wrote it

    poor = reader.get(PAGE).content.decode()
    User.objects.get().user_permissions.add(Permission.objects.get(codename="view_arguments"))
    full = reader.get(PAGE).content.decode()

    assert all(f"argument-{n}" in full and f"argument-{n}" not in poor for n in range(1, 7))
    assert all(word in poor for word in ("month", "billing", "reconcile", "notify", "2026-11-05"))


@pytest.mark.parametrize(
    ("query", "acts"),
    [
        ({"who": "bob"}, ["job.cancel"]),
        ({"act": "queue"}, ["queue.resume", "queue.pause"]),
        ({"act": "queue.pause"}, ["queue.pause"]),
        ({"target": "slow"}, ["queue.resume", "queue.pause"]),
        ({"via": "command"}, ["job.cancel"]),
        ({"outcome": "failed"}, ["queue.resume"]),
        ({"since": "1h"}, ["job.cancel", "queue.resume"]),
        ({"until": "1h"}, ["queue.pause"]),
    ],
)
def test_page_and_export_filter_alike(reader, query, acts):
    did("queue.pause", target="slow")
    AuditEntry.objects.update(at=timezone.now() - timedelta(hours=2))
    with act("queue.resume", who=Who("ada", "page"), target="slow") as entry:
        entry.error = "BrokerUnavailable"
    did("job.cancel", who="bob", via="command", target="x")

    shown = [row["entry"].act for row in reader.get(PAGE, query).context["rows"]]
    assert shown == [row["act"] for row in reader.get(PAGE, {**query, "export": "json"}).json()["audit"]] == acts


@pytest.mark.parametrize(
    "query", [{"since": "soon"}, {"act": "fly"}, {"before": "x"}, {"via": "mail"}, {"who": "a" * 300}]
)
def test_unusable_value_is_named_and_answered_with_400(reader, query):
    answer = reader.get(PAGE, query)

    assert answer.status_code == 400
    assert next(iter(query)) + ": " in answer.context["wrong"]


def test_rows_are_deleted_after_a_year():
    for age_days in (0, 364, 366, 400):
        did("queue.pause", target=str(age_days))
        AuditEntry.objects.filter(target=str(age_days)).update(at=timezone.now() - timedelta(days=age_days))

    assert delete_old_rows() == 2

    assert set(AuditEntry.objects.values_list("target", flat=True)) == {"0", "364"}
