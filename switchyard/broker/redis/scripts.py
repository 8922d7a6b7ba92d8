"""Lua operations (``switchyard/broker/lua``): one file each, ``--@include name`` expanded from ``lua/include``."""

import re
from functools import cache
from hashlib import sha1
from pathlib import Path

import msgspec

LUA = Path(__file__).parent.parent / "lua"
INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)


class Script(msgspec.Struct, frozen=True):
    """A Lua operation: its name, text and SHA-1."""

    name: str
    text: str
    sha: str


@cache
def script(name: str, *, folder: str = "queue/") -> Script:
    """Return the operation in ``switchyard/broker/lua/<folder><name>.lua``; an add-on gives a whole path."""
    text = source(folder + name)
    return Script(name.rpartition("/")[2], text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def source(name: str) -> str:
    """Return a script's text with its includes, one level deep."""
    path = LUA / f"{name}.lua"
    text = _texts().get(path) or path.read_text()
    return INCLUDE.sub(lambda match: _texts()[LUA / "include" / f"{match[1]}.lua"], text)


@cache
def _texts() -> dict[Path, str]:
    """Read all at the first use: a process that a task has left no file descriptor must still return its messages."""
    return {path: path.read_text() for path in LUA.rglob("*.lua")}
