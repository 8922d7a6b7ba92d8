"""Every page of the room is the same whatever time zone, language and separators the project and the user have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone, translation

from switchyard.alerts.models import Alert
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.models import DeadLetter
from tests.factories.staff import client_of
from tests.integration.project.test_urls import Sample, make_sample
from tests.integration.project.url_table import ROLES, ROUTES

pytestmark = pytest.mark.django_db

PAGES = [
    row.path
    for rows in ROUTES.values()
    for row in rows
    if row.method == "GET"
    and row.answers[ROLES.index("admin")] == 200
    and re.match(r"/admin/(operations|switchyard_\w+/\w)", row.path)
    and "events/" not in row.path
]
# Differs between two answers to the same request: rates need a reading before.
ONCE = re.compile(
    r'name="(csrfmiddlewaretoken|form_id|job_id)" value="[\w-]+"|(?<=ends</h2>)<p class="sy-small">.*?</p>|'
    r"\blast \d+(\.\d)? s\b|–|\b\d+(\.\d)? ?/(min|s)\b"
)
BIG = 1_795_628


@pytest.fixture
def sample(valkey: redis.Redis) -> Sample:
    """One of each thing, with numbers that have separators."""
    made = make_sample()
    DeadLetter.objects.filter(pk=made.letter).update(id=BIG)
    Alert.objects.filter(pk=made.alert).update(count=BIG)
    BulkAct.objects.filter(pk=made.bulk).update(total=BIG)
    facilities().pools.write(
        PoolReport(
            pool="slow", host="vm", pid=BIG, kind="threads", slots=4, busy=1, state="up", started_at=now_ms() - 90_500,
            beat_at=now_ms(), children=[{"pid": BIG, "ready": True, "busy": 1, "done": 1_500, "rss_bytes": BIG}],
        )
    )  # fmt: skip
    return replace(made, letter=BIG)


@pytest.fixture
def browser() -> Iterator[Client]:
    """A superuser's browser, at one moment."""
    client = client_of(User.objects.create_superuser("ada"))
    with time_machine.travel(timezone.now(), tick=False):
        yield client


def test_pages_do_not_depend_on_the_locale(browser: Client, sample: Sample, settings: Any) -> None:
    differ: dict[str, list[tuple[str, str]]] = {}
    for page in PAGES:
        address = page.format(**vars(sample))
        plain = shown(browser, address)
        settings.USE_THOUSAND_SEPARATOR = True
        with timezone.override("Europe/Berlin"), translation.override("de"):
            abroad = shown(browser, address)
        settings.USE_THOUSAND_SEPARATOR = False
        pairs = zip(plain.splitlines(), abroad.splitlines(), strict=False)
        differ[address] = [pair for pair in pairs if pair[0] != pair[1]][:3]

    assert len(PAGES) > 40
    assert {page: pairs for page, pairs in differ.items() if pairs} == {}


def shown(browser: Client, address: str) -> str:
    answer = browser.get(address)
    assert answer.status_code == 200, address
    return ONCE.sub("", answer.content.decode())
