"""Calls of the hooks of a broker's middleware."""

import logging
from typing import Any

import pytest
from dramatiq.broker import Broker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.yard_broker import Hooks

SHAPES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, None), {}),
    ((1, 2, 3), {}),
    ((1,), {"result": None}),
    ((1,), {"result": 5}),
    ((1,), {"exception": ValueError("x")}),
    ((1,), {"result": 5, "exception": None}),
    ((1, 2), {"result": 5}),
    ((), {"result": 5}),
]


class Noting(Middleware):
    def __init__(self, noted: list[Any], name: str = "", error: Exception | None = None) -> None:
        self._noted, self._name, self._error = noted, name, error

    def _note(self, broker: Broker, *args: Any, **kwargs: Any) -> None:
        self._noted.append((self._name, args, kwargs) if self._name else (args, kwargs))
        if self._error is not None:
            raise self._error

    before_process_message = after_process_message = _note


@pytest.fixture
def broker() -> Broker:
    return StubBroker(middleware=[])


@pytest.mark.parametrize(("args", "kwargs"), SHAPES)
def test_a_hook_gets_the_arguments_of_its_signal_and_no_others(broker, args, kwargs):
    noted: list[Any] = []
    broker.middleware = [Noting(noted)]

    Hooks().call_before(broker, "process_message", args, kwargs)
    Hooks().call_after(broker, "process_message", args, kwargs)

    assert noted == [(args, kwargs)] * 2


def test_before_hooks_run_in_order_and_after_hooks_in_reverse(broker):
    noted: list[Any] = []
    hooks = Hooks()
    broker.middleware = [Noting(noted, "a"), Middleware(), Noting(noted, "b")]

    hooks.call_before(broker, "process_message", (1,), {})
    hooks.call_after(broker, "process_message", (1,), {"result": None})
    broker.middleware.append(Noting(noted, "c"))
    hooks.call_before(broker, "process_message", (1,), {})

    assert [name for name, *_ in noted] == ["a", "b", "b", "a", "a", "b", "c"]


@pytest.mark.parametrize(("args", "kwargs"), SHAPES)
def test_an_exception_of_a_hook_is_logged_and_the_others_run(broker, args, kwargs, caplog):
    noted: list[Any] = []
    hooks = Hooks()
    broker.middleware = [Noting(noted), Noting(noted, error=ValueError("x")), Noting(noted)]

    with caplog.at_level(logging.CRITICAL):
        hooks.call_before(broker, "process_message", args, kwargs)
        hooks.call_after(broker, "process_message", args, kwargs)

    assert len(noted) == 6
    assert [record.getMessage().split(" of ")[0] for record in caplog.records] == [
        "Unexpected failure in before_process_message",
        "Unexpected failure in after_process_message",
    ]


def test_what_is_for_failures_only_is_not_called_when_an_actor_has_returned(broker):
    noted: list[Any] = []
    hooks, of_failures = Hooks(), Noting(noted, "a")
    of_failures.failures_only = True  # type: ignore[attr-defined]
    broker.middleware = [of_failures, Noting(noted, "b")]

    for kwargs in ({"result": None}, {"exception": ValueError("x")}, {}):
        hooks.call_after(broker, "process_message", (1,), kwargs)
    hooks.call_before(broker, "process_message", (1,), {})

    assert [name for name, *_ in noted] == ["b", "b", "a", "b", "a", "a", "b"]


def test_an_error_of_dramatiq_stops_a_signal_before_it_and_none_after(broker):
    noted: list[Any] = []
    hooks = Hooks()
    broker.middleware = [Noting(noted, "a", SkipMessage("x")), Noting(noted, "b")]

    with pytest.raises(SkipMessage):
        hooks.call_before(broker, "process_message", (1,), {})
    hooks.call_after(broker, "process_message", (1,), {})

    assert [name for name, *_ in noted] == ["a", "b", "a"]
