"""A message that succeeds is never asked for what it has not: its proxy raises two exceptions before it says no."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import MessageProxy

from apps.platform.jobs.queries import find_job
from apps.platform.jobs.services import submit
from tests.conftest import RunWorker
from tests.waiting import wait_for


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


@pytest.mark.usefixtures("facilities")
def test_no_hook_asks_a_message_that_succeeds_for_what_it_has_not(run_worker: RunWorker, asked: list[str]) -> None:
    @dramatiq.actor(queue_name="default")
    def succeed() -> None:
        return None

    try:
        with run_worker("default"):
            jobs = [submit(succeed, kwargs={}) for _ in range(3)]
            wait_for(lambda: all((job := find_job(id_)) and job.state == "succeeded" for id_ in jobs), 30)
    finally:
        del dramatiq.get_broker().actors["succeed"]

    assert asked == []


def test_a_proxy_that_is_asked_is_noted(asked: list[str]) -> None:
    proxy = MessageProxy(dramatiq.Message("default", "anything", (), {}, {}))

    assert getattr(proxy, "outcome", None) is None
    assert asked == ["outcome"]
