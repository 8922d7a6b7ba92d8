"""Every key of every script comes from ``KEYS``, also by way of locals and parameters."""

from __future__ import annotations

import re

import pytest

from switchyard.broker.redis.scripts import LUA, source
from tests.unit.broker.lua_keys import LuaKeys

SCRIPTS = sorted(
    str(path.relative_to(LUA).with_suffix("")) for path in LUA.rglob("*.lua") if path.parent.name != "include"
)
# The keys that this replaces are a few, unless all are asked for: each costs a reading of the script.
TRIED = [pytest.param(name, marks=[pytest.mark.long] if at % 5 else []) for at, name in enumerate(SCRIPTS)]
# The length of a key, and a part of it in another name, are no keys.
GIVEN = re.compile(r"(?<!#)\bKEYS\[[^\[\]]*\](?!, #KEYS)")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_of_a_script_is_given_to_it(name: str) -> None:
    assert list(LuaKeys(source(name)).stray()) == []


@pytest.mark.parametrize("name", TRIED)
def test_an_argument_in_place_of_any_key_of_a_script_is_noticed(name: str) -> None:
    text = re.sub(r"--[^\n]*", "", source(name))

    for key in GIVEN.finditer(text):
        changed = f"{text[: key.start()]}ARGV[1]{text[key.end() :]}"
        assert list(LuaKeys(changed).stray()) != [], changed
