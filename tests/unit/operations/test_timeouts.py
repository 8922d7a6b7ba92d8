from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

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


def test_callers_at_the_same_time_share_one_answer() -> None:
    barrier, asked, entered = threading.Barrier(5), [], []
    release = threading.Event()

    def ask() -> int:
        asked.append(1)
        release.wait(60)
        return len(asked)

    question = TimedCall("it", ask)

    def call() -> int:
        barrier.wait(30)
        entered.append(1)
        return question.result(30)

    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(call) for _ in range(4)]
        barrier.wait(30)
        wait_for(lambda: asked and len(entered) == 4)
        release.set()
        found = {answer.result() for answer in answers}

    assert found <= {1, 2}
    assert len(asked) <= 2
