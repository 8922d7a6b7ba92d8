from __future__ import annotations

import threading
from concurrent import futures
from typing import Any

import pytest

from switchyard.operations import timeouts
from switchyard.operations.timeouts import NoAnswer, TimedCall
from tests.waiting import wait_for


def test_answer_and_error_come_through() -> None:
    def fail() -> None:
        raise LookupError("gone")

    assert TimedCall("it", lambda: 7).result(30) == 7
    with pytest.raises(LookupError, match="gone"):
        TimedCall("it", fail).result(30)


def test_question_that_hangs_ends_in_time_and_holds_one_thread() -> None:
    release, asked = threading.Event(), []

    def hang() -> str:
        asked.append(threading.get_ident())
        release.wait(60)
        return "late"

    question = TimedCall("broker", hang)
    for _ in range(5):
        with pytest.raises(NoAnswer, match=r"broker: no answer within 0\.01 s"):
            question.result(0.01)
    assert len(asked) == 1

    release.set()
    wait_for(lambda: question._pending is None)
    assert question.result(30) == "late"
    assert len(asked) == 2


def test_an_answer_that_came_too_late_is_handed_to_one_that_takes_it() -> None:
    release, asked = threading.Event(), []

    def hang() -> int:
        asked.append(1)
        release.wait(60)
        return len(asked)

    question = TimedCall("broker", hang)
    with pytest.raises(NoAnswer):
        question.result(0.01)
    release.set()
    wait_for(lambda: question._pending is None)

    assert (question.result(30, late_s=60), len(asked)) == (1, 1)
    assert (question.result(30, late_s=60), len(asked)) == (2, 2)  # in time, and so not kept
    assert (question.result(30, late_s=60), len(asked)) == (3, 3)


def test_callers_at_the_same_time_share_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, waiting, release = [], [], threading.Event()

    def ask() -> int:
        asked.append(1)
        release.wait(60)
        return len(asked)

    def wait(*arguments: Any) -> Any:
        waiting.append(1)  # this caller has its call
        return futures.wait(*arguments)

    monkeypatch.setattr(timeouts, "wait", wait)
    question = timeouts.TimedCall("it", ask)

    with futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(question.result, 30) for _ in range(4)]
        wait_for(lambda: len(waiting) == 4)
        release.set()

    assert [answer.result() for answer in answers] == [1, 1, 1, 1]
    assert len(asked) == 1
