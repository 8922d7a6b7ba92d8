"""The overview, whatever is away, its charts over time, and queues as JSON by command and API."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from unittest.mock import Mock
from urllib.parse import parse_qs, urlsplit

import dramatiq
import msgspec
import pytest
import redis
from django.conf import settings
from django.db import DatabaseError
from django.urls import reverse
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores.history_streams import EndedJob, ended_step
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.broker.stores.yard_facts import (
    CLASSES,
    DEPTH,
    HOUR_MS,
    MINUTE_MS,
    RUNS,
    SENT,
    SPAN_MS,
    SUCCEEDED,
    WAITS,
    YARD,
    span_of,
)
from switchyard.dead_letters import projection
from switchyard.history.fact_keeper import store_hour
from switchyard.history.filters import Filter
from switchyard.operations import charts, overview
from switchyard.operations.charts import DAY_MS, SPANS, charts_of, heat_map, path_of, short
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


def test_waiting_work_without_its_pool_is_the_verdict(watcher, facilities):
    @dramatiq.actor(actor_name="stuck", queue_name="images")
    def stuck() -> None:
        pass

    stuck.send()

    text = text_of(watcher.get(LIVE).content.decode())

    assert "No pool serves images, urgent, default, images-retry and 5 more: no supervisor of them" in text
    assert "reports; 1 job waits." in text


def test_every_process_says_the_same_headline(facilities):
    held = ranked([Finding("queues", "parked", "warning", "mail: 1 message waits")])
    worse = ranked([Finding("actors", "failing", "warning", "all of its jobs fail"), held[0].finding])

    assert [each.finding.code for each in calm(worse)] == ["failing", "parked"]
    facilities.records.calls.command("DEL", Keys().headline())
    assert [each.finding.code for each in calm(held)] == ["parked"]
    assert [each.finding.code for each in calm(worse)] == ["parked", "failing"]
    assert 0 < facilities.records.calls.command("PTTL", Keys().headline()) <= KEPT_MS


def test_broker_that_is_away_leaves_a_page_that_says_so_and_a_503_of_the_api(watcher, broker_away):
    text = text_of(watcher.get(PAGE).content.decode())

    assert "No job can be sent or seen from here, because the broker does not answer" in text
    assert "unknown unknown" in text and "3 by" not in text
    assert text.count("Unknown broker away") == ROWS
    answer = Caller().get("/queues")

    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert "Retry-After" in answer


def test_broker_that_has_gone_leaves_the_last_numbers_as_old_ones(watcher, slow_pool):
    watcher.get(PAGE)

    with broker_without_server():
        text = text_of(watcher.get(PAGE).content.decode())

    assert re.search(r"The yard, (just now|[\w. ]+ ago) Last known at [\d:]+ UTC, not live\.", text)
    assert re.search(r"checked [\d:]+ UTC, the figures are those of [\d:]+ UTC", text)
    assert "1 of 2 busy" in text and text.count("Unknown broker away") == ROWS
    assert "No job can be sent or seen from here" in text and "1 of 2 302 MB" not in text


def test_an_absent_database_leaves_queues(watcher, facilities, monkeypatch):
    monkeypatch.setattr("switchyard.dead_letters.queries.open_count", Mock(side_effect=DatabaseError("away")))

    found = overview.overview()

    assert found.alerts is None
    assert len(found.rows) == ROWS


def test_sidebar_leads_to_the_room_and_counts_open_letters(watcher, facilities):
    projection.project_or_log(letter())

    page = watcher.get(PAGE).content.decode()

    sidebar = page[page.index('aria-label="Menu"') : page.index("<header")]
    for address in (PAGE, reverse("switchyard-letters"), reverse("switchyard-alerts")):
        assert f'href="{address}"' in sidebar
    assert "Dead letters 1" in text_of(sidebar)


def test_jobs_that_nobody_writes_into_the_history_are_said_on_the_overview(watcher, slow_pool, facilities):
    before = text_of(watcher.get(LIVE).content.decode())
    ended = EndedJob("0f8fad5b-d9cb-469f-a165-70867728950e", "succeeded", attempt=1, body=b'{"actor":"a","sent_at":1}')
    facilities.records.write([ended_step("default", ended)])

    page = text_of(watcher.get(LIVE).content.decode())

    assert "history" not in before
    said = r"Also: Of the jobs, those that ended in the last .* are not all in the history: no history w"
    assert re.search(said, page)


def test_starts_of_pools_are_told_with_host_and_release_among_what_people_did(db, facilities):
    now = now_ms()
    for pool, started_at in (("default", now - 70_000), ("slow", now - 100_000), ("billing", now - 2 * 86_400_000)):
        report = PoolReport(pool, "web-1", 1, "threads", 8, 0, started_at, now, "up", release="2026.11.3")
        facilities.pools.write(report)
    AuditEntry.objects.create(act="queue.pause", target="default", who="ada", via="page", outcome="done")
    client = staff("view_operations", "view_auditentry", name="reader")

    text = text_of(client.get(PAGE).content.decode())

    said = r"ada : pause a queue default .* web-1 : started slow, default, release 2026\.11\.3"
    assert re.search(rf"What changed, last 24 h Audit log .* {said}", text), text


def test_the_newest_note_of_a_day_stands_below_the_verdict_until_the_next(facilities):
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


def test_json_and_api_tell_every_queue(busy):
    slow = next(queue for queue in json_of("queues") if queue["queue"] == "slow")
    answer = Caller().get("/queues")

    assert set(slow) == FIELDS
    assert (slow["depth"], slow["dead"], slow["slots"], slow["slots_busy"], slow["pools_up"]) == (2, 1, 2, 1, 1)
    assert 0 <= slow["oldest_age_seconds"] < 30
    assert slow["objective_seconds"] == 300
    assert slow["arrivals_per_second"] >= 0 and slow["starts_per_second"] == slow["ends_per_second"] == 0
    found = answer.json()["queues"]
    assert answer.status_code == 200
    assert [queue["queue"] for queue in found] == [queue.name for queue in settings.SWITCHYARD.topology.queues]
    assert all(set(queue) == FIELDS for queue in found)


QUICK = {SUCCEEDED: 60, RUNS + 4: 60, WAITS + 1: 60, DEPTH: 3, SENT: 30}
SLOW = {SUCCEEDED: 6, RUNS + 10: 6, WAITS + 1: 6, DEPTH: 90, SENT: 6}


@pytest.fixture
def two_days(facilities: Facilities, valkey: redis.Redis) -> int:
    """Facts of two days and of an hour a week ago, slow in the last two hours; return now."""
    now = facilities.facts.server_ms()
    for span in range(span_of(now - 2 * DAY_MS), now, SPAN_MS):
        counts = SLOW if span > now - 2 * HOUR_MS else QUICK
        packed = msgspec.msgpack.encode(dict.fromkeys(range(10), counts))
        release = {"r:2.0": packed} if span > now - 3 * HOUR_MS else {}
        subjects = dict.fromkeys(("a:send_mail", "q:default", YARD), packed) | release
        valkey.hset(Keys().facts_span(span), mapping=subjects)  # type: ignore[arg-type]
    for hour in range(-60, -2):
        store_hour(now // HOUR_MS + hour, {"q:default": {SUCCEEDED: 3_600, RUNS + 4: 3_600}})
    store_hour(now // HOUR_MS - 3, {"r:2.0": {SUCCEEDED: 1}})
    for hour in range(-7 * 24 - 24, -7 * 24):
        store_hour(now // HOUR_MS + hour, {"q:default": {SUCCEEDED: 1_200, RUNS + 4: 1_200, WAITS: 1_200}})
    return now


def test_today_is_drawn_beside_yesterday_and_last_week(two_days):
    found = charts_of("q:default", "queue", "24h")

    assert found is not None
    drawn = {chart["title"]: chart for chart in found["charts"]}
    assert list(drawn) == ["Wait", "Run", "Attempts a minute", "Failed attempts a minute", "Most that waited"]
    assert [line["kind"] for line in drawn["Run"]["lines"]] == ["half", "most", "before", "week"]
    assert drawn["Run"]["top"].startswith("5")
    assert drawn["Most that waited"]["says"] == "Most that waited: up to 90, last 90"
    assert drawn["Attempts a minute"]["says"] == "Attempts a minute: up to 60, last 6"
    assert len(found["rows"]) == 24
    assert found["rows"][0][1:] != found["rows"][-1][1:]
    assert found["rows"][-1][3] == "6"


@pytest.mark.parametrize("span", [each.name for each in SPANS])
def test_every_span_has_its_bins_and_table(two_days, span):
    found = charts_of("q:default", "queue", span)

    assert found is not None
    assert found["span"].name == span
    assert len(found["axis"]) == 5
    assert 20 <= len(found["rows"]) <= 26
    assert all(len(row) == len(found["heads"]) + 1 for row in found["rows"])


def test_releases_and_pauses_are_marked(two_days):
    AuditEntry.objects.create(
        act="queue.pause", target="default", who="ada", via="page", outcome="done",
        at=timezone.now() - timedelta(hours=6),
    )  # fmt: skip
    AuditEntry.objects.create(act="queue.pause", target="urgent", who="bob", via="page", outcome="done")

    found = charts_of("q:default", "queue", "24h", target="default")

    assert found is not None
    assert [mark["kind"] for mark in found["marks"]] == ["pause", "release"]
    assert found["marks"][0]["text"].endswith("ada paused default")
    assert found["marks"][1]["text"].endswith("release 2.0")
    assert 500 < found["marks"][0]["x"] < found["marks"][1]["x"] < 720


def test_a_line_is_interrupted_where_nothing_is_known_and_counts_of_the_map_are_short():
    assert path_of([1.0, None, 2.0, 1.0], 2.0).count("M") == 2
    assert path_of([], 1.0) == ""
    shown = [short(count) for count in (0, 999, 1_000, 9_949, 45_400, 3_100_000)]
    assert shown == ["", "999", "1.0k", "9.9k", "45k", "3.1M"]


def test_pages_have_the_charts_with_a_table(two_days, admin_client):
    dramatiq.actor(actor_name="charted", queue_name="default")(lambda: None)
    pages = {
        "overview": admin_client.get(reverse("switchyard-operations")),
        "queue": admin_client.get(reverse("switchyard-queue", args=["default"]), {"span": "72h"}),
        "actor": admin_client.get(reverse("switchyard-actor", args=["charted"])),
    }

    shown = {name: page.content.decode() for name, page in pages.items()}
    assert [shown[name].count('<figure class="sy-chart">') for name in ("overview", "queue")] == [5, 5]
    assert "Nothing was counted yet" in shown["actor"]
    assert re.search(r'href="\?span=72h#sy-charts" aria-current="true"', shown["queue"])
    assert 'class="sy-heat-5"' in shown["queue"] and "queue=default&amp;since=" in shown["queue"]
    assert "As a table (UTC)" in shown["queue"] and "Wait, 95 %" in shown["queue"]


def test_waits_are_a_map_whose_numbers_open_their_jobs(two_days):
    found = charts_of("q:default", "queue", "24h", target="default")

    assert found is not None
    [(title, cells)] = found["waits"]["rows"]
    assert title == "up to 20 ms" and len(cells) == len(found["waits"]["times"]) == 24
    # 60 a minute for an hour, but six a minute in the last two hours.
    assert (cells[5]["text"], cells[5]["level"], cells[-1]["level"]) == ("3.6k", 5, 4)
    query = parse_qs(urlsplit(cells[5]["url"]).query)
    wanted = Filter.from_query(query)
    assert (wanted.queue, wanted.span_ms("waited")) == ("default", (None, 20))
    assert (wanted.until_ms or 0) - (wanted.since_ms or 0) == HOUR_MS
    assert f"{datetime_of(wanted.since_ms or 0):%a %H:%M}" == found["waits"]["times"][5]


def test_each_wait_is_in_one_row_of_the_map():
    columns: list[dict[int, int]] = [{WAITS + number: 1 for number in range(CLASSES)}, {}, {WAITS + 18: 2_345}]

    found = heat_map(columns, range(3), "abc", MINUTE_MS, {"actor": "a"})

    assert found is not None
    assert sum(int(cells[0]["text"]) for _, cells in found["rows"]) == CLASSES
    assert [title for title, _ in found["rows"]][:2] == ["over 5 min 28 s", "up to 5 min 28 s"]
    assert [cell["text"] for cell in found["rows"][0][1]] == ["2", "", "2.3k"]
    assert [cell["url"] for cell in found["rows"][-1][1][1:]] == ["", ""]
    ranges = [parse_qs(urlsplit(cells[0]["url"]).query)["waited"][0] for _, cells in found["rows"]]
    assert ranges[0] == "327680-" and ranges[-1] == "-20"
    assert [each.partition("-")[2] for each in ranges[1:]] == [each.partition("-")[0] for each in ranges[:-1]]
    assert heat_map([{}, {}], range(2), "ab", MINUTE_MS, {}) is None


def test_without_a_server_a_page_has_no_chart(monkeypatch, two_days):
    monkeypatch.setattr(charts, "hours_of", Mock(side_effect=DatabaseError("away")))
    assert charts_of("q:default", "queue", "24h") is None
