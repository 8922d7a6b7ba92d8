"""Messages that a child releases, and its drain, while the broker is away or a hook of the project is slow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.worker.work_queue import WorkQueue
from switchyard.workers.child import main
from switchyard.workers.child.main import drain, release_all, release_unstarted


class Consumer:
    """Consumer whose server is away for the first call."""

    def __init__(self) -> None:
        self.calls = 0
        self.released: list[str] = []

    def requeue_messages(self, messages: list[Any]) -> None:
        self.calls += 1
        if self.calls == 1:
            raise BrokerUnavailable("release", "timed out")
        self.released += [message.message_id for message in messages]


def item(token: str) -> Any:
    message = SimpleNamespace(message_id=token, queue_name="work", lease=SimpleNamespace(token=token), moved=False)
    return SimpleNamespace(priority=0, message=message)


@pytest.fixture
def worker() -> Any:
    """A worker whose threads are busy, with two prefetched messages."""
    queue = WorkQueue()
    for token in ("11", "9"):
        queue.put(item(token))
    return SimpleNamespace(work_queue=queue, consumers={"work": Consumer()}, workers=[])


def test_prefetched_messages_wait_on_where_the_broker_is_away_and_are_released_when_it_is_back(worker: Any) -> None:
    release_unstarted(worker)
    waiting = {each.message.message_id for each in worker.work_queue.waiting()}
    release_unstarted(worker)

    assert waiting == {"9", "11"}
    assert worker.consumers["work"].released == ["9", "11"]
    assert worker.work_queue.waiting() == []


def test_a_message_that_a_quiet_child_does_not_start_is_released_when_the_broker_is_back(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    worker.work_queue = WorkQueue()
    message = item("9").message

    release_all(worker, message)

    assert (worker.consumers["work"].released, message.moved) == (["9"], True)


def test_threads_start_nothing_more_before_the_hooks_of_a_shutdown_run(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    broker = SimpleNamespace(
        emit_before=lambda signal, worker: seen.append("hooks"),
        emit_after=lambda signal, worker: seen.append("end"),
        drain=lambda: seen.append("drain"),
    )
    worker.broker, worker.workers = broker, [SimpleNamespace(stop=lambda: seen.append("stop"), is_alive=bool)]
    flush = SimpleNamespace(barrier=SimpleNamespace(flush=lambda: None))
    monkeypatch.setattr(main, "facilities", lambda broker: flush)
    hygiene: Any = SimpleNamespace(slots=SimpleNamespace(running=[]), row=SimpleNamespace(retired=False))

    assert drain(worker, hygiene, 1.0) == 0

    assert seen == ["drain", "stop", "hooks", "end"]
