"""The page of workers, and stacks that are asked for from it."""

from __future__ import annotations

import re

import pytest
import redis
from django.test import Client
from django.urls import reverse

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.pool_reports import ChildStacks, PoolReport, Stack
from switchyard.operations import worker_views
from tests.factories.staff import staff

pytestmark = pytest.mark.django_db

PAGE = reverse("switchyard-operations-workers")


@pytest.fixture
def looker() -> Client:
    """A logged-in staff user who may see workers and their stacks."""
    return staff("view_operations", "dump_stacks")


def test_page_names_every_supervisor_and_its_children(looker: Client, slow_pool: PoolReport) -> None:
    page = looker.get(PAGE).content.decode()

    assert "slow</code> on h, pid 1" in page
    assert page.count("pid 2</th>") == 2
    assert "Show stacks" in page


def test_page_names_what_each_supervisor_runs_since_when(
    slow_pool: PoolReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    since, worker = now_ms() - 5_000, "slow.h.1.0a1b2c3d.4.1"
    job = Job("11112222-run", "render_report", "slow", "running", attempts=1, started_at=since, worker=worker)
    monkeypatch.setattr(worker_views, "running_or_none", lambda: [job])

    page = staff("view_operations", "view_job").get(PAGE).content.decode()
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())

    assert f'id="{slow_pool.member}"' in page
    assert re.search(r"slow on h, pid 1 .* up 1 of 2 302 MB .* 1 by memory", text)
    assert re.search(r"runs render_report for [\d.]+ s \( 11112222 \)", text)
    assert re.search(r"render_report .* [\d.]+ s since [\d:]+ UTC .* 11112222", text)
    assert "render_report" not in staff("view_operations").get(PAGE).content.decode()


def test_stacks_are_asked_for_by_a_form_of_ours_alone(slow_pool: PoolReport) -> None:
    client = staff("dump_stacks", enforce_csrf_checks=True)
    address = reverse("switchyard-operations-ask-for-stacks", args=[slow_pool.member])

    assert client.post(address).status_code == 403
    assert client.get(address).status_code == 405


def test_request_reaches_the_supervisor_once_and_its_answer_the_page(
    looker: Client, facilities: Facilities, slow_pool: PoolReport
) -> None:
    asked = looker.post(reverse("switchyard-operations-ask-for-stacks", args=[slow_pool.member]))
    waiting = looker.get(asked["Location"]).content.decode()
    request = facilities.pools.write(slow_pool).stacks
    facilities.pools.answer_stacks(request, [ChildStacks(2, [Stack("thread", ["actors.py:7 <lambda>"])])])

    shown = looker.get(asked["Location"]).content.decode()

    assert 'http-equiv="refresh"' in waiting
    assert request == asked["Location"].rstrip("/").rpartition("/")[2]
    assert facilities.pools.write(slow_pool).stacks == request, "the supervisor may not have had the answer"
    assert "actors.py:7 &lt;lambda&gt;" in shown
    assert 'http-equiv="refresh"' not in shown


@pytest.mark.parametrize(
    "written", [b"\xff\xfe", b"", b"a request", b"x" * 65, "\N{GREEK SMALL LETTER ALPHA}".encode()]
)
def test_request_that_somebody_wrote_by_hand_stops_no_supervisor(
    facilities: Facilities, slow_pool: PoolReport, valkey: redis.Redis, written: bytes
) -> None:
    valkey.set(Keys().stacks_asked(slow_pool.member), written)

    assert facilities.pools.write(slow_pool).stacks == ""


def test_request_that_nobody_answers_stops_looking(looker: Client, slow_pool: PoolReport) -> None:
    page = looker.get(
        reverse("switchyard-operations-stacks", args=[slow_pool.member, "1000-" + "x" * 22])
    ).content.decode()

    assert "No answer." in page
    assert 'http-equiv="refresh"' not in page
