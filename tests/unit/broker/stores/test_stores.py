"""Ended attempts of jobs as bytes; the result store that is chosen: the first that answers in time, else the record."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from switchyard.broker.errors import ResultStoreUnavailable
from switchyard.broker.stores import history_streams, result_stores
from switchyard.broker.stores.history_streams import ENDED_JOB, EndedJob, encode
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES, THREADS, ResultStores
from tests.waiting import wait_for

JOB = EndedJob(
    id="7d5f1c1e-0a4b-4c58-9d3e-1f0d3a8f2b11", state="dead", reason="exhausted", attempt=6, generation=1,
    started_at=1_700_000_000_000, finished_at=1_700_000_000_120, logs="line\n", lane="webhook-retry", pool="hooks",
    error=history_streams.Failure("KeyError", "'customer'", "0123456789abcdef"), worker="host/12", release="1.4",
    body=b'{"actor":"deliver","sent_at":1700000000000,"args":[1],"options":{"owner":"token:7"}}',
)  # fmt: skip


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


LARGE = "x" * (result_stores.LARGE_BYTES + 1)


class Store:
    """A store in memory that may fail, or be late until it is released."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.asked = 0
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        self._answer()
        self.kept[job_id] = text
        return f"row-{job_id}"

    def get(self, job_id: str, place: str) -> str | None:
        self._answer()
        assert place == f"row-{job_id}"
        return self.kept.get(job_id)

    def _answer(self) -> None:
        self.asked += 1
        assert self.answers.wait(20)
        if self.error is not None:
            raise self.error


def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.answers.set()


one, two = (pytest.fixture(store, name=name) for name in ("one", "two"))


def test_without_stores_the_record_holds_every_result_up_to_its_limit():
    stores = ResultStores()

    assert (stores.limit_bytes, stores.keep("j", "1")) == (RECORD_LIMIT_BYTES, "")
    assert stores.keep("j", "x" * (RECORD_LIMIT_BYTES + 1)) is None


def test_the_chosen_store_keeps_every_result_and_one_for_large_ones_leaves_small_ones_in_the_record(one):
    stores = ResultStores({"one": lambda: one}, first="one")

    assert (stores.limit_bytes, stores.keep("j", "1")) == (result_stores.STORE_LIMIT_BYTES, "one:row-j")
    assert stores.load("j", "one:row-j") == "1"
    assert stores.load("k", "one:row-k") is None

    stores = ResultStores({"one": lambda: one}, large=("one",))

    assert (stores.keep("small", "1"), stores.keep("large", LARGE)) == ("", "one:row-large")


def test_the_next_store_takes_over_and_the_failed_one_is_left_out_for_a_while(one, two):
    stores = ResultStores({"one": lambda: one, "two": lambda: two}, first="one", large=("two",), left_out_s=2.0)
    one.error = OSError("secret://address")

    first, second = stores.keep("a", LARGE), stores.keep("b", "small")
    asked = one.asked
    one.error = None
    wait_for(lambda: stores.keep("c", "small") == "one:row-c")

    assert (first, second, asked) == ("two:row-a", "", 1)


def test_a_store_that_hangs_costs_no_job_more_than_its_share(one, two):
    stores = ResultStores(
        {"one": lambda: one, "two": lambda: two}, first="one", large=("two",), store_s=0.2, whole_s=0.3
    )
    one.answers.clear()
    two.answers.clear()

    assert [stores.keep(str(number), LARGE) for number in range(5)] == [""] * 5
    assert (one.asked, two.asked) == (1, 1)


def test_a_store_that_hangs_leaves_the_threads_of_the_next_one_alone(one, two):
    stores = ResultStores({"one": lambda: one, "two": lambda: two}, large=("one", "two"), store_s=0.05, whole_s=10)
    one.answers.clear()
    too_large = "x" * (RECORD_LIMIT_BYTES + 1)

    with ThreadPoolExecutor(THREADS) as jobs:
        kept = list(jobs.map(lambda number: stores.keep(str(number), too_large), range(THREADS)))

    assert kept == [f"two:row-{number}" for number in range(THREADS)]


def test_a_result_that_no_thread_was_free_for_is_not_written_later(one):
    stores = ResultStores({"one": lambda: one}, first="one", store_s=0.05, left_out_s=0.0)
    one.answers.clear()

    kept = [stores.keep(str(number), "1") for number in range(THREADS + 1)]
    one.answers.set()

    assert kept == [""] * (THREADS + 1)
    wait_for(lambda: len(one.kept) == THREADS)
    assert stores.keep("last", "1") == "one:row-last"
    assert str(THREADS) not in one.kept


def test_a_result_too_large_for_the_record_is_refused_while_no_store_answers(one):
    stores = ResultStores({"one": lambda: one}, large=("one",))
    one.error = OSError("down")

    assert stores.keep("j", "x" * (RECORD_LIMIT_BYTES + 1)) is None


def test_a_store_that_fails_to_read_is_named_without_its_error_and_one_that_is_not_configured_is_told(one):
    stores = ResultStores({"one": lambda: one}, first="one")
    one.error = OSError("secret://address")

    with pytest.raises(ResultStoreUnavailable, match="result store one failed to get: OSError") as failed:
        stores.load("j", "one:row-j")
    assert "secret" not in str(failed.value)
    with pytest.raises(ResultStoreUnavailable, match="result store other is not configured in this process"):
        ResultStores({"one": lambda: one}).load("j", "other:")
