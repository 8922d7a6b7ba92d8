from typing import Any

import dramatiq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard import payload
from switchyard.database import storable
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import readable

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
    shown = readable(message(options={"nested": [{name: "canary"}]}))

    assert "canary" not in str(shown)


def test_long_text_is_cut_with_its_length():
    shown = readable(message(options={"text": "x" * 5_000}))["options"]["text"]

    assert shown.endswith("… (5000 characters)")


def test_deep_nesting_ends():
    value: Any = "bottom"
    for _ in range(200):
        value = [value]

    assert "nested too deep" in str(readable(message(options={"value": value})))


def test_surrogates_and_nul_are_escaped():
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
