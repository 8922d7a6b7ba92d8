"""Calls of Celery and others on an actor say what to write instead."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback

import dramatiq
import pytest
from dramatiq import Message

from apps.reports.actors import generate_report
from switchyard.middleware.foreign_calls import FOREIGN_CALLS, FOREIGN_MESSAGE_CALLS, explain_foreign_calls


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("delay", r"write generate_report\.send\(\.\.\.\), with the same arguments"),
        ("apply_async", r"write generate_report\.send_with_options\(args=.*milliseconds"),
        ("delay_on_commit", r".*enqueue_on_commit\(\.\.\.\) of switchyard\.jobs\.services$"),
        ("s", r"write generate_report\.message"),
    ],
)
def test_a_foreign_call_says_what_to_write_instead(call: str, words: str) -> None:
    with pytest.raises(AttributeError, match=rf"actor generate_report has no '{call}': {words}"):
        getattr(generate_report, call)


def test_an_actor_in_place_of_a_step_is_answered_with_its_message() -> None:
    with pytest.raises(AttributeError, match=r"^actor generate_report has no 'copy': write generate_report\.message\("):
        dramatiq.pipeline([generate_report.message("2026-05"), generate_report])  # type: ignore[list-item]


def test_actors_do_not_seem_to_have_the_foreign_calls() -> None:
    explain_foreign_calls()  # once more changes nothing

    assert [name for name in FOREIGN_CALLS if hasattr(generate_report, name)] == []
    assert [name for name in FOREIGN_CALLS if hasattr(type(generate_report), name)] == []
    assert inspect.getdoc(generate_report) is not None and callable(generate_report.send)
    assert copy.copy(generate_report).actor_name == "generate_report"
    with pytest.raises(AttributeError, match="no attribute 'sned'"):
        _ = generate_report.sned


def test_python_adds_no_suggestion_to_a_foreign_call() -> None:
    with pytest.raises(AttributeError) as raised:
        _ = generate_report.s

    assert "Did you mean" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("get", r"\.get_result\(block=True, timeout=3_000\), in milliseconds"),
        ("id", r"\.message_id"),
        ("ready", r"\.get_result\(\), which raises ResultMissing until there is one"),
    ],
)
def test_a_foreign_call_on_a_message_says_what_to_write_instead(call: str, words: str) -> None:
    with pytest.raises(AttributeError, match=rf"^message of generate_report has no '{call}': write {words}"):
        getattr(generate_report.message(1), call)


def test_messages_do_not_seem_to_have_the_foreign_calls() -> None:
    message = generate_report.message(1)

    assert [name for name in FOREIGN_MESSAGE_CALLS if hasattr(message, name) or hasattr(Message, name)] == []
    assert copy.copy(message) == pickle.loads(pickle.dumps(message)) == Message.decode(message.encode()) == message
    assert not set(FOREIGN_MESSAGE_CALLS) & set(message.asdict())
