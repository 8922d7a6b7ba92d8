"""Payloads, bytes and tracebacks as the pages of letters and jobs show them."""

import json
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from switchyard import payload
from switchyard.broker.shapes import Unreadable
from switchyard.database import storable
from switchyard.dead_letters.presentation import marked, own_frame, short_paths, unreadable_summary
from switchyard.dead_letters.queries import hex_dump, shown_bytes
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import readable

INSIDE = f"{settings.BASE_DIR}/apps/shop/months.py"
PACKAGE = f"{settings.BASE_DIR}/.venv/lib/python3.11/site-packages/dramatiq/worker.py"
TRACEBACK = (
    "Traceback (most recent call last):\n"
    f'  File "{PACKAGE}", line 560, in process_message\n    res = actor(*message.args)\n'
    f'  File "{INSIDE}", line 29, in bounds\n    first = first_day(month)\n'
    f'  File "{INSIDE}", line 19, in first_day\n    raise ValueError(month)\n'
    f'  File "{PACKAGE}", line 9, in last\n    go()\n'
    "ValueError: no month\n"
)


@pytest.fixture
def hiding() -> None:
    """An actor that hides its second argument."""

    @dramatiq.actor(actor_name="hiding", redact=("key",))
    def hiding(number: int, key: str) -> None: ...


def quarantined(raw: bytes) -> Unreadable:
    return Unreadable("an id", "default", raw, len(raw), "it has an unknown option", 1)


@pytest.mark.usefixtures("hiding")
@pytest.mark.parametrize("given", [{"args": [7, "canary"]}, {"args": [7], "kwargs": {"key": "canary"}}])
def test_redacted_arguments_are_hidden_where_the_actor_is_known(given):
    item = quarantined(json.dumps({"actor": "hiding", "sent_at": 1, "options": {"new": 1}, **given}).encode())

    shown = json.loads(shown_bytes(item))

    assert "canary" not in str(shown) and "[redacted]" in str(shown)
    assert (shown["options"], shown["args"][0]) == ({"new": 1}, 7)
    assert b"canary" not in bytes.fromhex(unreadable_summary(item)["raw_hex"])


@pytest.mark.usefixtures("hiding")
@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\xff", b"[1]", b"7", b'{"actor":["hiding"]}', b'{"actor":"nobody","args":["a"]}'),
        *(b'{ "actor":"hiding", "args":7}', b'{ "actor":"hiding", "args":[7]}', b"[" * 3_000),
    ],
)
def test_other_bytes_are_shown_as_they_came(raw):
    assert shown_bytes(quarantined(raw)) == raw


def test_bytes_are_shown_by_offset_with_printable_text_only():
    lines = hex_dump(b"<b>\x1b[31m\x00\xff" + bytes(10)).splitlines()

    assert lines[0] == "000000  3c 62 3e 1b 5b 33 31 6d 00 ff 00 00 00 00 00 00  <b>.[31m........"
    assert lines[1].startswith("000010  00 00 00 00")


def test_innermost_frame_of_the_project_is_marked_with_its_source_line_and_none_without_one():
    shown = marked(TRACEBACK)

    assert [line for line, is_own in shown if is_own] == [
        '  File "apps/shop/months.py", line 19, in first_day',
        "    raise ValueError(month)",
    ]
    assert (len(shown), own_frame(TRACEBACK)) == (len(TRACEBACK.splitlines()), "apps/shop/months.py:19 first_day")

    foreign = f'Traceback\n  File "{PACKAGE}", line 9, in last\n    go()\nKeyError: 1\n'

    assert not any(is_own for _, is_own in marked(foreign))
    assert own_frame(foreign) == own_frame("") == ""


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"{settings.BASE_DIR}/apps/reports/actors.py", "apps/reports/actors.py"),
        (f"{settings.BASE_DIR}/.venv/lib/python3.11/site-packages/dramatiq/worker.py", "dramatiq/worker.py"),
        ("/usr/lib/python3.12/json/decoder.py", "json/decoder.py"),
        ("/srv/elsewhere/plugin.py", "/srv/elsewhere/plugin.py"),
    ],
)
def test_files_are_named_from_the_project_or_their_package(path, shown):
    frame = f'  File "{path}", line 3, in run\n    go()\n'

    assert short_paths(frame) == f'  File "{shown}", line 3, in run\n    go()\n'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def message(**changes: Any) -> dict[str, Any]:
    return {"actor_name": "no_such_actor", "args": [], "kwargs": {}, "options": {}, **changes}


@given(JSON)
def test_whatever_comes_is_a_value_that_postgresql_takes(value):
    shown = str(payload.json_value(value))

    shown.encode("utf-8")
    assert "\x00" not in shown
    assert not any(isinstance(part, float) and part != part for part in [payload.json_value(value)])


@pytest.mark.parametrize("name", ["password", "api_key", "AuthToken", "client_secret", "Authorization"])
def test_what_is_named_like_a_secret_is_hidden_in_options_too(name):
    assert "canary" not in str(readable(message(options={"nested": [{name: "canary"}]})))


def test_long_text_is_cut_with_its_length_deep_nesting_ends_and_surrogates_and_nul_are_escaped():
    assert readable(message(options={"text": "x" * 5_000}))["options"]["text"].endswith("… (5000 characters)")

    value: Any = "bottom"
    for _ in range(200):
        value = [value]

    assert "nested too deep" in str(readable(message(options={"value": value})))
    assert storable("a\x00\udcff") == "a\\x00\\udcff"


def test_arguments_behind_the_named_ones_are_all_shown_and_all_hidden():
    def take(first: int, *more: int, last: int = 0, **extra: int) -> None: ...

    broker = dramatiq.get_broker()
    fields = {"actor_name": "take", "args": [1, 2, 3], "kwargs": {"last": 4, "other": 5}, "options": {}}
    try:
        dramatiq.actor(actor_name="take")(take)
        plain = readable(fields)["arguments"]
        broker.actors["take"].options["redact"] = ("more", "extra")
        hidden = readable(fields)["arguments"]
    finally:
        broker.actors.pop("take", None)

    assert plain == {"first": 1, "more": 2, "argument 3": 3, "last": 4, "other": 5}
    assert hidden == {"first": 1, "more": HIDDEN, "argument 3": HIDDEN, "last": 4, "other": HIDDEN}
