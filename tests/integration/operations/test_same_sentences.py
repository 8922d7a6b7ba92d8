"""Pages and commands say the same sentences of the same situation."""

from __future__ import annotations

import html
import io
import re

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from switchyard.audit.who import Who
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.queues import services
from tests.integration.operations.conftest import slow_pool as slow_pool
from tests.integration.operations.conftest import watcher as watcher

pytestmark = pytest.mark.django_db
# Times go on between two looks.
TIME = re.compile(r"\d[\d.]* (?:ms|s|min|h)(?: \d\d (?:s|min))?(?: ago)?|just now")
ADA = Who("ada", "page")


def said(command: str, *arguments: str) -> tuple[str, str]:
    """Return what a command prints on standard output and on standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command("switchyard", command, *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def plain(text: str) -> str:
    """Return a text without tags, marks of code, times and spaces."""
    return "".join(TIME.sub("", html.unescape(re.sub(r"<[^>]+>", "", text)).replace("`", "")).split())


def page(client: Client, name: str, *arguments: str) -> str:
    """Return a page of the room as plain text."""
    answer = client.get(reverse(name, args=arguments))
    assert answer.status_code == 200
    return plain(answer.content.decode())


def test_the_status_of_a_paused_queue(facilities: Facilities, watcher: Client, slow_pool: PoolReport) -> None:
    services.pause("slow", who=ADA, reason="the disk is full", until=None)

    status, shown = said("queues", "status", "slow")[0].splitlines(), page(watcher, "switchyard-queue", "slow")
    overview = page(watcher, "switchyard-operations")

    _, lead, *others = status
    assert plain(lead) in shown
    [pause] = [line for line in others if line.startswith("Paused by")]
    assert "Reason: the disk is full." in pause and plain(pause) in shown
    [verdict] = [line for line in others if line.startswith("slow starts nothing")]
    assert plain(verdict) in overview
    assert "Next: manage.py switchyard queues resume slow" in others


def test_the_list_of_queues(facilities: Facilities, watcher: Client, slow_pool: PoolReport) -> None:
    table, sentences = said("queues")

    first, *findings = [line.removeprefix("queues: ") for line in sentences.splitlines()]
    assert plain(first.rstrip(".")) in page(watcher, "switchyard-queues")
    overview = page(watcher, "switchyard-operations")
    assert findings and "has no pool" in first
    for line in findings:
        severity, _, sentence = line.partition(": ")
        assert severity in ("warning", "error")
        assert plain(sentence.partition(" Next: ")[0]) in overview
    assert "Next" not in table and len(table.splitlines()) == len(table.strip().splitlines())


def test_the_workers(facilities: Facilities, watcher: Client, slow_pool: PoolReport) -> None:
    title, lead, *lines = said("workers")[0].splitlines()

    shown = page(watcher, "switchyard-operations-workers")
    assert "without a worker" in title and plain(title.rstrip(".")) in shown
    assert (
        lead.startswith("1 of 2 slots run a job. Start them with manage.py switchyard runpool ")
        and plain(lead) in shown
    )
    assert "slow on h, pid 1: up, 1 of 2 busy" in lines


def test_no_worker(facilities: Facilities, watcher: Client) -> None:
    title, lead = said("workers")[0].splitlines()

    shown = page(watcher, "switchyard-operations-workers")
    assert plain(title.rstrip(".")) in shown and plain(lead) in shown
