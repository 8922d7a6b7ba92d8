"""Message proxies that every hook reads and writes: each attribute exists, in the place where access is fast."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.broker import consumer
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.waiting import wait_for


@pytest.fixture
def succeed(facilities: Facilities) -> Actor[[], None]:
    """An actor of the project's broker that does nothing."""
    return dramatiq.actor(lambda: None, actor_name="succeed", queue_name="default")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names that proxies passed on to the messages inside."""
    names: list[str] = []
    passed_on = MessageProxy.__getattr__

    def note(proxy: MessageProxy, name: str) -> Any:
        names.append(name)
        return passed_on(proxy, name)

    monkeypatch.setattr(MessageProxy, "__getattr__", note)
    yield names


def test_no_hook_asks_a_message_that_succeeds_for_what_it_has_not(
    succeed: Actor[[], None], run_worker: RunWorker, asked: list[str]
) -> None:
    with run_worker("default"):
        jobs = [submit(succeed, kwargs={}) for _ in range(3)]
        wait_for(lambda: all((job := find_job(id_)) and job.state == "succeeded" for id_ in jobs), 30)

    assert asked == []


class Keeps(Middleware):
    """Keeps what was worked off."""

    def __init__(self) -> None:
        self.messages: list[MessageProxy] = []

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        self.messages.append(message)


def attributes(message: MessageProxy) -> list[object]:
    """Return the dictionary of a message's attributes, where the interpreter had to make one."""
    return [found for found in gc.get_referents(message) if isinstance(found, dict) and "message_id" in found]


def test_no_hook_writes_what_a_message_has_no_place_for(
    succeed: Actor[[], None], run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One would cost each message a dictionary, and all that read its attributes afterwards more time."""
    keeps = Keeps()
    # The places are those of a class, which the tests before have filled: rare hooks have names of their own.
    monkeypatch.setattr(consumer, "HeldMessage", type("Fresh", (HeldMessage,), {}))

    with run_worker("default") as worker:
        worker.broker.add_middleware(keeps)
        submit(succeed, kwargs={})
        wait_for(lambda: keeps.messages, 30)

    [message] = keeps.messages
    assert attributes(message) == []
    for number in range(30):
        setattr(message, f"more_{number}", number)
    assert attributes(message), "the look would not see it"
