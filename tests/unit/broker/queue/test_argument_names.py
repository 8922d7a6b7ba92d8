"""A value that JSON does not have is refused with its parameter and the expression to send instead."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import dramatiq
import pytest
from django.contrib.auth.models import User
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message

from switchyard.broker.errors import UnencodablePayload
from switchyard.broker.queue.argument_names import parameter_path
from switchyard.broker.queue.codec import entry_of


class Colour(Enum):
    RED = 1


@dataclass
class Point:
    x: int


def greet(name: Any, *others: Any, greeting: Any = "") -> None: ...


def refusal(*args: Any, **kwargs: Any) -> str:
    """Return the error of a call of ``greet``."""
    broker = StubBroker()
    dramatiq.actor(greet, broker=broker)
    message: Message[Any] = Message("default", "greet", args, kwargs, {})
    with pytest.raises(UnencodablePayload) as caught:
        entry_of(message, broker.actors)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "fact", "remedy"),
    [
        (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "is a datetime", "send name.isoformat()"),
        (datetime.date(2026, 1, 1), "is a date", "send name.isoformat()"),
        (datetime.time(1), "is a time", "send name.isoformat()"),
        (datetime.timedelta(1), "is a timedelta", "send name.total_seconds()"),
        (Decimal("1.5"), "is a Decimal", "send str(name)"),
        (UUID(int=1), "is a UUID", "send str(name)"),
        (Path("a"), "is a PosixPath", "send str(name)"),
        (User(pk=1), "is a User", "send name.pk"),
        (SimpleLazyObject(lambda: User(pk=1)), "is a SimpleLazyObject", "send name.pk"),
        (SimpleLazyObject(lambda: Path("a")), "is a SimpleLazyObject", "send str(name)"),
        (User.objects.none(), "is a QuerySet", 'send list(name.values_list("pk", flat=True))'),
        (gettext_lazy("a"), "is a __proxy__", "send str(name)"),
        ({1}, "is a set", "send sorted(name)"),
        (frozenset(), "is a frozenset", "send sorted(name)"),
        (b"raw", "is a bytes", "send base64.b64encode(name).decode()"),
        (Colour.RED, "is a Colour", "send name.value"),
        (Point(1), "is a Point", "send dataclasses.asdict(name)"),
        ({}.keys(), "is a dict_keys", "send sorted(name)"),
        (range(2), "is a range", "send list(name)"),
        ((each for each in ()), "is a generator", "send list(name)"),
        (object(), "is an object", "send text, finite numbers"),
        (float("nan"), "is nan", "send text, finite numbers"),
    ],
)
def test_the_error_names_the_parameter_and_what_to_write(value: Any, fact: str, remedy: str) -> None:
    error = refusal(value)

    assert error.startswith(f"actor greet: argument name {fact}")
    assert remedy in error


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        (({"due": {"at": b""}},), {}, "argument name['due']['at'] is"),
        ((1, 2, b""), {}, "argument others[1] is"),
        ((1,), {"greeting": b""}, "argument greeting is"),
        ((1,), {"greeting": [b""]}, "argument greeting[0] is"),
        (({"{}": b""},), {}, "argument name['{}'] is"),
    ],
)
def test_a_value_within_is_named_below_its_parameter(args: Any, kwargs: Any, shown: str) -> None:
    assert shown in refusal(*args, **kwargs)


@pytest.mark.parametrize("path", ["options['x']", "", "args[9]", "kwargs['a b']"])
def test_what_is_no_argument_keeps_its_path(path: str) -> None:
    assert parameter_path(path, lambda one: None) is None
