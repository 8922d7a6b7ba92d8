"""Limits of queue families as they stand, by limit and by key, and their overrides.

Every function may raise what :meth:`switchyard.broker.redis.calls.RedisCalls.call` raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import msgspec

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerRefused
from switchyard.broker.keys import Keys
from switchyard.broker.queue.limits import Override, override_of
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import note, number, utf8
from switchyard.broker.redis.scripts import script

# Members that are looked at for the largest keys: one with over a hundredth of them is found.
SAMPLES: Final = 100


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit of a queue, and what waits for it.

    Args:
        id: Name of it in addresses and commands.
        kind: ``concurrency``, ``order``, ``rate_limit`` or ``fair_share``, as the reason of what waits.
        argument: By whose value it counts; "" for none.
        declared: Places of each key, or starts in ``window_ms``; 0 of a fair queue.
        keys: Tenants that wait in a fair queue.
        taken: Places that are taken, of all keys, or starts in the last window.
        waiting: Messages that wait for it, or reserved a later start.
        since: Since when the next of them waits.
        earliest, latest: Between which times the last of them starts, if slots are free.
        current: The number that counts now: with ``until``, another one than the declared until then.

    ``None`` is not known.
    """

    id: str
    queue: str
    kind: str
    actor: str
    argument: str
    declared: int
    window_ms: int = 0
    keys: int | None = None
    taken: int | None = None
    waiting: int | None = None
    since: datetime | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    current: int = 0
    until: datetime | None = None
    by: str = ""
    reason: str = ""

    @property
    def rate(self) -> str:
        """Actor and argument, with a space between, and the suffix of a rate."""
        return f"{self.actor} {self.id.rpartition(':')[2]}".rstrip()

    @property
    def name(self) -> str:
        """Name of it in its queue's keys."""
        return f"{'o' if self.kind == 'order' else 'c'} {self.rate}"

    def overridden(self, found: Override | None) -> LimitState:
        """Return it with an override, or without."""
        if found is None:
            return replace(self, current=self.declared)
        return replace(self, current=found.n, until=datetime_of(found.until), by=found.by, reason=found.reason)


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key of a limit: one value of its argument, as JSON; of a long one the begin and a digest."""

    value: str
    taken: int
    waiting: int
    next_job: str = ""
    since: datetime | None = None
    earliest: datetime | None = None
    latest: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Keys of a limit by name, and the largest ones on the first page; ``after`` leads to the next, "" at the end."""

    keys: list[KeyState]
    largest: list[KeyState]
    after: str = ""


def limit_states(families: Sequence[QueueOperations]) -> list[LimitState]:
    """Return the limits that workers have declared in some families, those of rates excepted; one call for each."""
    found = []
    for family in families:
        k = family.keys
        keys = [k.limits, k.turns, k.waits, k.bodies, k.fair("live"), k.fair_lines("live")[1], k.due("live")]
        try:
            rows = family.calls.call(script("limit_counts"), keys, [])
        except BrokerRefused as error:  # a key of a wrong type
            note(k.limits, error)
            continue
        for kind, actor, argument, n, other, tenants, taken, waiting, since in rows:
            state = limit_of(k.queue, utf8(kind), utf8(actor), utf8(argument), number(n, k.limits))
            state = state.overridden(override_of(other or None, k.limits))
            counts = {"taken": taken, "waiting": waiting, "since": _moment(since)}
            found.append(replace(state, keys=None if tenants == b"" else tenants, **counts))
    return found


def limit_of(
    queue: str, kind: str, actor: str, argument: str, n: int, window_ms: int = 0, suffix: str = ""
) -> LimitState:
    """Return a limit of which nothing is counted; ``suffix`` as of a rate."""
    id_ = ":".join((queue, kind, actor, argument)) + suffix
    return LimitState(id_, queue, kind, actor, argument, n, window_ms)


def key_page(family: QueueOperations, state: LimitState, *, first: str = "", after: str = "", count: int) -> KeyPage:
    """Return a page of a limit's keys.

    Args:
        first: JSON of a value at which it begins.
        after: As the page before says.
    """
    k, fair = family.keys, state.kind == "fair_share"
    prefix = "" if fair else f"{state.name}=" if state.argument else state.name
    low, high = ("-", "+") if fair else (f"[{prefix}", f"({state.name}>" if state.argument else f"({prefix}\v")
    begin = f"({prefix}{after}\nx" if after else f"[{prefix}{first}" if first else low
    keys = [k.fair_lines("live")[0] if fair else k.turns, k.waits, k.bodies]
    arguments: list[Word] = [low, high, begin, count + 1, 0 if after or first else SAMPLES]
    named, members, *rows = family.calls.call(script("key_counts"), keys, arguments)
    found = [
        KeyState(utf8(key)[len(prefix) :], taken, waiting, utf8(next_), _moment(since))
        for key, taken, waiting, next_, since in rows
    ]
    page = found[: min(named, count)]
    largest = [each for each in found[named:] if (each.taken + each.waiting) * SAMPLES > members]
    largest.sort(key=lambda each: -each.waiting)
    return KeyPage(page, largest, page[-1].value if page and named > count else "")


def _moment(ms: bytes) -> datetime | None:
    return datetime_of(int(ms)) if ms else None


def override_limit(family: QueueOperations, limit: str, wanted: Override | None) -> None:
    """Let another number of messages of each key of a limit run at once, until a time; ``None`` as it is declared.

    Interrupted, it holds, and the places are passed on within seconds.

    Raises:
        ValueError: its ``until`` is over by the server's clock.
    """
    text, after = b"" if wanted is None else msgspec.json.encode(wanted), None
    while after is None or after:
        after = family.calls.call(script("override_limit"), [family.keys.limits], [limit, text, after or b""])
        if after == -1:
            raise ValueError("its end is over by the server's clock; give a later one")


def rate_states(calls: RedisCalls, keys: Keys, rates: Sequence[LimitState]) -> list[LimitState]:
    """Return limits of rates with their starts and reservations; those by argument have no index."""
    now = now_ms()
    reads: list[tuple[Word, ...]] = [("HGETALL", keys.rate_overrides())]
    for each in rates:
        window = keys.window(each.rate)
        reads += [("ZCOUNT", window, now - each.window_ms, now), ("ZCOUNT", window, f"({now}", "+inf")]
        reads.append(("ZRANGE", window, -1, -1, "WITHSCORES"))
    fields, *counts = calls.look(reads)
    overrides = {utf8(name): text for name, text in zip(fields[::2], fields[1::2], strict=True)}
    found = []
    for at, each in enumerate(rates):
        taken, waiting, last = counts[3 * at : 3 * at + 3]
        latest = datetime_of(int(float(last[1]))) if waiting else None
        known: dict[str, Any] = {"taken": taken, "waiting": waiting, "earliest": latest, "latest": latest}
        state = each.overridden(override_of(overrides.get(each.rate), keys.rate_overrides()))
        found.append(replace(state, **({} if each.argument else known)))
    return found


def override_rate(calls: RedisCalls, keys: Keys, rate: str, wanted: Override | None) -> None:
    """Let another number of messages start in a rate's window, until a time; ``None`` as it is declared.

    Workers obey within a second.
    """
    words = ("HDEL",) if wanted is None else ("HSET",)
    calls.command(*words, keys.rate_overrides(), rate, *([] if wanted is None else [msgspec.json.encode(wanted)]))


def forget_reserved(calls: RedisCalls, keys: Keys, rate: str, *, most: int) -> list[str]:
    """Drop the reserved starts of a rate; return up to ``most`` ids of their messages, the next ones first."""
    window, low = keys.window(rate), f"({now_ms()}"
    ids = calls.command("ZRANGEBYSCORE", window, low, "+inf", "LIMIT", 0, most)
    calls.command("ZREMRANGEBYSCORE", window, low, "+inf")
    return [utf8(id_) for id_ in ids]
