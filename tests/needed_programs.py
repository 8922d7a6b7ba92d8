"""Programs that a test starts, found by its fixtures: ``bin/test --without NAME`` leaves out the tests that need one.

``TEST_WITHOUT`` names the programs, parted by spaces. The marker ``needs`` says it where code cannot: on a parameter of
a fixture that starts another server for each, or, without names, on a test that starts none of those that it mentions.
"""

import os
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

WITHOUT = frozenset(os.environ.get("TEST_WITHOUT", "").split())
REDIS = "redis-server"


def is_left_out(item: pytest.Item) -> bool:
    """Whether a test needs a program that this run is to do without."""
    return bool(WITHOUT) and not WITHOUT.isdisjoint(needed(item))


def needed(item: pytest.Item) -> set[str]:
    """Return the names of the programs, of Redis alone, that a test or one of its fixtures starts."""
    if marks := list(item.iter_markers("needs")):
        return {name for mark in marks for name in mark.args} | _started(item, whole=all(mark.args for mark in marks))
    return _started(item)


def _started(item: Any, *, whole: bool = True) -> set[str]:
    if not whole or not hasattr(item, "function"):
        return set()
    fixtures = [found[-1].func for found in item._fixtureinfo.name2fixturedefs.values()]
    codes = [code for function in (item.function, *fixtures) for code in _codes(function)]
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    found = set()
    if REDIS in given or any("server_binary" in code.co_names and REDIS in code.co_consts for code in codes):
        found.add(REDIS)
    return found


def _codes(function: Any) -> Iterator[CodeType]:
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    pending = [code] if code else []
    while pending:
        one = pending.pop()
        yield one
        pending += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
