"""Shorter guides: a bonus that is credited once, many reminders with one commit, threads with own connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from switchyard.broker.interface import Facilities
from switchyard.jobs.models import DoneOnce
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.integration.documentation.shown import blocks, run_block, stand_in
from tests.integration.outbox.conftest import MakeBroker, actor_on, make_broker, waiting
from tests.waiting import wait_for

RemindAll = Callable[[list[int]], list[str]]
reminded: list[int] = []


class Account:
    """An account that fails to be saved as often as it is told to."""

    def __init__(self) -> None:
        self.objects = self
        self.balance_cents = self.saved_cents = self.failures = 0

    def select_for_update(self) -> Account:
        return self

    def get(self, pk: int) -> Account:
        self.balance_cents = self.saved_cents
        return self

    def save(self, update_fields: list[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the database went away")
        self.saved_cents = self.balance_cents


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """Stand-in for the guide's model."""
    account = Account()
    stand_in(monkeypatch, "apps.bonuses.models", Account=account)
    return account


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_bonus_is_credited_once(
    facilities: Facilities, run_worker: RunWorker, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_block("do-something-once")["credit_bonus"]
    account.failures = 1  # the first run takes its key back
    arguments = {"account_id": 17, "month": "2026-10", "cents": 500}
    with run_worker("default", "default-retry"):
        jobs = [submit(shown, kwargs=arguments) for _ in range(3)]
        wait_for(lambda: all((job := find_job(id_)) and job.ended for id_ in jobs))

    assert [find_job(id_).state for id_ in jobs] == ["succeeded"] * 3
    assert account.failures == 0
    assert account.saved_cents == 500
    row = DoneOnce.objects.get()
    assert row.job_id in jobs
    run_block("do-something-once", 2)
    assert f"'token': {row.token}" in capsys.readouterr().out


def test_the_guides_unique_actors_keep_replace_and_delay(facilities: Facilities) -> None:
    names = run_block("do-something-once", 1)
    sent = [names["index"].send(7, text).message_id for text in ("old", "new")]
    later = [names["offer_help"].send_with_options(args=(7, items), delay=600_000).message_id for items in (1, 2)]
    names["sync"].send(7)
    reminded = [names["remind"].send(7).message_id for _ in range(2)]

    assert sent[0] == sent[1] and later[0] == later[1] and reminded[0] == reminded[1]
    replaced, scheduled = (facilities.transport.find_message("default", id_) for id_ in (sent[0], later[0]))
    assert replaced is not None and tuple(replaced.args) == (7, "new")
    assert scheduled is not None and tuple(scheduled.args) == (7, 2)
    lane = facilities.transport.stats("default").live
    assert (lane.waiting, lane.scheduled) == (3, 1)


@pytest.fixture
def remind_all(monkeypatch: pytest.MonkeyPatch) -> RemindAll:
    """The guide's function, with an actor that notes whom it reminds."""

    def remind(invoice_id: int) -> None:
        reminded.append(invoice_id)

    stand_in(monkeypatch, "apps.invoicing.actors", remind=dramatiq.actor(remind))
    reminded.clear()
    return run_block("send-many-at-once")["remind_all"]


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_reminders_are_sent_with_the_commit(
    facilities: Facilities, run_worker: RunWorker, remind_all: RemindAll
) -> None:
    invoices = list(range(1_200))  # more than one call to the server
    with transaction.atomic():
        jobs = remind_all(invoices)
        assert find_job(jobs[0]) is None
    with run_worker("default"):
        wait_for(lambda: all((job := find_job(id_)) and job.ended for id_ in jobs[-3:] + jobs[:3]))
        wait_for(lambda: len(reminded) == len(invoices))

    assert sorted(reminded) == invoices
    assert {find_job(id_).state for id_ in jobs} == {"succeeded"}


__all__ = ["make_broker"]


class Invoice:
    """A model as the page has it, whose rows are groups."""

    class objects:
        @staticmethod
        def create(customer_id: int) -> Group:
            return Group.objects.create(name=f"invoice of {customer_id}")


def test_the_reminder_is_sent_with_its_invoice(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    remind = actor_on(make_broker("outbox"), "remind")
    stand_in(monkeypatch, "apps.invoicing.actors", remind=remind)
    stand_in(monkeypatch, "apps.invoicing.models", Invoice=Invoice)
    names = run_block("send-with-the-transaction", 1)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        names["bill"](1)
        1 / 0  # noqa: B018
    invoice = names["bill"](2)

    assert blocks("send-with-the-transaction")[0].strip() == 'SWITCHYARD = {"SENDS": "outbox"}'
    assert waiting(remind.broker) == [invoice.pk]


class Rows:
    """A model whose rows are refreshed in the database."""

    def __init__(self) -> None:
        self.objects = self
        self.refreshed: list[tuple[int, str]] = []
        self._met = threading.Barrier(4)

    def get(self, pk: int) -> Any:
        def refresh() -> None:
            connection.ensure_connection()
            self._met.wait(30)  # all four threads have theirs open
            self.refreshed.append((pk, threading.current_thread().name))

        return SimpleNamespace(refresh=refresh)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Stand-in for the page's model."""
    rows = Rows()
    stand_in(monkeypatch, "apps.catalogue.models", Price=rows)
    return rows


@pytest.fixture
def opened() -> Iterator[list[tuple[str, BaseDatabaseWrapper]]]:
    found: list[tuple[str, BaseDatabaseWrapper]] = []

    def note(connection: BaseDatabaseWrapper, **signal: Any) -> None:
        found.append((threading.current_thread().name, connection))

    connection_created.connect(note)
    yield found
    connection_created.disconnect(note)


@pytest.mark.usefixtures("transactional_db")
def test_the_pages_threads_leave_no_connection_open(
    facilities: Facilities, run_worker: RunWorker, rows: Rows, opened: list[tuple[str, BaseDatabaseWrapper]]
) -> None:
    actor = run_block("keep-database-connections")["refresh_prices"]

    with run_worker("default"):
        job = submit(actor, kwargs={"price_ids": list(range(8))})
        ended = wait_for(lambda: (found := find_job(job)) and found.ended and found)
        own = [(name, made) for name, made in opened if name.startswith("ThreadPoolExecutor")]
        still_open = [name for name, made in own if made.connection is not None]

    assert ended.state == "succeeded"
    assert sorted(pk for pk, _ in rows.refreshed) == list(range(8))
    assert {name for name, _ in own} == {name for _, name in rows.refreshed}
    assert len({name for name, _ in own}) == 4
    assert still_open == []
