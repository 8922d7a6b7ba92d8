"""Reads of the history, quick in a large one, its facts by the hour, and what leaves it, a bounded number at a time."""

import random
import resource
import statistics
import time
from collections.abc import Callable

import dramatiq
import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse

from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.yard_facts import (
    AGE_MS,
    DEPTH,
    HOUR_MS,
    LATER,
    MINUTE_MS,
    SENT,
    SUCCEEDED,
    FactStore,
    actor_subject,
)
from switchyard.history import fact_keeper, queries, writer
from switchyard.history.fact_keeper import YEAR_HOURS, FactKeeper, hours_of, store_hour
from switchyard.history.filters import TAG, Filter
from switchyard.history.models import AttemptRow, FactHour, JobRow, SearchValue
from switchyard.history.queries import Cursor, search
from switchyard.history.writer import Retention, delete_oldest, most_rows
from switchyard.jobs.listing.pages import find_jobs
from switchyard.long_running import FACT_KEEPER
from tests.integration.history.conftest import ended_job
from tests.integration.history.rows import BASE_MS, job_row

pytestmark = pytest.mark.usefixtures("database")
DAY_MS = 86_400_000


def iso(at: int) -> str:
    return datetime_of(BASE_MS + at).isoformat(timespec="milliseconds")


def ids(found: queries.HistoryPage) -> list[int]:
    return [row.pk for row in found.rows]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        *(({}, "late dead plain vip"), ({"state": "dead"}, "dead"), ({"state": "succeeded"}, "late plain vip")),
        *(({"state": "succeeded,dead"}, "late dead plain vip"), ({"state": "retrying"}, "again")),
        *(({"actor": "send_mail"}, "dead"), ({"queue": "slow"}, "vip"), ({"owner": "shop"}, "plain")),
        *(({"parent": "p-1"}, "late dead"), ({"parent": "p-1", "state": "dead"}, "dead")),
        *(({"release": "1.4"}, "vip"), ({"waited": "20-80"}, "plain"), ({"waited": "-20"}, "vip")),
        *(({"waited": "80-"}, "late"), ({"waited": "20-", "queue": "default"}, "late plain")),
        *(({"ran": "2000-"}, "plain"), ({"ran": "-1999"}, ""), ({"ran": "2000-", "waited": "-20"}, "")),
        *(({"tag": "gold"}, "vip"), ({"argument": "customer_id=42"}, "dead vip")),
        ({"argument": "customer_id=42", "tag": "gold"}, "vip"),
        ({"argument": "customer_id=42", "state": "dead"}, "dead"),
        *(({"argument": "customer_id=42", "failures": "1"}, "dead vip"), ({"error": "KeyError"}, "again dead")),
        *(({"error": "ORDER"}, "dead vip"), ({"fingerprint": "beef"}, "dead vip")),
        *(({"fingerprint": "beef", "queue": "default"}, "dead"), ({"failures": "1"}, "again dead vip")),
        *(({"failures": "1", "since": iso(30)}, "again dead"), ({"since": iso(20), "until": iso(40)}, "dead plain")),
        ({"actor": "send_mail", "queue": "slow"}, ""),
    ],
)
def test_each_condition_finds_its_jobs(query, expected):
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
def test_pages_hold_every_job_once(query, looked_through, monkeypatch):
    monkeypatch.setattr(queries, "LOOKED_THROUGH", looked_through)
    monkeypatch.setattr(queries, "CHUNK", 4)
    rng = random.Random(7)
    for _ in range(60):
        at, queue, state = rng.randrange(40), rng.choice(["slow", "default"]), rng.choice(["succeeded", "dead"])
        job_row(at, state=state, queue=queue, values={TAG: "gold"} if rng.random() < 0.5 else None)
    wanted = Filter.from_query(query)
    order = "failed_at" if wanted.failures else "finished_at"
    named = ({"queue": "slow"} if wanted.queue else {}) | (
        {"state": "dead"} if wanted.states or wanted.failures else {}
    )
    matching = JobRow.objects.filter(**named).order_by(f"-{order}", "-pk")
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
        if page.after is None:
            break
        after = Cursor.parse(str(page.after))

    assert seen == expected


def test_a_place_that_is_none_is_refused():
    with pytest.raises(ValueError, match="after: '5' is not a place in a list"):
        Cursor.parse("5")


class ShiftedStore(FactStore):
    """Facts whose clock for folding and storing is ahead."""

    ahead_ms = 0

    def server_ms(self) -> int:
        return super().server_ms() + self.ahead_ms


@pytest.fixture
def store(facilities: Facilities) -> ShiftedStore:
    return ShiftedStore(facilities.records.calls, facilities.records.keys)


@pytest.fixture
def keeper(store: ShiftedStore) -> FactKeeper:
    return FactKeeper(store)


def test_sends_and_depth_are_sampled_by_subject(facilities, keeper, store):
    @dramatiq.actor(actor_name="sampled", queue_name="default")
    def sampled() -> None:
        """Do nothing."""

    keeper.step()
    for _ in range(3):
        sampled.send()
    sampled.send_with_options(delay=20 * 60_000)
    keeper.step()
    keeper.step()

    found = store.recent(store.server_ms())
    mine = yard_facts.merged(of.get(actor_subject("sampled"), {}) for _, of in found)
    queue = yard_facts.merged(of.get("q:default", {}) for _, of in found)
    assert mine == {SENT: 3, LATER + 4: 1}, "16 minutes or more later"
    assert (queue[DEPTH], queue[AGE_MS] >= 0) == (3, True)


def test_an_hour_is_stored_once_and_old_ones_leave(keeper, store, valkey):
    now = store.server_ms()
    hour = now // HOUR_MS
    key = Keys().facts_bucket(yard_facts.bucket_of(now))
    valkey.hset(key, mapping={f"{SUCCEEDED} {each}": 5 for each in ("a:mail", "d:web", "d:web example.com")})
    store_hour(hour - 80, {"a:mail": {SUCCEEDED: 1}})
    store_hour(hour - YEAR_HOURS - 90, {"a:mail": {SUCCEEDED: 1}})
    store.ahead_ms = 5 * MINUTE_MS  # its minute is closed
    store.fold(store.server_ms())
    store.ahead_ms = HOUR_MS + 2 * MINUTE_MS

    for _ in range(22):
        keeper.step()
    FactKeeper(store).step()

    assert hours_of(["a:mail"], [hour])["a:mail"] == {hour: {SUCCEEDED: 5}}
    assert sorted(hours_of(None, [hour])) == ["a:mail", "d:web"], "no hosts, of which there may be many in a year"
    assert FactHour.objects.filter(hour__lt=hour - YEAR_HOURS).count() == 0
    store_hour(hour, {"a:mail": {SUCCEEDED: 6}})
    assert hours_of(None, [hour])["a:mail"] == {hour: {SUCCEEDED: 6}}, "written again, not twice"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_ahead_costs_no_minute(store, valkey, restarted):
    now, keeper = store.server_ms(), FactKeeper(store)
    hour, ahead_ms = now // HOUR_MS, 3 * HOUR_MS
    store_hour(hour - 1, {"a:mail": {SUCCEEDED: 1}})
    for at in range(now, now + 4 * HOUR_MS, 5 * MINUTE_MS):  # three hours ahead for an hour
        store.ahead_ms = at - now + ahead_ms
        keeper.step()
    if restarted:
        valkey.delete(Keys().lock(FACT_KEEPER))
        keeper = FactKeeper(store)
    store.ahead_ms = 0
    valkey.hset(Keys().facts_bucket(yard_facts.bucket_of(now)), mapping={f"{SUCCEEDED} a:mail": 5})

    for minute in range(5, 70, 5):
        store.ahead_ms = minute * MINUTE_MS
        store.fold(store.server_ms())
        keeper.step()

    assert hours_of(["a:mail"], [hour])["a:mail"] == {hour: {SUCCEEDED: 5}}


def test_one_of_several_keepers_samples(facilities, keeper, monkeypatch):
    keeper.step()
    seen: list[object] = []
    monkeypatch.setattr(fact_keeper, "readings", lambda stats: seen.append(stats) or ({}, {}))

    FactKeeper().step()
    assert not seen
    keeper.step()
    assert len(seen) == 1


def with_attempt(at: int) -> JobRow:
    row = job_row(at, values={"customer_id": "42"})
    values = {"generation": 0, "attempt": 1, "state": "retrying", "lane": "default", "finished_at": row.finished_at}
    AttemptRow.objects.create(job_id=row.job_id, **values)
    return row


def left() -> list[int]:
    """Return when the jobs that are left ended, and check that nothing else of the others is."""
    ids = set(JobRow.objects.values_list("job_id", flat=True))
    assert set(AttemptRow.objects.values_list("job_id", flat=True)) == ids
    assert set(SearchValue.objects.values_list("job_id", flat=True)) == ids
    return sorted(at - BASE_MS for at in JobRow.objects.values_list("finished_at", flat=True))


def test_jobs_leave_by_age_with_their_attempts_and_values(configure):
    configure(history_days=7)
    for at in (-8 * DAY_MS, -7 * DAY_MS, -5 * DAY_MS, 0):
        with_attempt(at)

    assert Retention().work(while_true=lambda: True) == 2
    assert left() == [-5 * DAY_MS, 0]


def test_jobs_leave_by_number_oldest_first(configure, monkeypatch):
    monkeypatch.setattr(writer, "BATCH", 4)
    configure(history_rows=5)
    for at in range(16):
        with_attempt(at)

    assert Retention().work(while_true=lambda: True) == 11
    assert left() == [11, 12, 13, 14, 15]


def test_a_round_is_bounded_and_ends_with_its_leadership(configure, monkeypatch):
    monkeypatch.setattr(writer, "BATCH", 2)
    monkeypatch.setattr(writer, "ROUND_BATCHES", 3)
    configure(history_days=1)
    for at in range(10):
        with_attempt(at - 2 * DAY_MS)
    clock = [0.0]
    rounds = Retention(lambda: clock[0])

    assert rounds.work(while_true=lambda: False) == 0
    assert [rounds.work(while_true=lambda: True) for _ in range(3)] == [6, 4, 0]
    with_attempt(-2 * DAY_MS)
    assert rounds.work(while_true=lambda: True) == 0, "not before a minute has passed"
    clock[0] = 61.0
    assert rounds.work(while_true=lambda: True) == 1


def test_the_number_depends_on_the_database_unless_it_is_set(database, configure):
    assert most_rows() == (2_000_000 if connection.vendor == "sqlite" else 20_000_000)
    configure(history_rows=7)
    assert most_rows() == 7


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
    "all": ({}, LIST_MS), "one state": ({"state": "succeeded"}, LIST_MS),
    "rare state": ({"state": "cancelled"}, LIST_MS), "actor": ({"actor": "actor_7"}, LIST_MS),
    "actor and state": ({"actor": "actor_10", "state": "dead"}, LIST_MS),
    "queue and release": ({"queue": "queue_3", "release": "1.3"}, LIST_MS),
    "owner": ({"owner": "owner_42"}, LIST_MS),
    "owner and nothing": ({"owner": "owner_42", "queue": "queue_1"}, NOTHING_MS),
    "no such actor": ({"actor": "nobody"}, LIST_MS), "failures": ({"failures": "1"}, LIST_MS),
    "failures of an hour": ({"failures": "1", "since": datetime_of(BASE_MS - 3_600_000).isoformat()}, LIST_MS),
    "error": ({"error": "KeyError"}, LIST_MS), "error that is none": ({"error": "NoSuchError"}, NOTHING_MS),
    "fingerprint": ({"fingerprint": "fp33"}, LIST_MS), "long runs": ({"ran": "59000-"}, LIST_MS),
    "a week ago": ({"until": datetime_of(BASE_MS - 7 * 86_400_000).isoformat()}, LIST_MS),
    "argument": ({"argument": "customer_id=4242"}, ARGUMENT_MS),
    "argument and state": ({"argument": "customer_id=4200", "state": "dead"}, ARGUMENT_MS),
    "no such argument": ({"argument": "customer_id=x"}, ARGUMENT_MS),
}  # fmt: skip
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
def test_lists_of_millions_are_quick(database, facilities, request):
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


def test_the_writers_time_of_a_processor_is_bounded(database, put, writer, valkey, find_by_customer):
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
