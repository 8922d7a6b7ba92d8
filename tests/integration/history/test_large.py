"""Lists of a large history are quick, and the writer takes little time of a processor."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse

from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry
from switchyard.history.filters import Filter
from switchyard.history.models import JobRow, SearchValue
from switchyard.history.queries import Cursor, search
from switchyard.history.writer import HistoryWriter, delete_oldest
from switchyard.jobs.listing.pages import find_jobs
from tests.integration.history.conftest import Put, ended_job
from tests.integration.history.rows import BASE_MS

ROWS = {"sqlite": 2_000_000, "postgres": 5_000_000}
# The last one: where no row matches, a page looks through as many as it may.
LIST_MS, ARGUMENT_MS, NOTHING_MS = 150, 500, 500
# Of the newest rows; four weeks of jobs in all.
STEP = 28 * 86_400_000
CUSTOMERS = 50_000
WAITING = 1_000_000
RUNS = 15

JOB = """INSERT INTO {table} (job_id, sequence, state, reason, actor, queue, lane, pool, worker, release, owner,
 attempts, generation, enqueued_at, started_at, finished_at, not_succeeded_at, wait_ms, run_ms, failed_at, error_type,
 error_message, fingerprint, parent, request_id, "user", schedule, tags, arguments, result)
SELECT '00000000-0000-4000-8000-' || n, 12, s, '', 'actor_' || (n % 40), 'queue_' || (n % 8), 'queue_' || (n % 8),
 'default', 'host/1', '1.' || (n % 5), CASE WHEN n % 2 = 0 THEN 'owner_' || (n % 100) END, 1, 0, t - 100, t - 50, t,
 CASE WHEN s <> 'succeeded' THEN t END, (n * 7907) % 9000, (n * 7919) % 60000,
 CASE WHEN s = 'dead' OR n % 33 = 0 THEN t END,
 CASE WHEN n % 33 = 0 THEN 'KeyError' ELSE '' END, '', CASE WHEN n % 33 = 0 THEN 'fp' || (n % 50) END, NULL, '', '', '',
 '[]', '{{"customer_id": ' || (n % {customers}) || ', "note": "a text as arguments have them"}}', ''
FROM (SELECT n, {base} - ({count} - n) * {step} / {count} AS t,
 CASE WHEN n % 50 = 0 THEN 'dead' WHEN n % 99 = 0 THEN 'cancelled' ELSE 'succeeded' END AS s FROM ({numbers}) AS a) AS b
"""
VALUE = """INSERT INTO {table} (name, value, job_id, finished_at)
SELECT 'customer_id', '' || (n % {customers}), '00000000-0000-4000-8000-' || n,
 {base} - ({count} - n) * {step} / {count} FROM ({numbers}) AS a"""
NUMBERS = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) SELECT n FROM c",
    "postgres": "SELECT n FROM generate_series(1::bigint, {count}) AS n",
}
QUERIES: dict[str, tuple[dict[str, str], int]] = {
    "all": ({}, LIST_MS),
    "one state": ({"state": "succeeded"}, LIST_MS),
    "rare state": ({"state": "cancelled"}, LIST_MS),
    "actor": ({"actor": "actor_7"}, LIST_MS),
    "actor and state": ({"actor": "actor_10", "state": "dead"}, LIST_MS),
    "queue and release": ({"queue": "queue_3", "release": "1.3"}, LIST_MS),
    "owner": ({"owner": "owner_42"}, LIST_MS),
    "owner and nothing": ({"owner": "owner_42", "queue": "queue_1"}, NOTHING_MS),
    "no such actor": ({"actor": "nobody"}, LIST_MS),
    "failures": ({"failures": "1"}, LIST_MS),
    "failures of an hour": ({"failures": "1", "since": datetime_of(BASE_MS - 3_600_000).isoformat()}, LIST_MS),
    "error": ({"error": "KeyError"}, LIST_MS),
    "error that is none": ({"error": "NoSuchError"}, NOTHING_MS),
    "fingerprint": ({"fingerprint": "fp33"}, LIST_MS),
    "long runs": ({"ran": "59000-"}, LIST_MS),
    "a week ago": ({"until": datetime_of(BASE_MS - 7 * 86_400_000).isoformat()}, LIST_MS),
    "argument": ({"argument": "customer_id=4242"}, ARGUMENT_MS),
    "argument and state": ({"argument": "customer_id=4200", "state": "dead"}, ARGUMENT_MS),
    "no such argument": ({"argument": "customer_id=x"}, ARGUMENT_MS),
}
# Lists with what waits; the first is also looked at in a browser.
WITH_WAITING = ("all", "one state", "argument")


def fill(database: str) -> None:
    count = ROWS[database]
    values = {"count": count, "base": BASE_MS, "step": STEP, "customers": CUSTOMERS}
    numbers = NUMBERS[database].format(**values)
    with connection.cursor() as cursor:
        for statement, model in ((JOB, JobRow), (VALUE, SearchValue)):
            cursor.execute(statement.format(table=model._meta.db_table, numbers=numbers, **values))
        if database == "postgres":
            cursor.execute("VACUUM ANALYZE")


def wait_in_broker(count: int) -> None:
    """Have so many jobs wait in one queue."""
    body = b'{"actor":"send_mail","sent_at":%d,"kwargs":{"customer_id":%d},"options":{"enqueued_at":%d}}'
    entries = (
        Entry(f"00000000-0000-4000-8001-{number:012x}", body % (BASE_MS, number % CUSTOMERS, BASE_MS), "")
        for number in range(count)
    )
    dramatiq.get_broker().families["default"].enqueue(entries, budget_s=600)


def took_ms(wanted: Filter, after: Cursor | None) -> tuple[float, Cursor | None]:
    started_s = time.perf_counter()
    page = search(wanted, after=after)
    return (time.perf_counter() - started_s) * 1000, page.after


def median_ms(look: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        look()
        times.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(times)


def page_of(client: Client) -> Callable[[], object]:
    """Return a function that makes the page as a server does: the client itself copies every template's context."""
    requests, address = RequestFactory(), reverse("switchyard-jobs")
    assert b"job/00000000-0000-4000-8001-" in client.get(address).content
    requests.cookies = client.cookies
    return lambda: client.handler.get_response(requests.get(address))


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_lists_of_millions_of_jobs_are_quick(
    database: str, facilities: Facilities, request: pytest.FixtureRequest
) -> None:
    fill(database)
    found: dict[str, tuple[float, float]] = {}
    for name, (query, most_ms) in QUERIES.items():
        wanted, after, times = Filter.from_query(query), None, []
        for _ in range(RUNS):
            ms, after = took_ms(wanted, after)
            times.append(ms)
        found[name] = (statistics.median(times), most_ms)
    wait_in_broker(WAITING)
    for name in WITH_WAITING:
        wanted, most_ms = Filter.from_query(QUERIES[name][0]), QUERIES[name][1]
        found[f"{name}, what waits too"] = median_ms(lambda wanted=wanted: find_jobs(wanted)), most_ms
    if database == "sqlite":  # the tables of users are there alone
        found["page"] = median_ms(page_of(request.getfixturevalue("admin_client"))), LIST_MS
    started_s = time.perf_counter()
    delete_oldest(before_ms=BASE_MS - STEP // 2)
    batch_ms = (time.perf_counter() - started_s) * 1000

    print(f"\n{database}, {ROWS[database]:,} rows, {WAITING:,} waiting for the pages")
    for name, (ms, _) in found.items():
        print(f"  {name:26} {ms:7.1f} ms")
    print(f"  200 oldest deleted in {batch_ms:.0f} ms")
    assert {name: ms for name, (ms, most_ms) in found.items() if ms > most_ms} == {}


def test_the_writers_time_of_a_processor_is_bounded(
    database: str, put: Put, writer: HistoryWriter, valkey: redis.Redis, find_by_customer: Any
) -> None:
    rows = 5_000
    for first in range(0, rows, 100):
        put(
            *(ended_job(n, actor="find_by_customer", args=[n], kwargs={"card": "4"}) for n in range(first, first + 100))
        )
    before = resource.getrusage(resource.RUSAGE_SELF)

    while valkey.xlen(Keys().queue("default").history):
        writer.step()

    after = resource.getrusage(resource.RUSAGE_SELF)
    used_ms = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1_000
    print(f"\n{database}: {used_ms / rows * 1_000:.0f} ms of a processor for 1,000 rows")
    assert JobRow.objects.count() == rows
    assert used_ms / rows < 2
