"""The broker's Lua operations as the model test runs them: with a clock of its own, and with seeded defects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1
from unittest import mock

from switchyard.broker.redis.scripts import INCLUDE, LUA, Script

# No operation declares this key; it is in the hash slot of the family, where a cluster does not mind.
CLOCK_KEY = "{q}:model-clock"
CLOCK = f"""local function now_ms()
  return tonumber(redis.call("GET", "{CLOCK_KEY}"))
end
"""


CALLERS = ("queue.operations", "queue.administration", "stores.dead_lists", "queue.unroutable", "queue.limits")


class ChangeDoesNotApply(LookupError):
    """A change whose text is not in its script, or more than once: the script has changed since."""


@dataclass(frozen=True)
class Change:
    """One piece of a script that is replaced.

    Args:
        file: ``queue/ack`` or ``include/finish``.
    """

    file: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Return the file's text with the change.

        Raises:
            ChangeDoesNotApply: ``old`` is not there exactly once.
        """
        if text.count(self.old) != 1:
            raise ChangeDoesNotApply(
                f"switchyard/broker/lua/{self.file}.lua has {text.count(self.old)} times {self.old!r}"
            )
        return text.replace(self.old, self.new)


class Scripts:
    """Stands in for :func:`switchyard.broker.redis.scripts.script`, with the test's clock and with changes."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self._changes = changes
        self._known: dict[str, Script] = {}
        for change in changes:
            change.apply((LUA / f"{change.file}.lua").read_text())

    def __call__(self, name: str) -> Script:
        """Return an operation of ``switchyard/broker/lua/queue``."""
        if name not in self._known:
            self._known[name] = script_of(name, INCLUDE.sub(lambda match: self._include(match[1]), self._read(name)))
        return self._known[name]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the operations of a family call these scripts."""
        with ExitStack() as stack:
            for module in CALLERS:
                stack.enter_context(mock.patch(f"switchyard.broker.{module}.script", self))
            yield

    def _read(self, name: str, folder: str = "queue") -> str:
        text = (LUA / folder / f"{name}.lua").read_text()
        for change in self._changes:
            if change.file == f"{folder}/{name}":
                text = change.apply(text)
        return text

    def _include(self, name: str) -> str:
        return CLOCK if name == "now_ms" else self._read(name, "include")


def script_of(name: str, text: str) -> Script:
    """Return a text as an operation."""
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())
