from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from switchyard.alerts import sending
from switchyard.alerts.channels import ChannelFailed
from switchyard.alerts.notice import Notice
from switchyard.alerts.sending import ChannelBatch, send_all
from tests.unit.alerts.test_notice import FIRST

SECOND = replace(FIRST, id="2-0")


@dataclass
class Channel:
    name: str
    answer: Callable[[Notice], None]

    def send(self, notice: Notice) -> None:
        self.answer(notice)


def refuse(notice: Notice) -> None:
    raise ChannelFailed("c", "answered 400", answered=True)


def unreachable(notice: Notice) -> None:
    raise ChannelFailed("c", "no connection")


def test_channel_that_refuses_one_message_gets_the_next() -> None:
    work = ChannelBatch("c", Channel("c", lambda notice: refuse(notice) if notice is FIRST else None), [FIRST, SECOND])

    send_all([work])

    assert isinstance(work.results[FIRST.id], ChannelFailed)
    assert work.results[SECOND.id] is None


def test_channel_that_does_not_answer_is_left_alone_at_once() -> None:
    work = ChannelBatch("c", Channel("c", unreachable), [FIRST, SECOND])

    send_all([work])

    assert set(work.results) == {FIRST.id}


def test_broken_channel_is_a_failure_of_its_own() -> None:
    def broken(notice: Notice) -> None:
        raise ZeroDivisionError("canary")

    work = ChannelBatch("c", Channel("c", broken), [FIRST])
    well = ChannelBatch("d", Channel("d", lambda notice: None), [FIRST])

    send_all([work, well])

    failure = work.results[FIRST.id]
    assert isinstance(failure, ChannelFailed)
    assert "ZeroDivisionError" in str(failure) and "canary" not in str(failure)
    assert well.results == {FIRST.id: None}


def test_channel_that_hangs_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "BATCH_ENDS_S", 0.2)
    release = threading.Event()
    hung = ChannelBatch("c", Channel("c", lambda notice: release.wait(60) and None), [FIRST, SECOND])
    well = ChannelBatch("d", Channel("d", lambda notice: None), [FIRST, SECOND])

    send_all([hung, well])

    assert well.results == {FIRST.id: None, SECOND.id: None}
    assert isinstance(hung.results[FIRST.id], ChannelFailed)
    assert SECOND.id not in hung.results
    release.set()
