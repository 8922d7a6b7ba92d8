"""Charts over time: today beside yesterday and last week, marks, and a table for those who see no drawing."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dramatiq
import msgspec
import pytest
import redis
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
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
from switchyard.history.fact_keeper import store_hour
from switchyard.history.filters import Filter
from switchyard.operations.charts import DAY_MS, SPANS, charts_of, heat_map, path_of, short

pytestmark = pytest.mark.django_db

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


def test_today_is_drawn_beside_yesterday_and_last_week(two_days: int) -> None:
    found = charts_of("q:default", "queue", "24h")

    assert found is not None
    charts = {chart["title"]: chart for chart in found["charts"]}
    assert list(charts) == ["Wait", "Run", "Attempts a minute", "Failed attempts a minute", "Most that waited"]
    assert [line["kind"] for line in charts["Run"]["lines"]] == ["half", "most", "before", "week"]
    assert charts["Run"]["top"].startswith("5")
    assert charts["Most that waited"]["says"] == "Most that waited: up to 90, last 90"
    assert charts["Attempts a minute"]["says"] == "Attempts a minute: up to 60, last 6"
    assert len(found["rows"]) == 24
    assert found["rows"][0][1:] != found["rows"][-1][1:]
    assert found["rows"][-1][3] == "6"


@pytest.mark.parametrize("span", [each.name for each in SPANS])
def test_every_span_has_its_bins_and_table(two_days: int, span: str) -> None:
    found = charts_of("q:default", "queue", span)

    assert found is not None
    assert found["span"].name == span
    assert len(found["axis"]) == 5
    assert 20 <= len(found["rows"]) <= 26
    assert all(len(row) == len(found["heads"]) + 1 for row in found["rows"])


def test_releases_and_pauses_are_marked(two_days: int) -> None:
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


def test_a_line_is_interrupted_where_nothing_is_known() -> None:
    assert path_of([1.0, None, 2.0, 1.0], 2.0).count("M") == 2
    assert path_of([], 1.0) == ""


def test_pages_have_the_charts_with_a_table(two_days: int, admin_client: Client) -> None:
    dramatiq.actor(actor_name="charted", queue_name="default")(lambda: None)
    pages = {
        "overview": admin_client.get(reverse("switchyard-operations")),
        "queue": admin_client.get(reverse("switchyard-queue", args=["default"]), {"span": "72h"}),
        "actor": admin_client.get(reverse("switchyard-actor", args=["charted"])),
    }

    shown = {name: page.content.decode() for name, page in pages.items()}
    assert (
        shown["overview"].count('<figure class="sy-chart">') == shown["queue"].count('<figure class="sy-chart">') == 5
    )
    assert "Nothing was counted yet" in shown["actor"]
    assert re.search(r'href="\?span=72h#sy-charts" aria-current="true"', shown["queue"])
    assert 'class="sy-heat-5"' in shown["queue"] and "queue=default&amp;since=" in shown["queue"]
    assert "As a table (UTC)" in shown["queue"] and "Wait, 95 %" in shown["queue"]


def test_waits_are_a_map_whose_numbers_open_their_jobs(two_days: int) -> None:
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


def test_each_wait_is_in_one_row_of_the_map() -> None:
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


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (999, "999"), (1_000, "1.0k"), (9_949, "9.9k"), (45_400, "45k"), (3_100_000, "3.1M")]
)
def test_counts_of_the_map_are_short(count: int, text: str) -> None:
    assert short(count) == text


def test_without_a_server_a_page_has_no_chart(monkeypatch: Any, two_days: int) -> None:
    from django.db import DatabaseError

    from switchyard.operations import charts

    def away(*args: Any) -> Any:
        raise DatabaseError("away")

    monkeypatch.setattr(charts, "hours_of", away)
    assert charts_of("q:default", "queue", "24h") is None
    assert two_days > MINUTE_MS
