"""What nobody can run ends where an operator sees it, and what was given up can come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from broker.errors import NoSuchLetter
from broker.interface import DeadLetter, facilities
from broker.redis_broker import RedisBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

BuildBroker = Callable[..., RedisBroker]


def test_a_message_for_an_unknown_actor_is_a_dead_letter_and_blocks_nothing(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(small_yard())
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def known() -> None:
        done.append(1)

    orphan = broker.enqueue(Message(queue_name="work", actor_name="gone", args=(1,), kwargs={}, options={}))
    with run_worker(broker=broker):
        known.send()
        wait_for(lambda: done)
        letter = wait_for(lambda: facilities(broker).transport.letter("work", orphan.message_id))
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    stats = facilities(broker).transport.stats("work")
    assert (letter.actor, letter.reason, letter.attempts) == ("gone", "permanent", 0)
    assert stats.quarantined == 0
    assert facilities(broker).records.read(orphan.message_id).state == "dead"
    assert len(facilities(broker).alerts.claim_due()) == 1


def test_arguments_that_do_not_fit_never_enter_the_actor(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard())
    entered: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def strict(customer_id: int) -> None:
        entered.append(customer_id)

    stamped = {"enqueued_at": 1}  # as from a release whose signature was another
    sent = broker.enqueue(
        Message(queue_name="work", actor_name="strict", args=(), kwargs={"client": 3}, options=stamped)
    )
    with run_worker(broker=broker):
        letter = wait_for(lambda: facilities(broker).transport.letter("work", sent.message_id))

    assert (letter.reason, letter.exception) == ("permanent", "ArgumentMismatch")
    assert entered == []


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe not json", b"[]", b"null", b'{"queue_name": "work"}', b"{" * 5000, b'"text"'],
    ids=["bytes", "list", "null", "half", "deep", "string"],
)
def test_bytes_that_are_no_message_are_set_aside_and_block_nothing(
    yard_broker: BuildBroker, run_worker: Any, body: bytes
) -> None:
    broker = yard_broker(small_yard())
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def known() -> None:
        done.append(1)

    broker.do_enqueue("work", "rubbish", body)
    with run_worker(broker=broker):
        known.send()
        wait_for(lambda: done, timeout_s=2)
        wait_for(lambda: facilities(broker).transport.stats("work").quarantined == 1)

    entry = facilities(broker).transport.unreadable("work").items[0]
    assert entry.raw == body[:4096]
    assert entry.size_bytes == len(body)
    assert broker.do_qsize("work") == 0


def test_a_message_in_the_wrong_queue_or_without_its_id_is_set_aside(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard())
    good = Message(queue_name="work", actor_name="known", args=(), kwargs={}, options={"redis_message_id": "a"})
    stray, nameless = good.asdict() | {"queue_name": "elsewhere"}, good.asdict() | {"options": {}}
    broker.do_enqueue("work", "a", json.dumps(stray).encode())
    broker.do_enqueue("work", "b", json.dumps(nameless).encode())

    with run_worker(broker=broker):
        wait_for(lambda: facilities(broker).transport.stats("work").quarantined == 2)

    errors = [entry.error for entry in facilities(broker).transport.unreadable("work").items]
    assert any("'elsewhere'" in error for error in errors)
    assert any("redis_message_id" in error for error in errors)


def test_a_requeued_letter_runs_again_with_fresh_attempts(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard(max_retries=1))
    mended: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def fixable() -> None:
        if not mended:
            raise RuntimeError("broken")

    with run_worker(broker=broker):
        job_id = fixable.send().message_id
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)
        wait_for(lambda: facilities(broker).records.read(job_id).state == "dead")
        mended.append(1)
        assert facilities(broker).transport.requeue("work", job_id) == job_id
        record = wait_for(lambda: _succeeded(broker, job_id))

    assert record.attempts == 1
    assert record.error is None
    assert facilities(broker).transport.stats("work").dead == 0
    with pytest.raises(NoSuchLetter, match="not in work-dead"):
        facilities(broker).transport.requeue("work", job_id)


def test_a_letter_that_died_again_while_it_was_requeued_is_not_removed(yard_broker: BuildBroker) -> None:
    broker = yard_broker(small_yard())
    transport = facilities(broker).transport
    first, second = _letter(died_at=1), _letter(died_at=2)
    transport.dead_letter(first)

    class DiesAtOnce:
        """The requeued message runs and dies before the requeue removes the letter it came from."""

        def __call__(self, *args: Any) -> None:
            transport.dead_letter(second)

    broker.do_enqueue = DiesAtOnce()
    transport.requeue("work", "job")

    assert transport.letter("work", "job") == second
    assert transport.stats("work").dead == 1


def test_burying_twice_keeps_one_letter(yard_broker: BuildBroker) -> None:
    transport = facilities(yard_broker(small_yard())).transport

    transport.dead_letter(_letter(died_at=1))
    transport.dead_letter(_letter(died_at=1))

    assert transport.stats("work").dead == 1
    assert len(transport.letters("work").items) == 1


def test_letters_are_listed_newest_first_page_by_page(yard_broker: BuildBroker) -> None:
    transport = facilities(yard_broker(small_yard())).transport
    for number in range(5):
        transport.dead_letter(_letter(died_at=number, id=f"job-{number}"))

    first = transport.letters("work", limit=2)
    second = transport.letters("work", cursor=first.cursor or 0, limit=2)
    third = transport.letters("work", cursor=second.cursor or 0, limit=2)

    pages = [[letter.id for letter in page.items] for page in (first, second, third)]
    assert pages == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"]]
    assert third.cursor is None


def test_discarding_is_final_and_said_when_there_is_nothing(yard_broker: BuildBroker) -> None:
    transport = facilities(yard_broker(small_yard())).transport
    transport.dead_letter(_letter(died_at=1))

    transport.discard("work", "job")

    assert transport.stats("work").dead == 0
    with pytest.raises(NoSuchLetter, match="deadletters list"):
        transport.discard("work", "job")


def _letter(*, died_at: int, id: str = "job") -> DeadLetter:
    message = Message(queue_name="work", actor_name="a", args=(), kwargs={}, options={}, message_id=id).asdict()
    return DeadLetter(
        id=id, queue="work", actor="a", message={**message, "args": []}, reason="exhausted", exception="E", error="e",
        traceback="t", attempts=6, enqueued_at=0, died_at=died_at, duration_ms=1, fingerprint="f",
    )  # fmt: skip


def _succeeded(broker: RedisBroker, job_id: str) -> Any:
    record = facilities(broker).records.read(job_id)
    return record if record and record.state == "succeeded" else None
