"""A message comes back as it was sent, or is refused with the place of what is wrong; no bytes are ever unpickled."""

import ast
import enum
import inspect
import json
import logging
import math
import pickle
import subprocess
import sys
import uuid
from collections import OrderedDict, namedtuple
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from dramatiq.encoder import JSONEncoder
from dramatiq.message import Message, get_encoder
from dramatiq.results.backends import RedisBackend
from hypothesis import HealthCheck, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from switchyard.alerts.models import Alert
from switchyard.broker.errors import PayloadTooLarge, UnencodablePayload, UnreadablePayload
from switchyard.broker.queue import codec, json_body
from switchyard.broker.queue.json_body import DEEPEST, LIMIT_BYTES, WARN_BYTES, decode, encode, refused_part


class Plan(enum.StrEnum):
    FREE = "free"


class Size(enum.IntEnum):
    LARGE = 3


Point = namedtuple("Point", "x y")


def fields(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"actor": "send", "args": args, "kwargs": kwargs}


def nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


def alike(sent: Any, came: Any) -> bool:
    """Whether a value is the same, of the same kind; tuples count as lists, and no number hides its sign."""
    if isinstance(sent, (list, tuple)):
        return type(came) is list and len(sent) == len(came) and all(map(alike, sent, came))
    if isinstance(sent, dict):
        return type(came) is dict and list(sent) == list(came) and all(alike(sent[key], came[key]) for key in sent)
    if isinstance(sent, float):
        return type(came) is float and sent == came and math.copysign(1, sent) == math.copysign(1, came)
    return type(sent) is type(came) and sent == came


NUMBERS = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 2**63, 2**64, -(2**64), 10**400]
TEXTS = ["\ud800", "\udfff\ud800", "\ud83d\ude00", "\0", "\u2028", "\ufeff", "😀", '"\\\x7f', ""]
awkward = st.sampled_from([*NUMBERS, *TEXTS])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters() | awkward,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none() | awkward, inner, max_size=5)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("examples", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_any_value_comes_back_equal_or_is_refused_with_its_path(examples):
    seen = {"equal": 0, "refused": 0}

    @hypothesis_settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(value=values)
    def holds(value: Any) -> None:
        try:
            body = encode(fields(value))
        except UnencodablePayload as refusal:
            assert refusal.path.startswith("args[0]")
            seen["refused"] += 1
            event("refused")
            return
        assert alike(value, decode(body)["args"][0])
        assert decode(body) == json.loads(body)
        seen["equal"] += 1
        event("equal")

    holds()

    assert min(seen.values()) >= examples / 20, seen


@pytest.mark.parametrize(
    ("value", "path", "fact"),
    [
        (math.nan, "args[0]", "is nan"),
        ([1, {"a": -math.inf}], "args[0][1]['a']", "is -inf"),
        ({"a": {1: 2}}, "args[0]['a']", "key that is an int"),
        ({"a": {True: 2}}, "args[0]['a']", "key that is a bool"),
        ("ab\ud800", "args[0]", "lone surrogate at character 2"),
        ("\ud83d\ude00", "args[0]", "lone surrogate at character 0"),
        ({"\udfff": 1}, "args[0][…]", "lone surrogate"),
        ([10**4300], "args[0][0]", "too many digits"),
        (b"raw", "args[0]", "is a bytes"),
        ({1}, "args[0]", "is a set"),
        (uuid.uuid4(), "args[0]", "is a UUID"),
        (Decimal("1.5"), "args[0]", "is a Decimal"),
        (object(), "args[0]", "is an object"),
        ({"k" * 300: math.nan}, f"args[0]['{'k' * 40}…']", "is nan"),
    ],
)
def test_what_would_not_come_back_equal_is_refused_where_it_is(value, path, fact):
    with pytest.raises(UnencodablePayload) as caught:
        encode(fields(value))

    assert caught.value.path == path
    assert fact in str(caught.value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        *((value, value) for value in (-0.0, 2**64, -(2**64), 10**400, 5e-324, "😀", "\0", 0.1, True, None)),
        (Plan.FREE, "free"),
        (Size.LARGE, 3),
        (mark_safe("<b>"), "<b>"),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ({Plan.FREE: Size.LARGE}, {"free": 3}),
    ],
)
def test_the_edges_of_json_travel_exactly_and_kinds_of_text_numbers_and_containers_as_the_plain_kind(value, plain):
    assert alike(plain, decode(encode(fields(value)))["args"][0])


def test_nesting_has_one_limit_in_both_directions_and_what_holds_itself_is_over_it():
    deepest = nested(DEEPEST - 1)  # the fields and the list of arguments are above it
    assert decode(encode(fields(deepest)))["args"] == [deepest]

    for levels in (DEEPEST, 5_000):
        with pytest.raises(UnencodablePayload, match=f"deeper than {DEEPEST}"):
            encode(fields(nested(levels)))
        with pytest.raises(UnreadablePayload, match="nested"):
            decode(b'{"actor":"send","args":[' + b"[" * levels + b"]" * levels + b"]}")
    with pytest.raises(UnencodablePayload, match="nested"):
        encode(fields(CYCLE))


@pytest.mark.parametrize(
    ("body", "path", "fact"),
    [
        (b'{"args":[NaN]}', "args[0]", "is nan"),
        (b'{"args":[-Infinity]}', "args[0]", "is -inf"),
        (b'{"args":[1e999]}', "args[0]", "is inf"),
        (b'{"args":[{"a":1,"a":2}]}', "args[0]['a']", "is there twice"),
        (b'{"a":1,"\\u0061":2}', "a", "is there twice"),
        (b'{"args":["\\ud800"]}', "args[0]", "lone surrogate"),
        (b'{"args":["\xff"]}', "byte 10", "not UTF-8"),
        (b'{"args":[01]}', "character 10", "not JSON"),
        (b'\xef\xbb\xbf{"args":[]}', "character 0", "not JSON"),
        (b'{"args":[]} {}', "character 12", "not JSON"),
        (b'{"n":' + b"9" * 5_000 + b"}", "", "too many digits"),
        (b"[1]", "", "is a list, not an object"),
        (b"", "character 0", "not JSON"),
        (pickle.dumps({"args": []}), "byte 0", "not UTF-8"),
    ],
)
def test_a_body_that_is_not_strict_json_is_refused_where_it_goes_wrong(body, path, fact):
    with pytest.raises(UnreadablePayload) as caught:
        decode(body)

    assert caught.value.path == path
    assert fact in str(caught.value)


@given(st.binary() | values.map(lambda value: json.dumps({"args": value}, skipkeys=True).encode()))
def test_any_bytes_are_read_or_refused(body):
    try:
        found = decode(body)
    except UnreadablePayload:
        return
    assert encode(found, limit_bytes=None)


def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not():
    room = LIMIT_BYTES - len(encode(fields("")))
    assert len(encode(fields("x" * room))) == LIMIT_BYTES

    for value in ("x" * (room + 1), "é" * (room // 2 + 1), list(range(LIMIT_BYTES)), mark_safe("x" * LIMIT_BYTES)):
        with pytest.raises(PayloadTooLarge, match=r"actor send: message has .* of at most 1048576") as caught:
            encode(fields(value))
        assert caught.value.size_bytes > LIMIT_BYTES
    assert len(encode(fields("x" * (room + 1)), limit_bytes=None)) == LIMIT_BYTES + 1


def test_a_large_body_is_warned_of_once_for_each_actor(caplog, monkeypatch):
    monkeypatch.setattr(json_body, "_warned", set())
    caplog.set_level(logging.WARNING, "switchyard.payload")

    for actor_name in ("a", "b", "a", "b"):
        encode({"actor": actor_name, "args": ["x" * (WARN_BYTES - 100)]})
        encode({"actor": actor_name, "args": ["x" * WARN_BYTES]})

    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == ["a", "b"]


MEASURED = """
import re, sys
from pathlib import Path
from switchyard.broker.errors import PayloadTooLarge
from switchyard.broker.queue.json_body import encode

def peak_mib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

mib, kind = int(sys.argv[1]), sys.argv[2]
before = peak_mib()
if kind == "text":
    value = "x" * (mib << 20)
elif kind == "lines":
    value = ["x" * 65_536 + str(n) for n in range(mib * 16)]
else:
    value = {"numbers": [0] * (mib << 17)}  # eight bytes each
try:
    encode({"actor": "send", "args": (value,), "kwargs": {}})
except PayloadTooLarge:
    print((peak_mib() - before) / mib)
"""


@pytest.mark.parametrize("kind", ["text", "lines", "numbers"])
@pytest.mark.parametrize("mib", [64, pytest.param(600, marks=pytest.mark.long)])
def test_a_giant_is_refused_without_a_second_copy(mib, kind):
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(mib), kind],
        cwd=Path(__file__).parents[4], capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip

    grown = float(run.stdout)
    print(f"{mib} MiB of {kind}: memory grew {grown:.2f} times the value")
    assert 0.9 < grown < 1.5


DUE = date(2030, 1, 1)
CYCLE: dict[str, Any] = {"rows": []}
CYCLE["rows"].append(CYCLE)
DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "path", "fact", "remedy"),
    [
        (DUE, "result", "is a date, which JSON does not have", "{}.isoformat()"),
        ({"rows": [0, 1, 2, DUE, Decimal(1)]}, "result['rows'][3]", "is a date, which", "{}.isoformat()"),
        ({"ok": [1], "a": {"b": ({"c": Decimal(1)},)}}, "result['a']['b'][0]['c']", "is a Decimal", "str({})"),
        ([{(1, 2): 3}], "result[0]", "has a key that is a tuple; keys are text", ""),
        ({"7": {1}}, "result['7']", "is a set, which", "sorted({})"),
        ({"x" * 100: DUE}, f"result['{'x' * 40}…']", "is a date", "{}.isoformat()"),
        (object(), "result", "is an object, which", ""),
        ([Alert(pk=3)], "result[0]", "is an Alert, which", "{}.pk"),
        (gettext_lazy("Hello"), "result", "is a __proxy__, which", "str({})"),
    ],
)
def test_the_refused_part_has_a_path(value, path, fact, remedy):
    with pytest.raises((TypeError, ValueError)):
        json.dumps(value)

    found = refused_part(value, "result")

    assert (found[0], found[2]) == (path, remedy)
    assert found[1].startswith(fact)


def test_the_path_of_a_deep_value_is_cut_and_one_too_deep_for_what_is_left_of_the_stack_is_refused_whole():
    for value in (DEEP, CYCLE):
        path, fact, _ = refused_part(value, "result")

        assert (len(path), path[-1]) == (41, "…")
        assert fact.startswith("is nested deeper")

    def below(frames: int) -> tuple[str, str, str]:
        return below(frames - 1) if frames else refused_part(CYCLE, "result")

    assert below(sys.getrecursionlimit() - len(inspect.stack(0)) - 200) == ("result", "is nested too deep", "")


NOW_MS = 1_800_000_000_000


def read(**fields: Any) -> Any:
    body = json.dumps({"actor": "audit", "sent_at": NOW_MS, **fields}).encode()
    return codec.decode(body, message_id="an-id", lane="work")


@pytest.mark.parametrize("name", codec.NUMBERS)
@pytest.mark.parametrize("value", [-1, -(10**9), 2**63, 10**30, True, 1.5, "1", None, [1]])
def test_a_number_that_counts_nothing_is_unreadable(name, value):
    with pytest.raises(codec.UnreadableMessage, match=f"option {name} is"):
        read(options={name: value})


@pytest.mark.parametrize("name", codec.NUMBERS)
@pytest.mark.parametrize("value", [1, 7, 2**31 - 2])
def test_other_numbers_are_read(name, value):
    assert read(options={name: value}).options == {name: value}


@pytest.mark.parametrize(("enqueued_at", "said"), [(NOW_MS, b'{"enqueued_at":0}'), (NOW_MS + 2, b"1800000000002")])
def test_a_body_says_once_when_a_message_was_made_and_enqueued(enqueued_at, said):
    options = {"enqueued_at": enqueued_at}
    message: Message[Any] = Message("work", "audit", (), {}, options, "an-id", NOW_MS)

    body = codec.encode(message)

    assert said in body
    assert options == {"enqueued_at": enqueued_at}
    assert codec.decode(body, message_id="an-id", lane="work") == message


@pytest.mark.parametrize("id_", ["", "x" * 201, "two\nlines", "\x1b[2J", "#", "a:events", "a:progress", "events"])
def test_an_id_that_nobody_could_have_sent_is_unreadable(id_):
    with pytest.raises(codec.UnreadableMessage, match="its id is not an id"):
        codec.decode(b'{"actor":"audit","sent_at":1}', message_id=id_, lane="work")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        *(({"sent_at": sent_at}, "sent_at") for sent_at in (-1, 10**30)),
        ({"options": {"attempts": 2**31 - 1}}, "out of range: 0 to 2147483646"),
    ],
)
def test_a_time_that_no_clock_shows_and_more_attempts_than_a_letter_can_count_are_unreadable(sent, said):
    with pytest.raises(codec.UnreadableMessage, match=said):
        read(**sent)


def test_an_actor_of_a_name_that_would_fill_the_logs_is_unreadable():
    assert read(actor="a" * 256).actor_name == "a" * 256
    with pytest.raises(codec.UnreadableMessage, match="its actor's name has 300000 characters; at most 256 are read"):
        read(actor="a" * 300_000)


ROOT = Path(settings.BASE_DIR)
FOLDERS = ("switchyard", "middleware", "apps", "project")
# Modules that read pickles, or something as powerful, and those of dramatiq and django that do it for one.
FORBIDDEN = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"})
FORBIDDEN_NAMES = frozenset({"PickleEncoder", "PickleSerializer"})


def imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)  # importlib.import_module("pickle")
    return found


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_of_ours_imports_pickle(folder):
    sources = list((ROOT / folder).rglob("*.py"))

    offending = {path.name for path in sources if imported(path.read_text()) & (FORBIDDEN | FORBIDDEN_NAMES)}

    assert sources
    assert offending == set()


def test_messages_results_sessions_and_cache_use_json():
    assert not isinstance(get_encoder(), dramatiq.PickleEncoder)
    assert isinstance(RedisBackend(client=None).encoder, JSONEncoder | type(get_encoder()))
    assert settings.SESSION_SERIALIZER == "django.contrib.sessions.serializers.JSONSerializer"
    assert {cache["BACKEND"] for cache in settings.CACHES.values()} <= {
        "django.core.cache.backends.locmem.LocMemCache",  # of this process alone: nobody else writes it
        "django.core.cache.backends.dummy.DummyCache",
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_crafted_pickle_runs_nothing(tmp_path, protocol):
    canary = tmp_path / "canary"
    body = pickle.dumps(Canary(canary), protocol)

    with pytest.raises(UnreadablePayload):
        decode(body)
    with pytest.raises(codec.UnreadableMessage):
        codec.decode(body, message_id="1", lane="q")
    assert codec.decode(
        json.dumps({"actor": "a", "sent_at": 1, "args": [body.hex()]}).encode(), message_id="1", lane="q"
    ).args == (body.hex(),)

    assert not canary.exists()
    pickle.loads(body)
    assert canary.exists(), "the canary sings when it is unpickled"
