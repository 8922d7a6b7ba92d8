"""Types that arguments may have, and strategies for their values."""

import datetime
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
from hypothesis import strategies as st


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class State(StrEnum):
    PAID = "paid"
    OPEN = "open"


@dataclass
class Line:
    article: UUID
    price: Decimal
    pieces: int = 1


@dataclass(frozen=True)
class Order:
    due: datetime.date
    lines: list[Line]
    note: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Area(msgspec.Struct):
    since: datetime.datetime
    sides: tuple[float, float]


class Point(NamedTuple):
    x: int
    at: datetime.date


class Plan(TypedDict):
    day: datetime.date
    colour: Colour


class Flat(TypedDict, total=False):
    title: str
    pages: int


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**53), 2**53)
DATES = st.dates()
ZONES = st.none() | st.just(datetime.UTC) | st.timezones()
TIMES = st.datetimes(timezones=ZONES).filter(lambda at: at.utcoffset() is None or at.utcoffset().seconds % 60 == 0)
SPANS = st.timedeltas()
DECIMALS = st.decimals(allow_nan=False)
KEYS = st.uuids()
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LINES = st.builds(Line, KEYS, DECIMALS, NUMBERS)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)

# Annotation -> its values.
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    Any: JSON,
    str: TEXT,
    int: NUMBERS,
    float: FLOATS,
    bool: st.booleans(),
    None: st.none(),
    list: st.lists(JSON, max_size=3),
    dict: st.dictionaries(TEXT, JSON, max_size=3),
    list[str]: st.lists(TEXT),
    dict[str, Any]: st.dictionaries(TEXT, JSON, max_size=3),
    Literal["a", 2]: st.sampled_from(["a", 2]),
    Flat: st.fixed_dictionaries({}, optional={"title": TEXT, "pages": NUMBERS}),
    Annotated[int, msgspec.Meta(ge=0)]: st.integers(0, 100),
    int | str | None: NUMBERS | TEXT | st.none(),
    datetime.date: DATES,
    datetime.datetime: TIMES,
    datetime.time: st.times(),
    datetime.timedelta: SPANS,
    Decimal: DECIMALS,
    UUID: KEYS,
    bytes: st.binary(max_size=20),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    State: st.sampled_from(State),
    Line: LINES,
    Order: st.builds(Order, DATES, st.lists(LINES, max_size=2), st.none() | TEXT, st.dictionaries(TEXT, JSON)),
    Area: st.builds(Area, TIMES, st.tuples(FLOATS, FLOATS)),
    Point: st.builds(Point, NUMBERS, DATES),
    Plan: st.fixed_dictionaries({"day": DATES, "colour": st.sampled_from(Colour)}),
    list[datetime.date]: st.lists(DATES, max_size=3),
    dict[str, Decimal]: st.dictionaries(TEXT, DECIMALS, max_size=3),
    dict[datetime.date, int]: st.dictionaries(DATES, NUMBERS, max_size=3),
    dict[int, UUID]: st.dictionaries(NUMBERS, KEYS, max_size=3),
    tuple[datetime.date, int]: st.tuples(DATES, NUMBERS),
    tuple[UUID, ...]: st.lists(KEYS, max_size=3).map(tuple),
    set[str]: st.sets(TEXT, max_size=3),
    frozenset[datetime.date]: st.frozensets(DATES, max_size=3),
    datetime.date | None: DATES | st.none(),
    int | UUID: NUMBERS | KEYS,
    list[Order | None]: st.lists(st.none() | st.builds(Order, DATES, st.just([])), max_size=2),
    tuple[Any, datetime.date]: st.tuples(JSON, DATES),
}  # fmt: skip


def told(value: Any) -> str:
    """Return a value with the type of each part as text: two texts are equal when the values are."""
    kind = type(value).__name__
    if isinstance(value, datetime.datetime):
        return f"datetime {value.replace(tzinfo=None, fold=0).isoformat()} {value.utcoffset()}"
    if isinstance(value, datetime.time):
        return f"time {value.replace(fold=0)!r}"
    if isinstance(value, dict):
        return f"{kind} {{{', '.join(f'{told(key)}: {told(item)}' for key, item in sorted(value.items(), key=repr))}}}"
    if isinstance(value, set | frozenset):
        return f"{kind} {sorted(map(told, value))}"
    if isinstance(value, list | tuple):
        return f"{kind} [{', '.join(map(told, value))}]"
    if isinstance(value, Line | Order):
        return f"{kind} {told(vars(value))}"
    if isinstance(value, msgspec.Struct):
        return f"{kind} {told(msgspec.structs.asdict(value))}"
    return f"{kind} {value!r}"
