"""Ended attempts become rows: one a job, whatever is read twice, late or unreadable."""

import json
from types import SimpleNamespace
from typing import Any

import dramatiq
import msgspec
import pytest
import structlog
from prometheus_client import generate_latest

from switchyard.broker.keys import Keys
from switchyard.broker.stores.history_streams import Failure, encode
from switchyard.history import queries
from switchyard.history import writer as history_writer
from switchyard.history.filters import TAG, Filter
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.history.writer import HistoryWriter
from switchyard.operations.findings import records
from switchyard.operations.metrics import history_metrics
from tests.integration.history.conftest import ended_job, put_into
from tests.integration.history.rows import BASE_MS, job_row
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("database")
STREAM = Keys().queue("default").history


def test_a_job_that_ended_is_written_with_what_its_message_says_and_found_by_named_arguments_but_not_hidden_ones(
    put, writer, valkey, find_by_customer
):
    origin = {"request": "r-1", "user": "ada", "schedule": "nightly"}
    options = {"owner": "shop", "tags": ["gold"], "parent": "p-1", "origin": origin}
    put(ended_job(actor="find_by_customer", args=[42], kwargs={"card": "4111"}, options=options, result='{"a": 1}'))

    writer.step()

    assert len(queries.search(Filter(argument=("customer_id", "42"))).rows) == 1
    assert queries.search(Filter(argument=("card", "4111"))).rows == []
    values = SearchValue.objects.exclude(name=TAG).values_list("name", "value")
    assert set(values) == {("customer_id", "42")}

    row = JobRow.objects.get()
    found = {name: getattr(row, name) for name in ("state", "actor", "queue", "pool", "worker", "release", "owner")}
    assert found == {
        "state": "succeeded", "actor": "find_by_customer", "queue": "default", "pool": "default",
        "worker": "host/12", "release": "1.4", "owner": "shop",
    }  # fmt: skip
    assert (row.enqueued_at, row.started_at, row.finished_at) == (BASE_MS - 500, BASE_MS - 100, BASE_MS)
    assert (row.wait_ms, row.run_ms, row.attempts) == (400, 100, 1)
    assert (row.parent, row.request_id, row.user, row.schedule, row.tags) == ("p-1", "r-1", "ada", "nightly", ["gold"])
    assert json.loads(row.arguments) == {"customer_id": 42, "card": "[redacted]"}
    assert (row.result, row.failed_at, row.not_succeeded_at, row.fingerprint) == ('{"a": 1}', None, None, None)
    assert valkey.xlen(STREAM) == 0
    assert writer.streams.counts() == {"written": 1, "skipped": 0}


def test_a_job_that_a_worker_ran_is_in_the_history_with_its_failure(facilities, run_worker, writer):
    broker, tried = dramatiq.get_broker(), []

    def fail_first(customer_id: int) -> None:
        tried.append(customer_id)
        if len(tried) == 1:
            raise KeyError("order")

    actor = dramatiq.actor(fail_first, broker=broker, search=("customer_id",), tags=("gold",), backoff=lambda retry: 1)
    message = actor.send(42)
    with run_worker("default", "default-retry"):
        wait_for(lambda: writer.step() is not None and JobRow.objects.filter(state="succeeded").exists())

    [row] = queries.search(Filter(argument=("customer_id", "42"), tag="gold", failures=True)).rows
    assert (row.job_id, row.attempts, row.queue, row.error_type) == (message.message_id, 2, "default", "KeyError")
    assert row.wait_ms is not None and row.run_ms is not None and json.loads(row.arguments) == {"customer_id": 42}
    [attempt] = queries.attempts(row.job_id)
    assert (attempt.attempts, attempt.state, attempt.fingerprint) == (1, "retrying", row.fingerprint)
    assert writer.streams.counts()["skipped"] == 0


def test_long_arguments_are_cut_to_a_kibibyte_and_those_of_an_unknown_actor_are_hidden(put, writer, find_by_customer):
    put(ended_job(1, actor="find_by_customer", args=["ä" * 2_000]))
    put(ended_job(2, actor="nobody_knows", args=["secret"], kwargs={"name": "secret"}))

    writer.step()

    assert "secret" not in JobRow.objects.get(actor="nobody_knows").arguments
    arguments = JobRow.objects.get(actor="find_by_customer").arguments
    assert arguments.endswith("…") and 1_000 < len(arguments.encode()) <= 1_024
    value = SearchValue.objects.get().value
    assert value.startswith("sha256:")
    assert len(queries.search(Filter(argument=("customer_id", "ä" * 2_000))).rows) == 1


def test_a_retried_attempt_keeps_its_row_and_the_job_its_last_failure(put, writer):
    put(ended_job(state="retrying", error="KeyError", at=0, logs="a line"))
    writer.step()
    assert [row.state for row in queries.search(Filter(failures=True)).rows] == ["retrying"]
    assert queries.search(Filter()).rows == [], "it has not ended"

    put(ended_job(attempt=2, at=900))
    writer.step()

    row = JobRow.objects.get()
    assert (row.state, row.attempts, row.error_type, row.failed_at) == ("succeeded", 2, "KeyError", BASE_MS)
    assert row.finished_at == BASE_MS + 900
    attempt = AttemptRow.objects.get()
    assert (attempt.attempt, attempt.state, attempt.logs) == (1, "retrying", "a line")
    assert queries.search(Filter(failures=True)).rows == queries.search(Filter()).rows == [row]


def test_an_older_step_never_replaces_a_later_one(put, writer):
    put(ended_job(attempt=2, at=900))
    put(ended_job(state="retrying", error="KeyError"))
    put(ended_job(generation=1, at=2_000, state="cancelled"), ended_job(attempt=3, at=1_500, state="dead", error="E"))

    writer.step()

    row = JobRow.objects.get()
    assert (row.state, row.generation, row.finished_at) == ("cancelled", 1, BASE_MS + 2_000)
    assert [(each.generation, each.attempts) for each in queries.attempts(row.job_id)] == [(0, 1), (0, 3)]


def test_old_rows_leave_also_while_new_ones_come_without_a_pause(put):
    old = job_row(-1_000 * 86_400_000)
    put(ended_job(1))

    assert HistoryWriter(burst_s=0.0).step() == 0.0, "the next step follows at once"

    assert not JobRow.objects.filter(pk=old.pk).exists()
    assert JobRow.objects.count() == 1


def test_the_writer_rests_in_a_burst_and_no_more_once_it_lasts(put):
    writer = HistoryWriter(poll_s=7.0, burst_s=0.2)
    put(ended_job(1))
    assert 0 < writer.step() < 7.0, "a rest in proportion to the round"

    def rests_after_a_row() -> bool:
        put(ended_job(2))
        return writer.step() > 0

    wait_for(lambda: not rests_after_a_row())

    assert writer.step() == 7.0, "nothing was left to move"


def test_the_writer_rests_no_longer_than_the_burst_and_its_lease_after_a_round_that_took_long(put, monkeypatch):
    now_s = 100.0

    def write_slowly(rows: Any) -> None:  # as on a machine that leaves it no processor
        nonlocal now_s
        now_s += 3.0

    monkeypatch.setattr(history_writer, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(history_writer, "write", write_slowly)
    put(ended_job(1))
    assert HistoryWriter(burst_s=5.0).step() == 2.0, "then the burst is over"

    put(ended_job(2))
    assert HistoryWriter(burst_s=60.0, renew_s=5.0).step() == 5.0, "then its lease is to be renewed"


def test_rows_that_are_read_twice_are_written_once(put, writer, valkey):
    rows = [ended_job(n, state="dead", error="E", options={"tags": ["gold"]}) for n in range(5)]

    for _ in range(3):
        put(*rows)
        writer.step()

    assert (JobRow.objects.count(), AttemptRow.objects.count(), SearchValue.objects.count()) == (5, 5, 5)


def test_rubbish_is_skipped_counted_and_logged(writer, valkey):
    good = encode(ended_job(1))
    valkey.xadd(STREAM, {"n": 3, "rows": b"\x93" + good + b"\xc0" + b"\x92\xa1\xff\xa1b"})
    valkey.xadd(STREAM, {"n": 4, "rows": b"\xc1"})
    valkey.xadd(STREAM, {"colour": "red"})
    valkey.xadd(STREAM, {"n": "many", "rows": ""})
    put_into(valkey, ended_job(2, state="dying"), ended_job(3, body=b"\x80"), ended_job(4, id=""))
    odd = {"args": "no list", "kwargs": [1], "options": {"tags": {"a": 1}, "origin": "x", "parent": 5, "due_at": "y"}}
    put_into(valkey, ended_job(5, body=json.dumps({"actor": ["x"], **odd}).encode()), ended_job(6, attempt=-(2**60)))
    valkey.xadd(Keys().queue("slow").history, {"n": 1, "rows": b""})

    with structlog.testing.capture_logs() as lines:
        writer.step()

    assert sorted(int(id_[-2:], 16) for id_ in JobRow.objects.values_list("job_id", flat=True)) == [1, 3, 5, 6]
    assert writer.streams.counts() == {"written": 4, "skipped": 2 + 4 + 1 + 1 + 2 + 1}
    assert valkey.xlen(STREAM) == 0
    assert any("left out" in line["event"] for line in lines)


def test_texts_that_no_database_stores_are_escaped(put, writer, find_by_customer):
    body = {"actor": "find_by_customer", "sent_at": 1, "args": ["\x00", "\ud800"], "options": {"owner": "o" * 300}}
    put(ended_job(1, state="dead", body=json.dumps(body).encode(), logs="\x00"))
    put(ended_job(2, state="dead", reason="r" * 99, worker="w" * 999, release="\x00"))
    put(msgspec.structs.replace(ended_job(3, state="dead"), error=Failure("E" * 300, "\x00\ufffd" * 500, "f" * 99)))

    writer.step()

    assert JobRow.objects.count() == 3
    assert writer.streams.counts()["skipped"] == 0


def test_a_key_of_a_wrong_type_does_not_stop_the_others(put, writer, valkey):
    valkey.set(Keys().queue("webhook").history, "text")
    put(ended_job())

    writer.step()

    assert JobRow.objects.count() == 1
    assert sum(each.entries for each in writer.streams.backlog()) == 0


def test_doctor_and_metrics_show_backlog_and_skipped_rows(put, writer, valkey):
    put(ended_job(1))
    valkey.hset(Keys().queue("default").ended, "dropped", 7)
    valkey.hset(Keys().history_counts(), "skipped", 3)
    wait_for(lambda: any((each.oldest_age_ms or 0) > 5 for each in writer.streams.backlog()))

    found = {each.code: each for each in records.look_at_history()}
    lines = generate_latest(SimpleNamespace(collect=history_metrics)).decode().splitlines()  # type: ignore[arg-type]

    assert {code for code, each in found.items() if each.severity == "warning"} == {"down", "dropped", "skipped"}
    assert found["down"].next == "manage.py switchyard runhistory" and "to be written" in found["down"].seen
    assert found["dropped"].subject == "default" and "7 rows" in found["dropped"].seen
    assert "switchyard_history_writer_up 0.0" in lines and "switchyard_history_skipped_total 3.0" in lines
    assert 'switchyard_history_dropped_total{queue="default"} 7.0' in lines
    assert any(line.startswith('switchyard_history_lag_seconds{queue="default"} 0.0') for line in lines)

    writer.step()

    found = {each.code: each for each in records.look_at_history()}
    assert "1 row written, nothing waits" in found["ok"].seen
    writer.leadership.release()


def test_one_of_two_writers_writes(put, writer):
    other = HistoryWriter(poll_s=0.01)
    writer.step()
    put(ended_job())

    assert other.step() > 1, "it looks again when the lease may be free"
    assert JobRow.objects.count() == 0

    writer.leadership.release()
    other.step()
    assert JobRow.objects.count() == 1
    other.leadership.release()
