"""Load the Lua operations of ``broker/lua``: one file each, ``--@include name`` taken from ``lua/include``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import redis
from redis.commands.core import Script

LUA = Path(__file__).parent.parent / "lua"
INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Return a script's text with its includes, one level deep."""
    text = (LUA / f"{name}.lua").read_text()
    return INCLUDE.sub(lambda match: (LUA / "include" / f"{match[1]}.lua").read_text(), text)


def load(client: redis.Redis, name: str) -> Script:
    """Return a script bound to a client; the client sends its text again when the server has lost it."""
    return client.register_script(source(name))
