"""Reads of the history, its facts by the hour, and what leaves it, a bounded number at a time."""

from __future__ import annotations

import random
from typing import Any

import dramatiq
import pytest
import redis
from django.db import connection

from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
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
from switchyard.history.writer import Retention, most_rows
from switchyard.long_running import FACT_KEEPER
from tests.conftest import Configure
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


def test_a_place_that_is_none_is_refused() -> None:
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


def test_sends_and_depth_are_sampled_by_actor_and_queue(
    facilities: Facilities, keeper: FactKeeper, store: FactStore
) -> None:
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


def test_an_ended_hour_is_stored_once_and_old_ones_leave(
    keeper: FactKeeper, store: ShiftedStore, valkey: redis.Redis
) -> None:
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
def test_a_clock_that_was_ahead_costs_no_hour_and_no_minute(
    store: ShiftedStore, valkey: redis.Redis, restarted: bool
) -> None:
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


def test_one_of_several_keepers_samples(facilities: Facilities, keeper: FactKeeper, monkeypatch: Any) -> None:
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


def test_jobs_leave_by_age_with_their_attempts_and_values(configure: Configure) -> None:
    configure(history_days=7)
    for at in (-8 * DAY_MS, -7 * DAY_MS, -5 * DAY_MS, 0):
        with_attempt(at)

    assert Retention().work(while_true=lambda: True) == 2
    assert left() == [-5 * DAY_MS, 0]


def test_jobs_leave_by_number_oldest_first(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BATCH", 4)
    configure(history_rows=5)
    for at in range(16):
        with_attempt(at)

    assert Retention().work(while_true=lambda: True) == 11
    assert left() == [11, 12, 13, 14, 15]


def test_a_round_is_bounded_and_ends_when_its_process_leads_no_more(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_the_number_depends_on_the_database_unless_it_is_set(database: str, configure: Configure) -> None:
    assert most_rows() == (2_000_000 if connection.vendor == "sqlite" else 20_000_000)
    configure(history_rows=7)
    assert most_rows() == 7
