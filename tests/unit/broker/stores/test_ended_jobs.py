"""Steps and ended attempts of jobs as bytes."""

import logging
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from switchyard.broker.stores import history_streams
from switchyard.broker.stores.history_streams import ENDED_JOB, EndedJob, encode

JOB = EndedJob(
    id="7d5f1c1e-0a4b-4c58-9d3e-1f0d3a8f2b11",
    state="dead",
    reason="exhausted",
    attempt=6,
    generation=1,
    started_at=1_700_000_000_000,
    finished_at=1_700_000_000_120,
    error=history_streams.Failure("KeyError", "'customer'", "0123456789abcdef"),
    logs="line\n",
    lane="webhook-retry",
    pool="hooks",
    worker="host/12",
    release="1.4",
    body=b'{"actor":"deliver","sent_at":1700000000000,"args":[1],"options":{"owner":"token:7"}}',
)


def test_an_ended_job_is_read_as_it_was_written():
    assert ENDED_JOB.decode(encode(JOB)) == JOB


def test_what_the_message_says_is_read_from_its_body():
    message = history_streams.fields_of(JOB.body)

    assert (message["actor"], message["args"], message["options"]) == ("deliver", [1], {"owner": "token:7"})


@pytest.mark.parametrize("body", [b"", b"\x80", b"[]", b'{"actor":'])
def test_a_body_that_is_no_message_says_nothing(body):
    assert history_streams.fields_of(body) == {}


@pytest.mark.parametrize("count", [0, 1, 15, 16, 200])
def test_rows_are_read_as_they_were_written(count):
    jobs = [msgspec.structs.replace(JOB, attempt=n) for n in range(count)]

    assert list(history_streams.decode_rows(history_streams.encode_rows(map(encode, jobs)))) == jobs


def test_a_job_of_an_older_release_lacks_the_fields_that_came_later():
    assert ENDED_JOB.decode(msgspec.msgpack.encode([JOB.id, "succeeded"])) == EndedJob(JOB.id, "succeeded")


def test_a_job_of_a_newer_release_is_read_without_its_new_fields():
    assert ENDED_JOB.decode(msgspec.msgpack.encode([*msgspec.structs.astuple(JOB), "later"])) == JOB


@pytest.mark.parametrize("row", [msgspec.msgpack.encode({"not": "a row"}), b"\x92\xa1\xff\xa1b"])
def test_a_row_that_cannot_be_read_costs_no_other_row(row, caplog):
    rows = history_streams.encode_rows([encode(JOB), row, encode(JOB)])

    with caplog.at_level(logging.ERROR):
        assert list(history_streams.decode_rows(rows)) == [JOB, JOB]

    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("options", [{}, {"attempts": 3, "generation": 2}, {"attempts": 10**9}])
def test_a_plain_success_is_recorded_as_any_other_end(monkeypatch, options):
    monkeypatch.setattr(history_streams, "now_ms", lambda: 1_700_000_000_123)
    message = SimpleNamespace(message_id="a", queue_name="mail-retry", started_ms=1_700_000_000_000, options=options)

    step = history_streams.success_step("mail", message, history_streams.WorkerPlace("pool", "host:1", "r9"), b"{}")

    ended = EndedJob(
        "a", "succeeded", attempt=options.get("attempts", 0) + 1, generation=options.get("generation", 0),
        started_at=1_700_000_000_000, finished_at=1_700_000_000_123, lane="mail-retry", pool="pool", worker="host:1",
        release="r9", body=b"{}",
    )  # fmt: skip
    other = history_streams.ended_step("mail", ended)
    assert ENDED_JOB.decode(step.record) == ENDED_JOB.decode(other.record) == ended
    assert replace(step, record=b"", rows=()) == replace(other, record=b"", rows=())
    assert step.rows[0] is step.record  # sent once
