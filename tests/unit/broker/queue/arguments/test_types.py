"""Arguments go in with the types of the annotations, travel as JSON, and come out the same, or are refused."""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import dramatiq
import msgspec
import pytest
from django.contrib.auth.models import User
from django.db.models import TextChoices
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from django.utils.timezone import get_fixed_timezone
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from hypothesis import given
from hypothesis import strategies as st

from switchyard.broker.errors import UnencodablePayload
from switchyard.broker.queue.arguments import ArgumentTypes, Misfit, in_json
from switchyard.broker.queue.codec import decode, entry_of
from switchyard.broker.queue.limits import position_of
from switchyard.middleware.arguments import Arguments
from switchyard.middleware.errors import ArgumentMismatch
from tests.unit.broker.queue.arguments.kinds import KINDS, Colour, Line, Order, State, told

if TYPE_CHECKING:
    from nowhere import Nothing

NOON = datetime.datetime(2026, 5, 1, 12)  # noqa: DTZ001  the zone is added where it matters
DAY = NOON.date()
LINE = {"article": str(UUID(int=1)), "price": "1"}


class Status(TextChoices):
    PAID = "paid", "Paid"


class LaterDay(datetime.date): ...


class LaterTime(datetime.datetime): ...


class Moved(msgspec.Struct, tag=True, omit_defaults=True, rename="camel"):
    from_day: datetime.date
    days: int = 1


class Trip(TypedDict, total=False):
    day: datetime.date


class Pieces(int): ...


class Share(float): ...


@dataclass
class Express(Line):
    hours: int = 1


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number == 5:
            raise KeyError(self.number)
        if self.number % 2:
            raise ValueError("secret - at odd")


def with_annotation(annotation: Any, default: Any = ...) -> Callable[..., Any]:
    def function(value: Any) -> None: ...

    def with_default(value: Any = default) -> None: ...

    chosen = function if default is ... else with_default
    chosen.__annotations__ = {"value": annotation}
    return chosen


def of(annotation: Any, default: Any = ...) -> ArgumentTypes:
    return ArgumentTypes(with_annotation(annotation, default))


def travelled(types: ArgumentTypes, *args: Any) -> tuple[Any, ...]:
    """Return arguments after their way as JSON."""
    sent, _ = types.sent(args, {})
    return types.received(json.loads(json.dumps(sent)), {})[0]


@pytest.mark.parametrize("annotation", KINDS, ids=str)
def test_every_value_of_every_type_and_its_json_form_come_out_the_same(annotation):
    types = of(annotation)

    @given(KINDS[annotation])
    def check(value: Any) -> None:
        assert types.misfit((value,), {}) is None
        assert types.fit((value,), {}) or types.is_typed
        form = json.loads(json.dumps(types.sent((value,), {})[0]))
        assert types.misfit(form, {}) is None
        assert [told(each) for each in (*travelled(types, value), *travelled(types, *form))] == [told(value)] * 2

    check()


@given(st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS)), st.data())
def test_what_is_let_in_comes_out_the_same_or_was_json(annotation, other, data):
    broker, value = StubBroker(), data.draw(KINDS[other])
    actor = dramatiq.actor(with_annotation(annotation), broker=broker, actor_name="one")
    types = ArgumentTypes(actor.fn)

    if types.misfit((value,), {}) is not None:
        return
    try:
        message = decode(entry_of(actor.message(value), broker.actors).body, message_id="1", lane="default")
    except UnencodablePayload:
        return
    [got] = types.received(message.args, {})[0]
    assert got == value or _as_json(value) is not None, (value, got)


def _as_json(value: Any) -> str | None:
    with contextlib.suppress(TypeError):
        return json.dumps(value)
    return None


@pytest.mark.parametrize(
    ("annotation", "value", "fact"),
    [
        (str, 5, "argument value expects str; this int does not fit"),
        (str, None, "argument value expects str; this NoneType does not fit"),
        (str, UUID(int=1), "expects str; this UUID does not fit"),
        (str, DAY, "expects str; this date does not fit"),
        (int, True, "expects int; this bool does not fit"),
        (int, 1.0, "expects int; this float does not fit"),
        (int, "5", "expects int; this str does not fit"),
        (float, "5", "expects float; this str does not fit"),
        (bool, 1, "expects bool; this int does not fit"),
        (list[str], ["a", 5], "expects list[str]; value[1] does not fit"),
        (dict[str, int], {"a": "b"}, "expects dict[str, int]; value[...] does not fit"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "this int does not fit"),
        (Colour, "green", "arguments.kinds.Colour; this str does not fit"),
        (Colour, State.PAID, "this State does not fit"),
        (datetime.date, NOON, "expects datetime.date; this datetime does not fit"),
        (datetime.date, "May", "expects datetime.date; this str does not fit"),
        (datetime.date, "2026-05-01T12:00:00", "does not fit"),
        (datetime.datetime, DAY, "this date does not fit"),
        (datetime.datetime, "2026-05-01", "this str does not fit"),
        (datetime.datetime | None, "1.5.2026", "fit"),
        (datetime.datetime, 1_777_000_000, "this int does not fit"),
        (datetime.timedelta, 5, "this int does not fit"),
        (datetime.time, "9:30 am", "this str does not fit"),
        (UUID, "x", "expects uuid.UUID; this str does not fit"),
        (Decimal, "1.234,50", "expects decimal.Decimal; this str does not fit"),
        (bytes, "hällo", "this str does not fit"),
        (Order, Order("soon", []), "value.due does not fit"),  # type: ignore[arg-type]
        (Order, Order(DAY, [Line(UUID(int=1), "x")]), "value.lines[0].price does not fit"),  # type: ignore[arg-type]
        (Order, Order(DAY, [], extra={"at": NOON}), "would come out as another value"),
        (Line, Express(UUID(int=1), Decimal(1)), "would come out as another value"),
        (tuple[Any, datetime.date], (DAY, DAY), "would come out as another value"),
        (tuple[Any, datetime.date], (object(), DAY), "this tuple holds object, which has no JSON form"),
        (datetime.date, object(), "this object has no JSON form"),
        (list[datetime.date], {DAY}, "would come out as another value"),
        (dict[str, datetime.date], {1: DAY}, "would come out as another value"),
        (Order, Order(DAY, [], extra={1: "a"}), "would come out as another value"),  # type: ignore[dict-item]
        (dict[datetime.date, int], {"May": 1}, "dict[datetime.date, int]; a key of value does not fit"),
        (list[dict[datetime.date, int]], [{"May": 1}], "; a key of value[0] does not fit"),
        (datetime.time, datetime.time(9, tzinfo=ZoneInfo("Europe/Berlin")), "would come out as another value"),
        (Line, {**LINE, "colour": "x"}, "kinds.Line; it has no field 'colour'"),
        (list[Line], [LINE, {**LINE, "colour": "x"}], "; it has no field 'colour'"),
        (dict[datetime.date, Line], {"2026-05-01": {**LINE, "colour": "x"}}, "; it has no field 'colour'"),
        (Order, {"due": "2026-05-01", "lines": [{**LINE, "colour": "x"}]}, "; it has no field 'colour'"),
        (Moved, {"fromDay": "2026-05-01", "from_day": "2026-05-01"}, "; it has no field 'from_day'"),
        (Trip, {"day": DAY, "dya": DAY}, "; it has no field 'dya'"),
        (Trip, {"dya": "2026-05-01"}, "; it has no field 'dya'"),
        (str, User(pk=1), "this User does not fit"),
        (Order, User(pk=1), "this User has no JSON form"),
        (int, SimpleLazyObject(lambda: User(pk=1)), "does not fit"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_with_the_arguments_name(annotation, value, fact):
    types = of(annotation)

    assert not types.fit((value,), {}) and fact in (types.misfit((value,), {}) or "")
    assert "green" not in (types.misfit((value,), {}) or "")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, SafeString("a")),
        (str, Status.PAID),
        (float, 5),
        (int, 2**70),
        (list[str], ("a",)),
        (Any, object()),
        (object, 5),
        (dict, {"a": 1}),
    ],
)
def test_what_json_makes_of_a_plain_value_is_sent_as_it_is(annotation, value):
    types = of(annotation)

    assert types.fit((value,), {})
    assert types.misfit((value,), {}) is None
    assert types.sent((value,), {})[0] == (value,)


@pytest.mark.parametrize(
    ("annotation", "value", "got"),
    [
        (datetime.date, LaterDay(2026, 5, 1), DAY),
        (datetime.datetime, LaterTime(2026, 5, 1, 12), NOON),
        (
            datetime.datetime,
            NOON.replace(tzinfo=get_fixed_timezone(120)),
            NOON.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        ),
        (Status, Status.PAID, Status.PAID),
        (list[datetime.date], (DAY,), [DAY]),
        (Order, Order(DAY, [], SafeString("<b>")), Order(DAY, [], "<b>")),
        (Line, Line(UUID(int=1), Decimal(1), Pieces(3)), Line(UUID(int=1), Decimal(1), 3)),
        (tuple[float, datetime.date], (Share(0.5), DAY), (0.5, DAY)),
        (datetime.date, SafeString("2026-05-01"), DAY),
        (dict[int, datetime.date], {"1": DAY}, {1: DAY}),
        (dict[UUID, int], {str(UUID(int=10)).upper(): 1}, {UUID(int=10): 1}),
        (bytes, bytearray(b"a"), b"a"),
        (bytearray, b"a", bytearray(b"a")),
        (set[int], frozenset({1}), {1}),
        (frozenset[int], {1}, frozenset({1})),
        (Moved, {"type": "Moved", "fromDay": "2026-05-01", "days": 1}, Moved(DAY)),
        (Trip, {}, {}),
    ],
)
def test_values_of_related_types_come_out_as_the_annotation_says(annotation, value, got):
    types = of(annotation)

    assert types.misfit((value,), {}) is None
    assert told(travelled(types, value)[0]) == told(got)


def test_what_a_classes_own_code_raises_refuses_its_value():
    types, even = of(Even), Even(2)

    assert types.misfit((even,), {}) is None
    even.number = 3
    assert "value does not fit" in str(types.misfit((even,), {})).replace("this Even", "value")
    even.number = 5
    assert "its own code raised KeyError" in str(types.misfit((even,), {}))
    with pytest.raises(Misfit, match="its own code raised KeyError"):
        types.received(({"number": 5},), {})


def test_none_fits_where_it_is_the_default():
    assert of(str, None).fit((None,), {})
    assert travelled(of(datetime.date, None), None) == (None,)
    assert of(str, "a").misfit((None,), {}) is not None


def test_every_kind_of_parameter_has_its_type():
    def function(
        first: datetime.date, /, second: int, *more: datetime.date, third: str = "", **others: Decimal
    ) -> None: ...

    types = ArgumentTypes(function)

    args, kwargs = types.sent((DAY, 1, DAY), {"third": "x", "price": Decimal("1.50")})
    assert (args, kwargs) == (("2026-05-01", 1, "2026-05-01"), {"third": "x", "price": "1.50"})
    assert types.received(args, kwargs) == ((DAY, 1, DAY), {"third": "x", "price": Decimal("1.50")})
    assert "argument more[1] expects datetime.date" in str(types.misfit((DAY, 1, DAY, 5), {}))
    assert "argument price expects Decimal" in str(types.misfit((DAY, 1), {"price": []}))
    assert "argument second expects int" in str(types.misfit((DAY,), {"second": "x"}))


@pytest.mark.parametrize(
    ("annotation", "fault"),
    [
        ("Nothing", "its names cannot be resolved, NameError: name 'Nothing' is not defined"),
        (str | datetime.date, "Type unions may not contain more than one str-like type"),
        (User, ""),
        (list[User], ""),
        (Iterable[str], ""),
        (Callable[[], None], ""),
    ],
)
def test_an_annotation_that_cannot_be_compared_counts_as_none(annotation, fault):
    types = of(annotation)

    assert types.fit((object(),), {})
    assert not types.is_typed
    assert types.faults.get("value", ("", ""))[1].startswith(fault)
    assert bool(types.faults) is bool(fault)


def test_an_annotation_that_cannot_be_resolved_hides_no_other():
    def function(first: Nothing, second: datetime.date) -> None: ...

    assert travelled(ArgumentTypes(function), 1, DAY) == (1, DAY)


def test_class_based_and_asynchronous_actors_have_types():
    broker = StubBroker()

    class Remind(dramatiq.GenericActor):
        class Meta:
            @staticmethod
            def actor(function: Any, **options: Any) -> Any:
                return dramatiq.actor(function, broker=broker)

        def perform(self, day: datetime.date) -> None: ...

    @dramatiq.actor(broker=broker)
    async def later(day: datetime.date) -> None: ...

    words = r"argument day expects datetime.date; .* declared as Remind\(day: 'datetime.date'\).*py:\d+"
    with pytest.raises(ArgumentMismatch, match=words):
        Arguments().before_enqueue(broker, broker.actors["Remind"].message("soon"), None)
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'day'"):
        Arguments().before_enqueue(broker, broker.actors["Remind"].message(), None)
    for name in ("Remind", "later"):
        assert travelled(ArgumentTypes(broker.actors[name].fn), DAY) == (DAY,)
    assert [position_of(actor, "day") for actor in broker.actors.values()] == [1, 1], "limits count what has no name"


@pytest.mark.parametrize(
    ("annotation", "received", "got"),
    [*((tuple[int, datetime.date], [seven, "2026-05-01"], (7, DAY)) for seven in ("7", 7)),
     (Line, {**LINE, "colour": "x"}, Line(UUID(int=1), Decimal(1)))],
)  # fmt: skip
def test_a_received_value_that_nearly_fits_is_converted_and_another_named(annotation, received, got):
    assert of(annotation).received((received,), {}) == ((got,), {})
    with pytest.raises(Misfit, match=r"argument value expects datetime.date; this str does not fit"):
        of(datetime.date).received(("tomorrow",), {})


def test_the_steps_of_a_pipeline_travel_as_json():
    broker = StubBroker()

    @dramatiq.actor(broker=broker)
    def first(day: datetime.date) -> None: ...

    @dramatiq.actor(broker=broker)
    def then(price: Decimal, *, day: datetime.date) -> None: ...

    line = dramatiq.pipeline([first.message(DAY), then.message(Decimal("1.5"), day=DAY), then.message(day=DAY)])
    message = line.messages[0]

    sent = decode(entry_of(message, broker.actors).body, message_id="1", lane="default")
    step = sent.options["pipe_target"]
    assert (sent.args, step["args"], step["kwargs"]) == (("2026-05-01",), ["1.5"], {"day": "2026-05-01"})
    assert (step["options"]["pipe_target"]["kwargs"], message.args) == ({"day": "2026-05-01"}, (DAY,))


def test_a_message_of_plain_arguments_is_encoded_as_it_is():
    broker = StubBroker()

    @dramatiq.actor(broker=broker)
    def add(a: int, b: int) -> None: ...

    message = add.message(1, 2)

    assert in_json(message, broker.actors) is message
    unknown: Message[Any] = Message("default", "unknown", (DAY,), {}, {})
    assert in_json(unknown, broker.actors) is unknown


FIRST_MESSAGES = """
import sys, threading
from switchyard.broker.queue.arguments import argument_types

sys.setswitchinterval(1e-6)
for _ in range(30):
    names = {}
    exec("def send(a: int, b: str = 'x', c: dict[str, list[int]] | None = None, d: float = 0.0): ...", names)
    send = lambda: argument_types(names["send"]).fit((1, "a"), {"d": 1.0})
    threads = [threading.Thread(target=send) for _ in "123456"]
    [each.start() for each in threads], [each.join() for each in threads]
"""


def test_the_first_messages_of_an_actor_may_come_from_several_threads():
    subprocess.run([sys.executable, "-c", FIRST_MESSAGES], check=True, timeout=60)
