"""Every key of every script comes from ``KEYS``, also by way of locals and parameters."""

from __future__ import annotations

import re

import pytest

from switchyard.broker.redis.scripts import LUA, source
from tests.unit.broker.lua_keys import LuaKeys

SCRIPTS = sorted(
    str(path.relative_to(LUA).with_suffix("")) for path in LUA.rglob("*.lua") if path.parent.name != "include"
)
# The length of a key, and a part of it in another name, are no keys.
GIVEN = re.compile(r"(?<!#)\bKEYS\[[^\[\]]*\](?!, #KEYS)")
FOREIGN = {
    "a name of its own": 'redis.call("GET", "other")',
    "an argument": 'redis.call("GET", ARGV[1])',
    "a local": 'local key = ARGV[1]\nredis.call("GET", key)',
    "one of several locals": 'local key, other = KEYS[1], "other"\nredis.call("GET", other)',
    "one of two choices": 'local key = ARGV[1] == "" and KEYS[1] or ARGV[1]\nredis.call("GET", key)',
    "a later value": 'local key = KEYS[1]\nif ARGV[1] then key = ARGV[1] end\nredis.call("GET", key)',
    "a value of the next line": 'local key = KEYS[1]\n  or ARGV[1]\nredis.call("GET", key)',
    "an entry of a table": 'local keys = { KEYS[1], "other" }\nredis.call("GET", keys[2])',
    "an added entry": 'local keys = {}\nkeys[#keys + 1] = ARGV[1]\nredis.call("UNLINK", unpack(keys))',
    "an entry of a loop": 'for _, key in ipairs({ KEYS[1], ARGV[1] }) do\n  redis.call("GET", key)\nend',
    "a member": 'for _, key in ipairs(redis.call("HKEYS", KEYS[1])) do redis.call("GET", key) end',
    "a counter": 'for n, key in ipairs(KEYS) do redis.call("GET", n) end',
    "a parameter": 'local function read(key) return redis.call("GET", key) end\nread(KEYS[1])\nread(ARGV[1])',
    "a parameter in a pcall": 'local function read(key) redis.call("GET", key) end\npcall(read, ARGV[1])',
    "a key with another beginning": 'redis.call("GET", "a:" .. KEYS[1])',
    "a key with an end, without its family": 'redis.call("GET", ARGV[1] .. KEYS[1])',
    "a name beside an argument": 'local function beside(key) return string.sub(key, 1, -6) .. "x" end\n'
    'redis.call("GET", beside(ARGV[1]))',
    "a second key": 'redis.call("RENAME", KEYS[1], ARGV[1])',
    "a command whose keys are not known": 'redis.call("LMOVE", KEYS[1], ARGV[1])',
    "a call that is passed on": 'pcall(redis.call, "GET", ARGV[1])',
    "a search": 'redis.call("KEYS", "*")',
    "an unknown name": 'redis.call("GET", key)',
}
OURS = {
    "a key": 'redis.call(ARGV[1] and "LPUSH" or "RPUSH", KEYS[2 + 1], ARGV[1])',
    "a local": 'local other, key = ARGV[1], KEYS[1]\nredis.call("GET", key)',
    "a choice": 'local key = ARGV[1] == "" and KEYS[1] or KEYS[2]\nredis.call("GET", key)',
    "a table": 'local keys = {}\nfor n = 2, #KEYS do keys[#keys + 1] = KEYS[n] end\nredis.call("DEL", unpack(keys))',
    "a parameter": 'local function read(id, key) return redis.call("HGET", key, id) end\nread(ARGV[1], KEYS[1])',
    "a name beside a key": 'local function beside(key) return string.sub(key, 1, -6) .. "x" end\n'
    'redis.call("GET", beside(KEYS[1]))',
    "no key": 'redis.call("TIME")',
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_of_a_script_is_given_to_it(name: str) -> None:
    assert list(LuaKeys(source(name)).stray()) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_argument_in_place_of_any_key_of_a_script_is_noticed(name: str) -> None:
    text = re.sub(r"--[^\n]*", "", source(name))

    for key in GIVEN.finditer(text):
        changed = f"{text[: key.start()]}ARGV[1]{text[key.end() :]}"
        assert list(LuaKeys(changed).stray()) != [], changed


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_key_is_refused(text: str) -> None:
    assert list(LuaKeys(text).stray()) != []


@pytest.mark.parametrize("text", OURS.values(), ids=OURS)
def test_a_key_that_was_given_is_none(text: str) -> None:
    assert list(LuaKeys(text).stray()) == []
