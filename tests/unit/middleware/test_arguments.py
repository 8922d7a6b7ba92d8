"""Calls that fit their actor: the quick look agrees with ``Signature.bind``; what code does not know is parked."""

from __future__ import annotations

import inspect
import itertools
from inspect import Parameter
from typing import Any, cast

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ActorNotFound
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from switchyard.middleware.arguments import MOST_SEEN, Arguments, call_of, calls_of, knows
from switchyard.middleware.errors import ArgumentMismatch
from switchyard.middleware.parking import MOST_LOGGED, Parking

NAMES = ("a", "b", "c", "d")
PLAIN = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
STARRED = {"args": Parameter.VAR_POSITIONAL, "others": Parameter.VAR_KEYWORD}

calls = st.tuples(st.integers(0, 6), st.sets(st.sampled_from((*NAMES, "args", "others", "", "e"))))


def _signature(kinds: list[inspect._ParameterKind], optional: list[bool], starred: set[str]) -> inspect.Signature:
    parameters, defaulted = [], False
    for name, kind, has_default in zip(NAMES, sorted(kinds), optional, strict=False):
        # By place, whatever follows one with a default has one, too.
        defaulted = has_default or (defaulted and kind is not Parameter.KEYWORD_ONLY)
        parameters.append(Parameter(name, kind, default=0 if defaulted else Parameter.empty))
    parameters += [Parameter(name, STARRED[name]) for name in starred]
    return inspect.Signature(sorted(parameters, key=lambda each: each.kind))


signatures = st.builds(
    _signature,
    st.lists(st.sampled_from(PLAIN), max_size=len(NAMES)),
    st.lists(st.booleans(), min_size=len(NAMES), max_size=len(NAMES)),
    st.sets(st.sampled_from(tuple(STARRED))),
)


def _binds(signature: inspect.Signature, places: int, names: set[str]) -> bool:
    try:
        signature.bind(*range(places), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _looks_right(signature: inspect.Signature, places: int, names: set[str]) -> bool:
    def function() -> None: ...

    function.__signature__ = signature  # type: ignore[attr-defined]
    return calls_of(function).fit(places, dict.fromkeys(names).keys())


@given(signatures, calls)
def test_what_the_look_lets_through_binds(signature: inspect.Signature, call: tuple[int, set[str]]) -> None:
    if _looks_right(signature, *call):
        assert _binds(signature, *call), str(signature)


@given(signatures, calls)
def test_every_call_without_stars_is_let_through_if_it_binds(
    signature: inspect.Signature, call: tuple[int, set[str]]
) -> None:
    starred = any(each.kind in STARRED.values() for each in signature.parameters.values())

    if not starred and _binds(signature, *call):
        assert _looks_right(signature, *call), str(signature)


def test_what_stars_take_is_left_to_bind() -> None:
    def function(a: int, *args: int, b: int = 0, **others: int) -> None: ...

    found = calls_of(function)

    assert found.fit(1, {"b": 1}.keys())
    assert not found.fit(2, {}.keys())
    assert not found.fit(1, {"c": 1}.keys())


def test_only_calls_that_fit_are_seen_and_of_many_orders_some() -> None:
    def function(a: int, *, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> None: ...

    found = calls_of(function)

    assert not found.fit(2, {}.keys())
    assert not found.fit(1, {"g": 1}.keys())
    assert found.seen == set()
    assert found.fit(1, {"c": 1, "b": 1}.keys())
    assert found.seen == {(1, "c", "b")}
    assert all(found.fit(1, dict.fromkeys(names).keys()) for names in itertools.permutations("bcdef"))
    assert len(found.seen) == MOST_SEEN


def test_a_call_that_does_not_fit_is_refused_with_the_declaration() -> None:
    broker = StubBroker(middleware=[Arguments()])

    @dramatiq.actor(broker=broker)
    def greet(name: str) -> None: ...

    two: Any = ("Ada", "Grace")
    with pytest.raises(ArgumentMismatch, match=r"too many positional arguments; it is declared as greet\("):
        greet.send(*two)
    with pytest.raises(ArgumentMismatch, match="got an unexpected keyword argument 'delay'"):
        greet.send("Ada", **cast(Any, {"delay": 5}))


@pytest.mark.parametrize("wrong", [[1], "xy"])
def test_arguments_by_name_of_another_type_are_refused(wrong: Any) -> None:
    actor = dramatiq.actor(actor_name="named", broker=StubBroker(middleware=[Arguments()]))(lambda first: None)

    with pytest.raises(ArgumentMismatch, match=r"^actor named: kwargs is a \w+; write a dict; it is declared"):
        actor.send_with_options(kwargs=wrong)


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker(middleware=[])

    @dramatiq.actor(broker=broker)
    def report(month: str, *, language: str = "en") -> None: ...

    return broker


def message(actor: str, *args: object, **kwargs: object) -> Message[None]:
    return Message("default", actor, args, kwargs, {})


@pytest.mark.parametrize(
    ("sent", "is_known"),
    [
        (message("report", "May"), True),
        (message("report", month="May", language="de"), True),
        (message("report"), False),
        (message("report", "May", "June"), False),
        (message("report", "May", tongue="de"), False),
        (message("audit"), False),
    ],
)
def test_code_knows_a_call_by_name_number_and_names(broker: StubBroker, sent: Message[None], is_known: bool) -> None:
    assert knows(broker, call_of(sent)) is is_known


@pytest.mark.parametrize(
    "call", ["", "5", "[]", '["report"]', '["report", "x", []]', '["report", 1, 5]', "[{}, 1, []]"]
)
def test_what_is_no_call_is_known_to_nobody(broker: StubBroker, call: str) -> None:
    assert not knows(broker, call)


def test_calls_differ_by_nothing_but_name_number_and_names() -> None:
    first, second = message("a", 1, b=2, c=3), message("a", "one", c="three", b=None)

    assert call_of(first) == call_of(second)
    assert "\n" not in call_of(message("a\n", **{"b\n": 1}))


class Transport:
    """Parks every message for a second."""

    def park(self, message: Message[None], **details: object) -> int:
        return 1_000


def test_messages_with_ever_new_names_cost_a_bounded_number_of_lines_and_bytes(broker: StubBroker) -> None:
    parking = Parking(transport=Transport())  # type: ignore[arg-type]

    with capture_logs() as lines:
        for number in range(2 * MOST_LOGGED):
            held = MessageProxy(message(f"actor-{number}"))
            held.stuff_exception(ActorNotFound("unknown"))
            parking.before_nack(broker, held)

    assert len(lines) == len(parking._logged_s) == MOST_LOGGED
