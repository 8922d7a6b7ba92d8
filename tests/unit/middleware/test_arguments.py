"""The quick look at a call and ``Signature.bind`` never disagree about one that the look lets through."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from inspect import Parameter
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest
from dramatiq.broker import Broker
from dramatiq.brokers.stub import StubBroker
from hypothesis import given
from hypothesis import strategies as st

from switchyard.middleware.arguments import MOST_SEEN, Arguments, calls_of, knows, refuse_unusable_calls
from switchyard.middleware.errors import ArgumentMismatch, InvalidArguments

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


@pytest.mark.parametrize(
    "call",
    [
        "",
        "\\ufffd",
        "null",
        "[" * 2_000,
        '["take", 1]',
        '["take", 1000000000000, []]',
        '["take", -1, []]',
        '["take", 1.0, []]',
        '["take", "1", []]',
        '["take", 1, [[]]]',
        '["take", 1, 7]',
        '[["take"], 1, []]',
        '["other", 1, []]',
    ],
)
def test_what_somebody_wrote_as_a_call_is_known_to_nobody(call: str) -> None:
    def take(*values: object) -> None: ...

    broker = cast(Broker, SimpleNamespace(actors={"take": SimpleNamespace(fn=take)}))
    assert not knows(broker, call)
    assert knows(broker, '["take", 3, []]')


def test_a_text_as_args_of_a_hand_made_message_is_answered_with_the_missing_comma() -> None:
    broker = StubBroker(middleware=[Arguments()])

    @dramatiq.actor(broker=broker)
    def greet(name: str) -> None: ...

    two: Any = ("Ada", "Grace")
    with pytest.raises(ArgumentMismatch, match=r"args is a tuple, of one text write args=\(text,\) with a comma"):
        broker.enqueue(dramatiq.Message("default", "greet", cast(Any, "Ada"), {}, {}))
    with pytest.raises(ArgumentMismatch, match=r"too many positional arguments; it is declared as greet\("):
        greet.send(*two)


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (lambda *values: None, "the actor takes none by name, write args=(...,)"),
        (lambda first, /: None, "the actor takes none by name, write args=(...,)"),
        (lambda *values, last: None, "write kwargs={'last': ...}"),
        (lambda *values, **more: None, "write kwargs={'name': ...}"),
        (lambda: None, "the actor takes none by name, leave kwargs out"),
    ],
)
def test_kwargs_of_the_wrong_type_are_answered_with_a_name_that_the_actor_takes(
    function: Callable[..., None], remedy: str
) -> None:
    refuse_unusable_calls()
    actor = dramatiq.actor(actor_name="named", broker=StubBroker(middleware=[Arguments()]))(function)

    with pytest.raises(InvalidArguments, match=rf"^actor named: kwargs is a list; {re.escape(remedy)}; it is declared"):
        actor.message_with_options(kwargs=cast(Any, [1]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"args": "xy"}, r"args is a str; write args=\(first,\) with a comma"),
        ({"args": b"xy"}, r"args is a bytes; write args=\(first,\)"),
        ({"args": 5}, r"args is an int; write args=\(first,\)"),
        ({"args": None}, r"args is a NoneType; write args=\(first,\)"),
        ({"args": {"first": 1, "second": 2}}, r"args is a dict; write args=\(first,\)"),
        ({"kwargs": [1, 2]}, r"kwargs is a list; write kwargs=\{'first': \.\.\.\}"),
        ({"kwargs": "xy"}, r"kwargs is a str; write kwargs=\{'first': \.\.\.\}"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused_where_the_message_is_made(call: dict[str, Any], words: str) -> None:
    refuse_unusable_calls()  # once more changes nothing

    @dramatiq.actor(broker=StubBroker(middleware=[Arguments()]))
    def pair(first: str, second: str) -> None: ...

    words = rf"^actor pair: {words}.*; it is declared as pair\(.*\) .*at tests/unit/middleware/test_arguments\.py:\d+$"
    for send in (pair.message_with_options, pair.send_with_options):
        with pytest.raises(InvalidArguments, match=words):
            send(**call)


@pytest.mark.parametrize(
    ("bare", "remedy"), [(("x",), "args=(first,), ..."), (("x", "y"), "args=(first, second), ...")]
)
def test_arguments_outside_of_args_are_refused_with_how_to_write_them(bare: tuple[str, ...], remedy: str) -> None:
    refuse_unusable_calls()

    @dramatiq.actor(broker=StubBroker(middleware=[Arguments()]))
    def pair(first: str, second: str) -> None: ...

    for name in ("message_with_options", "send_with_options"):
        told = f"actor pair: {name} takes its arguments as args and kwargs; write {name}({remedy}); it is declared as"
        with pytest.raises(InvalidArguments, match=re.escape(told)):
            getattr(pair, name)(*bare)


def test_arguments_without_names_are_answered_with_what_can_be_written() -> None:
    refuse_unusable_calls()
    broker, wrong = StubBroker(middleware=[Arguments()]), cast(Any, "xy")

    @dramatiq.actor(broker=broker)
    def each(*values: str) -> None: ...

    @dramatiq.actor(broker=broker)
    def none() -> None: ...

    with pytest.raises(InvalidArguments, match=re.escape("write args=(value,) with a comma")):
        each.send_with_options(args=wrong)
    with pytest.raises(InvalidArguments, match=re.escape("write send_with_options(args=(..., ...), ...)")):
        cast(Any, each).send_with_options("x", "y")
    with pytest.raises(InvalidArguments, match="args is a str; the actor takes none, leave args out"):
        none.send_with_options(args=wrong)
    with pytest.raises(InvalidArguments, match="the actor takes none, write send_with_options"):
        cast(Any, none).send_with_options("x")


def test_other_sequences_of_arguments_are_taken_as_ever() -> None:
    refuse_unusable_calls()

    @dramatiq.actor(broker=StubBroker(middleware=[Arguments()]))
    def pair(first: str, second: str) -> None: ...

    class Fields(dict[str, str]):
        pass

    named = Fields(first="x", second="y")
    assert pair.message_with_options(args=cast(Any, ["x", "y"])).args == ("x", "y")
    assert pair.message_with_options(args=cast(Any, (one for one in "xy"))).args == ("x", "y")
    assert pair.message_with_options(kwargs=named).kwargs == named
    assert inspect.signature(pair.message_with_options).parameters.keys() == {"args", "kwargs", "options"}
