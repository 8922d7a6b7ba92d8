"""A call of an async actor outside of a worker is answered with what to write; in a worker it runs."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import dramatiq
import pytest
from dramatiq.actor import Actor
from dramatiq.brokers.stub import StubBroker
from dramatiq.threading import Interrupt, raise_thread_exception

from switchyard.middleware.async_actors import AsyncActors, EventLoop
from switchyard.middleware.errors import MissingWorker
from switchyard.workers.child.main import all_work
from tests.waiting import wait_for


@pytest.fixture
def broker() -> StubBroker:
    return StubBroker(middleware=[AsyncActors()])


@pytest.fixture
def worker(broker: StubBroker) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=10)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def _double(broker: StubBroker) -> Actor[[int], int]:
    @dramatiq.actor(broker=broker)
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    return double


def test_a_call_outside_of_a_worker_says_what_to_write(broker: StubBroker) -> None:
    double = _double(broker)

    words = (
        r"^actor double: it is async \(tests/unit/middleware/test_async_actors\.py:\d+\), and this process is not a "
        r".*; write double\.send\(\.\.\.\), or asyncio\.run\(double\.fn\.__wrapped__\(\.\.\.\)\) to run it here$"
    )
    with pytest.raises(MissingWorker, match=words):
        double(4)
    assert asyncio.run(cast(Any, double.fn).__wrapped__(4)) == 8
    assert inspect.signature(double.fn).parameters.keys() == {"value"}


def test_a_worker_runs_it(broker: StubBroker, worker: dramatiq.Worker) -> None:
    assert _double(broker)(4) == 8


# asyncio ends a loop by the first two: it would be gone for every other coroutine of the process.
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_whatever_a_coroutine_raises_is_its_own_failure(
    broker: StubBroker, worker: dramatiq.Worker, raised: type[BaseException]
) -> None:
    double = _double(broker)

    @dramatiq.actor(broker=broker)
    async def fails() -> None:
        raise raised("no such customer")

    with pytest.raises(raised, match="no such customer"):
        fails()
    assert double(4) == 8


def test_a_loop_that_a_coroutine_stops_is_noticed(broker: StubBroker, worker: dramatiq.Worker) -> None:
    @dramatiq.actor(broker=broker)
    async def stops() -> None:
        asyncio.get_running_loop().stop()

    assert all_work(worker)
    stops()
    wait_for(lambda: not all_work(worker))
    with pytest.raises(RuntimeError, match="the event loop of this worker has ended"):
        _double(broker)(4)


def test_an_interrupt_of_a_coroutine_that_has_not_begun_ends_its_call(
    broker: StubBroker, worker: dramatiq.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied, leave, interrupts, waiting = threading.Event(), threading.Event(), [], []

    @dramatiq.actor(broker=broker)
    async def occupies() -> None:
        occupied.set()
        leave.wait(30)

    def call() -> None:
        with pytest.raises(Interrupt) as interrupt:
            double(4)
        interrupts.append(interrupt)

    double = _double(broker)
    [loop] = [thread.loop for thread in threading.enumerate() if isinstance(thread, EventLoop)]
    put = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: waiting.append(put(*args)))
    occupying, calling = (threading.Thread(target=target, daemon=True) for target in (occupies, call))
    try:
        occupying.start()
        assert occupied.wait(30)
        calling.start()
        wait_for(lambda: len(waiting) == 2)
        raise_thread_exception(cast(int, calling.ident), Interrupt)
        wait_for(lambda: len(waiting) == 3)
    finally:
        leave.set()
    for thread in (occupying, calling):
        thread.join(30)

    assert interrupts


def test_what_a_coroutine_sets_on_the_loop_ends_with_it(broker: StubBroker, worker: dramatiq.Worker) -> None:
    seen = []

    @dramatiq.actor(broker=broker)
    async def sets() -> None:
        loop = asyncio.get_running_loop()
        seen.append((loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug()))
        seen.append(await asyncio.to_thread(lambda: threading.current_thread().name.startswith("asyncio")))
        loop.set_task_factory(lambda loop, coroutine: asyncio.Task(coroutine, loop=loop))
        loop.set_exception_handler(lambda loop, context: loop.stop())
        loop.set_debug(True)
        loop.set_default_executor(ThreadPoolExecutor(1))

    @dramatiq.actor(broker=broker)
    async def shuts_down() -> None:
        await asyncio.get_running_loop().shutdown_default_executor()

    [loop] = [thread for thread in threading.enumerate() if isinstance(thread, EventLoop)]
    sets()
    sets()
    assert seen == [(None, None, False), True] * 2
    assert not loop.executor.was_shut_down
    shuts_down()
    assert loop.executor.was_shut_down


def test_other_actors_keep_their_function(broker: StubBroker) -> None:
    def triple(value: int) -> int:
        return 3 * value

    assert dramatiq.actor(broker=broker)(triple).fn is triple
