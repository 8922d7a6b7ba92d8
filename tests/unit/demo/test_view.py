"""Terminal view of a running demo."""

from __future__ import annotations

import datetime
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from demo.sample.journal import SentJob
from demo.view import screen
from demo.view.feed import Feed, Line
from demo.view.snapshot import Snapshot
from demo.view.text import addresses_to_open, memory, status_line
from switchyard.broker.stores.pool_reports import PoolReport

QUEUE = {
    "queue": "webhook", "depth": 3, "scheduled": 1, "running": 2, "retrying": 5, "dead": 7, "oldest_age_seconds": 12.4,
}  # fmt: skip
ADDRESSES = addresses_to_open("http://127.0.0.1:8000/", Path("/state/credentials.json"), Path("/state/logs/pools.log"))


def snapshot() -> Snapshot:
    return Snapshot(
        up_s=75.0,
        queues=[QUEUE],
        pools=[PoolReport("slow", "host", 1, "processes", slots=2, busy=1, started_at=0, beat_at=0, state="up")],
        jobs=[
            SentJob("reports", "statement", "Statement", "1", body={"state": "succeeded"}),
            SentJob("reports", "statement", "Statement", "2", body={"state": "running"}),
        ],
        lines=[Line(datetime.datetime.now().astimezone(), f"thing {number}") for number in range(100)],
        memory_bytes=512_000_000,
        mails=9,
    )


def shown(seen: Snapshot, *, height: int = 50, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(screen.render(seen, ADDRESSES, height=height))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_screen_shows_queues_pools_work_news_and_addresses() -> None:
    text = shown(snapshot())

    assert "up 1 min 15 s" in text
    assert "512 MB" in text
    assert next(line.split("│")[1].split() for line in text.splitlines() if "webhook" in line) == [
        "webhook",
        "4",
        "2",
        "5",
        "7",
        "12",
        "s",
    ]
    assert "1/2" in text
    assert "1 succeeded  1 running" in text
    assert "thing 99" in text
    assert "http://127.0.0.1:8000/admin/mail/mailbox/" in text
    assert "user admin, password in /state/credentials.json" in text


@pytest.mark.parametrize("height", [24, 30, 40, 60])
def test_screen_fits_its_terminal_and_keeps_room_for_news(height: int) -> None:
    one = snapshot()
    whole = replace(one, queues=one.queues * 6, pools=one.pools * 8, jobs=one.jobs * 4)

    text = shown(whole, height=height)

    assert len(text.splitlines()) < height
    assert "thing 99" in text


def test_empty_yard_can_be_shown() -> None:
    assert "nothing yet" in shown(Snapshot())


def test_line_for_logs_says_the_same_in_short() -> None:
    assert status_line(snapshot()) == (
        "up 1 min 15 s: jobs 1 succeeded, 1 running; pools 1 with 1 of 2 slots busy; 9 mails; memory 512 MB"
    )


def test_line_counts_jobs_of_whoever_uses_the_demo() -> None:
    others = replace(snapshot(), jobs=[], others={"succeeded": 4, "dead": 1})

    assert "jobs 4 succeeded, 1 dead;" in status_line(others)
    assert "jobs none yet;" in status_line(replace(others, others={}))


def test_screen_names_the_log() -> None:
    text = shown(snapshot())

    assert "Log of the jobs" in text
    assert ". /state/environment; .venv/bin/python manage.py switchyard doctor" in text
    assert "What just happened, all of it in /state/logs/pools.log" in text


def test_no_memory_is_a_dash() -> None:
    assert memory(0) == "-"


def test_feed_keeps_the_newest_lines_and_prints_each() -> None:
    printed: list[str] = []
    feed = Feed(print_line=printed.append)

    for number in range(300):
        feed.add(f"line {number}")

    assert [line.text for line in feed.last(2)] == ["line 298", "line 299"]
    assert len(feed.last(1000)) == 200
    assert len(printed) == 300
