"""Commands that list things say what the pages of these things say."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from datetime import datetime

import dramatiq
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from periodiq import cron

from switchyard.alerts import acts as alerts
from switchyard.alerts.models import Alert
from switchyard.alerts.silences import end_of
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.ended_jobs import EndedJob
from switchyard.broker.stores.job_steps import ended_step
from switchyard.conf import declared_yard
from switchyard.dead_letters import projection, queries
from switchyard.schedules import pauses
from tests.factories.letters import letter
from tests.integration.operations.test_same_sentences import ADA, page, plain, said

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(db: None) -> Client:
    """A user who may see every page."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def rates() -> Iterator[str]:
    """A schedule of this test's own."""
    broker = dramatiq.get_broker()
    dramatiq.actor(lambda: None, actor_name="same_rates", queue_name="billing", periodic=cron("15 2 * * *"))
    yield "same_rates"
    del broker.actors["same_rates"]


def test_a_paused_schedule(facilities: Facilities, client: Client, rates: str) -> None:
    pauses.pause(rates, who=ADA, reason="no rates on Sundays", until=None)

    words = next(line for line in said("schedules", "show", rates)[0].splitlines() if line.startswith("Paused by"))
    headline = said("schedules", "list")[1].strip().removeprefix("schedules: ")

    assert "until somebody resumes it: no rates on Sundays. It has missed 0 ticks" in words
    assert plain(words) in page(client, "switchyard-schedule", rates)
    assert headline == "No schedule is sent."
    assert plain(headline.rstrip(".")) in page(client, "switchyard-schedules")


def test_a_dead_letter(facilities: Facilities, client: Client) -> None:
    projection.project_or_log(letter(queue="slow", fingerprint="beef"))
    [row] = queries.listing()

    shown = said("deadletters", "show", row.message_id)[0]

    [why] = re.findall(r"^why +(.*)$", shown, re.MULTILINE)
    [failed] = re.findall(r"^failed +(.*)$", shown, re.MULTILINE)
    letter_page = page(client, "switchyard-letter", str(row.pk))
    assert why == "fail_always on slow was given up after 6 attempts, the maximum of its retry policy"
    assert plain(why) in letter_page and plain(failed) in letter_page


def test_an_alert_that_is_silenced(facilities: Facilities, client: Client) -> None:
    at = "2026-11-20T00:00Z"
    row = Alert.objects.create(
        fingerprint="f", kind="dead_letter", title="slow: fail_always gave up", severity="critical", sample="s",
        count=3, first_at=at, last_at=at,
    )  # fmt: skip
    alerts.silence("f", end_of("2h"), who=ADA, reason="slow on Fridays")

    listed, headline = said("alerts", "list")

    first, silence = listed.splitlines()
    shown = page(client, "switchyard-alerts")
    detail = page(client, "switchyard-alert", str(row.pk))
    assert headline.strip() == "alerts: 1 open alert." and plain("1 open alert") in shown
    [title] = re.findall(r"UTC  (.*) \(3 times\)$", first)
    assert title == row.title and plain(title) in shown and plain("3 times") in shown
    until, by = re.findall(r", until (.*) UTC, (by .*)$", silence)[0]
    end = datetime.fromisoformat(until)  # a page has names of months
    assert plain(f"Silenced until {end.day} {end:%b %Y %H:%M} UTC {by}") in detail


def test_a_broker_that_would_evict_messages(facilities: Facilities, client: Client) -> None:
    server, out = facilities.records.calls, io.StringIO()
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(SystemExit):
            call_command("switchyard", "broker", stdout=out)
        overview = page(client, "switchyard-operations")
    finally:
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

    [(seen, remedy)] = re.findall(r"^error: (maxmemory-policy is .*); (Set .*)$", out.getvalue(), re.MULTILINE)
    assert plain(seen) in overview and plain(remedy) in overview


def test_the_topology(facilities: Facilities, client: Client) -> None:
    queues = said("topology")[0].partition("\n\n")[0].splitlines()
    cells = {line.split()[0]: re.split(r"  +", line) for line in queues}

    answer = client.get(reverse("switchyard-operations")).content.decode()
    overview = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer)).split())
    for queue in declared_yard().queues:
        assert f"{queue.name} start in {cells[queue.name][1]}" in overview
        [retries] = [cell for cell in cells[queue.name] if " retries over " in cell]
        assert retries in overview


def test_jobs_that_are_not_in_the_history_yet(facilities: Facilities, client: Client) -> None:
    ended = EndedJob("0f8fad5b-d9cb-469f-a165-70867728950e", "succeeded", attempt=1, body=b'{"actor":"a","sent_at":1}')
    facilities.records.write([ended_step("default", ended)])

    notes = [line for line in said("jobs", "list")[0].splitlines() if line.startswith("note: ")]

    [note] = [note.removeprefix("note: ") for note in notes]
    assert "are not all in the history: no history writer leads" in note
    assert plain(f"Not all are here: {note}.") in page(client, "switchyard-jobs")
    assert plain(f"Of the jobs, {note}.") in page(client, "switchyard-operations")
