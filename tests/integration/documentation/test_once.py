"""The actor of the guide credits an account once, however often its job is run."""

from __future__ import annotations

import pytest

from switchyard.broker.interface import Facilities
from switchyard.jobs.models import DoneOnce
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.integration.documentation.shown import run_block, stand_in
from tests.waiting import wait_for


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
