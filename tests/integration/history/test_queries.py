"""Reads of the history, on rows in the database."""

from __future__ import annotations

import random

import pytest

from switchyard.broker.clock import datetime_of
from switchyard.history import queries
from switchyard.history.filters import TAG, Filter
from switchyard.history.models import JobRow, SearchValue
from switchyard.history.queries import Cursor, search
from tests.integration.history.rows import BASE_MS, job_row

pytestmark = pytest.mark.usefixtures("database")


def iso(at: int) -> str:
    return datetime_of(BASE_MS + at).isoformat(timespec="milliseconds")


def ids(found: queries.HistoryPage) -> list[int]:
    return [row.pk for row in found.rows]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, "late dead plain vip"),
        ({"state": "dead"}, "dead"),
        ({"state": "succeeded"}, "late plain vip"),
        ({"state": "succeeded,dead"}, "late dead plain vip"),
        ({"state": "retrying"}, "again"),
        ({"actor": "send_mail"}, "dead"),
        ({"queue": "slow"}, "vip"),
        ({"owner": "shop"}, "plain"),
        ({"parent": "p-1"}, "late dead"),
        ({"parent": "p-1", "state": "dead"}, "dead"),
        ({"release": "1.4"}, "vip"),
        ({"waited": "20-80"}, "plain"),
        ({"waited": "-20"}, "vip"),
        ({"waited": "80-"}, "late"),
        ({"waited": "20-", "queue": "default"}, "late plain"),
        ({"ran": "2000-"}, "plain"),
        ({"ran": "-1999"}, ""),
        ({"ran": "2000-", "waited": "-20"}, ""),
        ({"tag": "gold"}, "vip"),
        ({"argument": "customer_id=42"}, "dead vip"),
        ({"argument": "customer_id=42", "tag": "gold"}, "vip"),
        ({"argument": "customer_id=42", "state": "dead"}, "dead"),
        ({"argument": "customer_id=42", "failures": "1"}, "dead vip"),
        ({"error": "KeyError"}, "again dead"),
        ({"error": "ORDER"}, "dead vip"),
        ({"fingerprint": "beef"}, "dead vip"),
        ({"fingerprint": "beef", "queue": "default"}, "dead"),
        ({"failures": "1"}, "again dead vip"),
        ({"failures": "1", "since": iso(30)}, "again dead"),
        ({"since": iso(20), "until": iso(40)}, "dead plain"),
        ({"actor": "send_mail", "queue": "slow"}, ""),
    ],
)
def test_each_condition_finds_its_jobs(query: dict[str, str], expected: str) -> None:
    failure = {"error_type": "KeyError", "fingerprint": "beef", "error_message": "order 7"}
    rows = {
        "vip": job_row(
            10, values={TAG: "gold", "customer_id": "42"}, queue="slow", release="1.4", failed_at=BASE_MS + 5,
            fingerprint="beef", error_message="no order", wait_ms=20,
        ),
        "plain": job_row(20, owner="shop", wait_ms=80, run_ms=2_001),
        "dead": job_row(30, state="dead", actor="send_mail", values={"customer_id": "42"}, parent="p-1", **failure),
        "late": job_row(40, wait_ms=81, parent="p-1", values={"customer_id": "43"}),
        "again": job_row(50, state="retrying", error_type="KeyError", fingerprint="cafe"),
    }  # fmt: skip
    names = {row.pk: name for name, row in rows.items()}

    found = search(Filter.from_query(query))

    assert " ".join(names[pk] for pk in ids(found)) == expected
    assert found.after is None


@pytest.mark.parametrize(
    "query",
    [
        *({}, {"actor": "work"}, {"state": "dead"}, {"failures": "1"}, {"queue": "slow", "actor": "work"}),
        *({"tag": "gold"}, {"tag": "gold", "state": "dead"}, {"tag": "gold", "failures": "1"}),
    ],
)
@pytest.mark.parametrize("looked_through", [10_000, 7])
def test_pages_together_hold_every_job_once(
    query: dict[str, str], looked_through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LOOKED_THROUGH", looked_through)
    monkeypatch.setattr(queries, "CHUNK", 4)
    rng = random.Random(7)
    for _ in range(60):
        at, queue, state = rng.randrange(40), rng.choice(["slow", "default"]), rng.choice(["succeeded", "dead"])
        job_row(at, state=state, queue=queue, values={TAG: "gold"} if rng.random() < 0.5 else None)
    wanted = Filter.from_query(query)
    order = "failed_at" if wanted.failures else "finished_at"
    matching = JobRow.objects.filter(
        **({"queue": "slow"} if wanted.queue else {}), **({"state": "dead"} if wanted.states or wanted.failures else {})
    ).order_by(f"-{order}", "-pk")
    if wanted.tag:
        matching = matching.filter(job_id__in=SearchValue.objects.values("job_id"))
    expected = list(matching.values_list("pk", flat=True))
    if wanted.tag and wanted.failures and looked_through == 7:
        return  # only the newest 7 of the value are looked through

    seen: list[int] = []
    after: Cursor | None = None
    for _ in range(200):
        page = search(wanted, after=after, limit=5)
        assert len(page.rows) <= 5
        seen += ids(page)
        after = page.after
        if after is None:
            break
        after = Cursor.parse(str(after))

    assert seen == expected


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="after: '5' is not a place in a list"):
        Cursor.parse("5")
