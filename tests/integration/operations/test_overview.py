"""The overview, whatever is away; queues as JSON by command and API."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser

import dramatiq
import pytest
from django.conf import settings
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores.history_streams import EndedJob
from switchyard.broker.stores.job_steps import ended_step
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.dead_letters import projection
from switchyard.operations.findings.finding import Finding, ranked
from switchyard.operations.overview import KEPT_MS, calm
from tests.factories.brokers import broker_without_server
from tests.factories.callers import Caller
from tests.factories.commands import json_of
from tests.factories.letters import keep, letter
from tests.factories.pages import text_of
from tests.factories.staff import staff

pytestmark = pytest.mark.django_db
PAGE, LIVE = reverse("switchyard-operations"), reverse("switchyard-operations-live")
OWN_LANES = [lane for pool in settings.SWITCHYARD.topology.pools for lane in pool.queues if lane.endswith("-retry")]
ROWS = len(settings.SWITCHYARD.topology.queues) + len(OWN_LANES) + 1
FIELDS = {
    "queue", "depth", "scheduled", "parked", "running", "retrying", "dead", "quarantined", "oldest_age_seconds",
    "arrivals_per_second", "starts_per_second", "ends_per_second",
    "objective_seconds", "done_objective_seconds",
    "oldest_unfinished_age_seconds", "paused", "pause", "pools", "pools_up",
    "slots", "slots_busy",
}  # fmt: skip


class Seen(HTMLParser):
    """Tags, inline handlers and styles of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = dict(attrs)
        self.inline += [name for name in names if name == "style" or name.startswith("on")]
        if tag in ("script", "style") and "src" not in names:
            self.inline.append(tag)


def test_waiting_work_without_its_pool_is_the_verdict(watcher: Client, facilities: Facilities) -> None:
    @dramatiq.actor(actor_name="stuck", queue_name="images")
    def stuck() -> None:
        pass

    stuck.send()

    text = text_of(watcher.get(LIVE).content.decode())

    assert "No pool serves images, urgent, default, images-retry and 5 more: no supervisor of them" in text
    assert "reports; 1 job waits." in text


def test_every_process_says_the_same_headline(facilities: Facilities) -> None:
    held = ranked([Finding("queues", "parked", "warning", "mail: 1 message waits")])
    worse = ranked([Finding("actors", "failing", "warning", "all of its jobs fail"), held[0].finding])

    assert [each.finding.code for each in calm(worse)] == ["failing", "parked"]
    facilities.records.calls.command("DEL", Keys().headline())
    assert [each.finding.code for each in calm(held)] == ["parked"]
    assert [each.finding.code for each in calm(worse)] == ["parked", "failing"]
    assert 0 < facilities.records.calls.command("PTTL", Keys().headline()) <= KEPT_MS


def test_broker_that_is_away_leaves_a_page_that_says_so(watcher: Client, broker_away: None) -> None:
    text = text_of(watcher.get(PAGE).content.decode())

    assert "No job can be sent or seen from here, because the broker does not answer" in text
    assert "unknown unknown" in text and "3 by" not in text
    assert text.count("Unknown broker away") == ROWS


def test_broker_that_has_gone_leaves_the_last_numbers_as_old_ones(watcher: Client, slow_pool: PoolReport) -> None:
    watcher.get(PAGE)

    with broker_without_server():
        text = text_of(watcher.get(PAGE).content.decode())

    assert re.search(r"The yard, (just now|[\w. ]+ ago) Last known at [\d:]+ UTC, not live\.", text)
    assert re.search(r"checked [\d:]+ UTC, the figures are those of [\d:]+ UTC", text)
    assert "1 of 2 busy" in text and text.count("Unknown broker away") == ROWS
    assert "No job can be sent or seen from here" in text and "1 of 2 302 MB" not in text


def test_database_that_is_away_leaves_the_queues(
    watcher: Client, facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    from switchyard.operations import overview

    def away(*args: object, **kwargs: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr("switchyard.dead_letters.queries.open_count", away)

    found = overview.overview()

    assert found.alerts is None
    assert len(found.rows) == ROWS


def test_sidebar_leads_to_the_room_and_counts_open_letters(watcher: Client, facilities: Facilities) -> None:
    projection.project_or_log(letter())

    page = watcher.get(PAGE).content.decode()

    sidebar = page[page.index('aria-label="Menu"') : page.index("<header")]
    for address in (PAGE, reverse("switchyard-letters"), reverse("switchyard-alerts")):
        assert f'href="{address}"' in sidebar
    assert "Dead letters 1" in text_of(sidebar)


def test_jobs_that_nobody_writes_into_the_history_are_said_on_the_overview(
    watcher: Client, slow_pool: PoolReport, facilities: Facilities
) -> None:
    before = text_of(watcher.get(LIVE).content.decode())
    ended = EndedJob("0f8fad5b-d9cb-469f-a165-70867728950e", "succeeded", attempt=1, body=b'{"actor":"a","sent_at":1}')
    facilities.records.write([ended_step("default", ended)])

    page = text_of(watcher.get(LIVE).content.decode())

    assert "history" not in before
    assert re.search(
        r"Also: Of the jobs, those that ended in the last .* are not all in the history: no history w", page
    )


def test_starts_of_pools_are_told_with_host_and_release_among_what_people_did(db: None, facilities: Facilities) -> None:
    now = now_ms()
    for pool, started_at in (("default", now - 70_000), ("slow", now - 100_000), ("billing", now - 2 * 86_400_000)):
        report = PoolReport(pool, "web-1", 1, "threads", 8, 0, started_at, now, "up", release="2026.11.3")
        facilities.pools.write(report)
    AuditEntry.objects.create(act="queue.pause", target="default", who="ada", via="page", outcome="done")
    client = staff("view_operations", "view_auditentry", name="reader")

    text = text_of(client.get(PAGE).content.decode())

    said = r"ada : pause a queue default .* web-1 : started slow, default, release 2026\.11\.3"
    assert re.search(rf"What changed, last 24 h Audit log .* {said}", text), text


def test_the_newest_note_of_a_day_stands_below_the_verdict_until_the_next(facilities: Facilities) -> None:
    writer, reader = staff("view_operations", "pause_queue"), staff("view_operations")
    note = reverse("switchyard-operations-note")

    for text in ("the import is paused on purpose", "disk of web-2: <ordered>"):
        assert writer.post(note, {"text": text}).status_code == 302
    assert reader.post(note, {"text": "x"}).status_code == 403

    live, page = (reader.get(address).content.decode() for address in (LIVE, PAGE))
    assert "disk of web-2: &lt;ordered&gt;" in live and "on purpose" not in live
    assert "the import is paused on purpose" in page and note not in page
    assert note in writer.get(PAGE).content.decode()
    AuditEntry.objects.update(at=timezone.now() - timedelta(days=2))
    assert "ordered" not in reader.get(LIVE).content.decode()


@pytest.fixture
def busy(facilities: Facilities, slow_pool: PoolReport) -> None:
    """Two messages wait on slow, one letter is dead."""

    @dramatiq.actor(actor_name="waits", queue_name="slow")
    def waits() -> None:
        pass

    for _ in range(2):
        waits.send()
    keep(letter(queue="slow"))


def test_json_holds_the_same_as_the_api(busy: None) -> None:
    slow = next(queue for queue in json_of("queues") if queue["queue"] == "slow")

    assert set(slow) == FIELDS
    assert (slow["depth"], slow["dead"], slow["slots"], slow["slots_busy"], slow["pools_up"]) == (2, 1, 2, 1, 1)
    assert 0 <= slow["oldest_age_seconds"] < 30
    assert slow["objective_seconds"] == 300
    assert slow["arrivals_per_second"] >= 0 and slow["starts_per_second"] == slow["ends_per_second"] == 0


@pytest.mark.django_db
def test_api_tells_every_queue(busy: None) -> None:
    answer = Caller().get("/queues")

    assert answer.status_code == 200
    found = answer.json()["queues"]
    assert [queue["queue"] for queue in found] == [queue.name for queue in settings.SWITCHYARD.topology.queues]
    assert all(set(queue) == FIELDS for queue in found)


@pytest.mark.django_db
def test_api_without_a_broker_answers_503(broker_away: None) -> None:
    answer = Caller().get("/queues")

    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert "Retry-After" in answer
