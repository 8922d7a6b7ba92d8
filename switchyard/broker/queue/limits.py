"""Limits of a queue family's actors, of what runs at once and by circuits, which the scripts of fetch and note enforce.

An open circuit is a pause of its actors. A key is an actor, or an actor with the value of an argument. Functions that
ask the server may raise what :meth:`switchyard.broker.redis.calls.RedisCalls.call` raises.
"""

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1, sha256
from typing import Any, Final

import msgspec
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.broker.clock import FAIR_MS, LAST_PUT_OFF_MS, now_ms
from switchyard.broker.errors import QueueFull
from switchyard.broker.keys import ALL_LANES
from switchyard.broker.queue import administration
from switchyard.broker.queue.arguments import callee_of
from switchyard.broker.queue.operations import ACTOR_PAUSE, AT_ONCE, QueueOperations
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.own_keys import read, utf8
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import CIRCUIT, Whole, field_of, shown_json
from switchyard.broker.topology import Dependency, FairShare


class Override(msgspec.Struct, frozen=True):
    """Another number for a limit until a time; times in ms since the epoch by the server's clock."""

    n: Whole
    until: Whole
    since: Whole = 0
    by: str = ""
    reason: str = ""


_OVERRIDE: Final = msgspec.json.Decoder(Override)


def override_of(text: bytes | None, key: str) -> Override | None:
    """Return the override that a key holds, ``None`` for none that is in force."""
    found = None if text is None else read(_OVERRIDE, text, key)
    return found if found is not None and found.until > now_ms() else None


PER: Final = re.compile(r"([1-9][0-9]{0,8}) per ([A-Za-z_][A-Za-z0-9_]*)")
MOST_AT_ONCE: Final = 999_999_999


class Limit(msgspec.Struct, frozen=True):
    """At most ``n`` messages of an actor at once; with an argument, of each of its values.

    Args:
        ordered: Its messages start in their sequence, the next one when the one before it has ended.
    """

    n: int
    argument: str = ""
    ordered: bool = False


class LimitWait(msgspec.Struct, frozen=True):
    """The limit that a message waits for.

    Args:
        key: The actor, with the value of an argument if that is part of the key: ``sync customer_id=7``.
        n: Messages of the key that may run at once.
        ordered: It waits for those of its key that were sent before it.
        since_ms: When it began to wait, ms since the epoch.
        taken: Messages that have a place of the key.
        before: Messages that get the next places before it.
    """

    key: str
    n: int
    ordered: bool
    since_ms: int
    taken: int
    before: int


def limits_of(options: Mapping[str, Any]) -> list[Limit]:
    """Return the limits of an actor's ``concurrency`` and ``ordered_by``; one that keeps a sequence comes first.

    Raises:
        ValueError: an option has another form; its text says how to write one.
    """
    found = []
    if (argument := options.get("ordered_by")) is not None:
        if not isinstance(argument, str) or not argument.isidentifier():
            raise ValueError('write the name of an argument, such as "customer_id"')
        found.append(Limit(1, argument, ordered=True))
    written = options.get("concurrency")
    for each in written if isinstance(written, list | tuple) else [] if written is None else [written]:
        found.append(_read(each))
    return found


def _read(written: Any) -> Limit:
    if type(written) is int and 0 < written <= MOST_AT_ONCE:
        return Limit(written)
    if isinstance(written, str) and (found := PER.fullmatch(written)):
        return Limit(int(found[1]), found[2])
    raise ValueError('write a number such as 5, or "5 per customer_id", or a list of them')


def _stored(actor: Actor[..., Any]) -> bytes:
    """Return an actor's limits as the queue keeps them, empty for none."""
    limits = limits_of(actor.options)
    return msgspec.json.encode([_fields(limit, actor) for limit in limits]) if limits else b""


def _fields(limit: Limit, actor: Actor[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"n": limit.n} | ({"ordered": True} if limit.ordered else {})
    if not limit.argument:
        return found
    parameters = inspect.signature(callee_of(actor.fn)).parameters.values()
    found["argument"] = limit.argument
    if place := position_of(actor, limit.argument):
        found["position"] = place
    default = next((each.default for each in parameters if each.name == limit.argument), None)
    if isinstance(default, str | bool | int):
        found["default"] = default
    return found


def position_of(actor: Actor[..., Any], argument: str) -> int:
    """Return the place of an argument in calls without names, from 1; 0 where it has none."""
    parameters = inspect.signature(callee_of(actor.fn)).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return names.index(argument) + 1 if argument in names else 0


def declare(family: QueueOperations, actors: Iterable[Actor[..., Any]]) -> None:
    """Write the limits of a queue's actors where they differ from those that it has."""
    wanted = {actor.actor_name: _stored(actor) for actor in actors}
    [fields] = family.calls.look([("HGETALL", family.keys.limits)])
    kept = {utf8(name): text for name, text in zip(fields[::2], fields[1::2], strict=True)}
    changed = {name: text for name, text in wanted.items() if text != kept.get(name, b"")}
    if not changed:
        return
    words: list[Word] = [word for pair in changed.items() for word in pair]
    for lane in ALL_LANES:
        keys = [family.keys.limits, family.keys.due(lane), family.keys.wakeup(lane)]
        after: Word = "-inf"
        while after:
            after = family.calls.call(script("declare_limits"), keys, [AT_ONCE, after, *words])


def declare_fair(family: QueueOperations, share: FairShare | None, actors: Iterable[Actor[..., Any]]) -> None:
    """Have a queue's live lane serve the values of an argument in turn, or none."""
    text = b""
    if share is not None:
        places = {actor.actor_name: position_of(actor, share.argument) for actor in actors}
        positions = {name: place for name, place in sorted(places.items()) if place}
        weights = {shown_json(value): weight for value, weight in share.weights.items()}
        text = msgspec.json.encode({"argument": share.argument, "positions": positions, "weights": weights})
    key = family.keys.fair("live")
    # Messages stand in a line that is not declared where a call that was to make them due was interrupted.
    in_line = ("ZCOUNT", family.keys.due("live"), FAIR_MS, f"({LAST_PUT_OFF_MS}")
    before, left = family.calls.look([("GET", key), in_line])
    if (before or b"") == text and (text or not left):
        return
    lines, shares, spent = family.keys.fair_lines("live")
    keys = [key, family.keys.due("live"), family.keys.wakeup("live"), lines, shares, spent]
    while family.calls.call(script("declare_fair"), keys, [AT_ONCE, text]):
        pass


def require_places_in_line(
    family: QueueOperations, share: FairShare, messages: Sequence[Message[Any]], actors: Mapping[str, Actor[..., Any]]
) -> None:
    """Raise ``QueueFull`` where a tenant of these messages would have more in its line than its share allows."""
    places = {
        name: position_of(actors[name], share.argument) for name in {each.actor_name for each in messages} & {*actors}
    }
    counts = Counter(_tenant_of(each, share.argument, places.get(each.actor_name, 0)) for each in messages)
    line = family.keys.fair_lines("live")[0]
    waiting = family.calls.pipeline([("ZLEXCOUNT", line, b"[%b\n" % tenant, b"(%b\v" % tenant) for tenant in counts])
    for new, there in zip(counts.values(), waiting, strict=True):
        if there + new > (most := share.max_depth or 0):
            raise QueueFull(family.keys.queue, there, most, of=f" with the same {share.argument}")


def _tenant_of(message: Message[Any], argument: str, place: int) -> bytes:
    """Return a message's tenant as the script that lines it up writes it, cut in the middle of a character too."""
    by_place = message.args[place - 1] if 0 < place <= len(message.args) else None
    text = shown_json(message.kwargs.get(argument, by_place)).replace("/", "\\/").encode()
    return text if len(text) <= 120 else b"%b %b" % (text[:60], sha1(text, usedforsecurity=False).hexdigest().encode())


_WAIT: Final = re.compile(r"(\d+) ([123]) (\d+) (\d+) [^\s:]+(?::(\d*)\S+)?((?:\n\d+ [^\n]+)+)")


def wait_of(family: QueueOperations, message_id: str) -> LimitWait | None:
    """Return the limit that a message waits for; ``None`` when it waits for none."""
    text = family.calls.command("HGET", family.keys.waits, message_id)
    found = _WAIT.fullmatch(utf8(text or b""))
    keys = found[6].split("\n")[1:] if found else []
    if found is None or not 0 < (at := int(found[4])) <= len(keys):
        return None
    n, _, key = keys[at - 1].partition(" ")
    ordered = key.startswith("o ")
    tag = f"{found[5]:0>15}" if found[5] else ""
    mine = f"{key}\nw{2 if ordered else found[2]}{tag}{int(found[1]):015}"
    reads: list[tuple[Word, ...]] = [
        ("ZLEXCOUNT", family.keys.turns, f"[{key}\nh", f"({key}\ni"),
        ("ZLEXCOUNT", family.keys.turns, f"[{key}\nw", f"({mine}"),
        ("HGET", family.keys.limits, "\n" + key.partition("=")[0]),
    ]
    taken, before, text = family.calls.look(reads)
    other = override_of(text, family.keys.limits)
    return LimitWait(key[2:], other.n if other else int(n), ordered, int(found[3]), taken, before)


class Circuit(msgspec.Struct, frozen=True):
    """The breaker of a dependency, or of one value of an argument, in a queue. ``calls`` as of :class:`ActorPause`.

    Args:
        lease_ms: Time after which a probe that has not ended is replaced.
    """

    dependency: Dependency
    lease_ms: int
    calls: Mapping[str, int]
    argument: str = ""
    value: Any = None

    @property
    def field(self) -> str:
        """Name by which a queue family keeps it."""
        return field_of(CIRCUIT + self.dependency.name, self.argument, self.value)

    @property
    def digest(self) -> str:
        """Name of its key: a value may be long."""
        return sha256(self.field.encode()).hexdigest()[:16]


# So long two releases may run side by side, of which one still declares a dependency.
DEPLOY_MS: Final = 600_000


def resume_over(family: QueueOperations, actors: Iterable[Actor[..., Any]]) -> None:
    """Make due what pauses that are over had put off, and let open circuits have their probes.

    A circuit that stops an actor which does not declare it any more is closed: nothing would count how its probes end.
    One that has opened in the last 10 minutes stays: workers of another release may declare it.
    """
    specs = {each.actor_name: each.options.get("depends_on") for each in actors}
    for text in family.calls.command("HVALS", family.keys.actor_pauses):
        one = read(ACTOR_PAUSE, text, family.keys.actor_pauses)
        if one is not None and one.is_open and one.since < now_ms() - DEPLOY_MS:
            spec = one.dependency + (f" per {one.argument}" if one.argument else "")
            if any(specs.get(actor) != spec for actor in one.calls or ()):
                administration.resume_actor(family, one.field)
    administration.resume_actor(family)


# Some are left for people's pauses.
MOST_OPEN_CIRCUITS: Final = 80


def note_circuit(
    family: QueueOperations, circuit: Circuit, message_id: str, outcome: str, *, until_ms: int = 0, reason: str = "",
    by: str = "",
) -> str:  # fmt: skip
    """Count a call of a dependency by a message: ``ok``, ``failed``, or ``other`` for an attempt that does not count.

    Args:
        until_ms: Open the circuit until then, ms since the epoch, whatever was counted; 0 for no.
        by: The person who opens it.

    Returns:
        ``closed``; ``opened`` by this call; ``probed``: the message was the probe, and failed; ``open``: it was not the
        probe, and failed. With 80 open circuits in the queue no other one opens.
    """
    k, declared = family.keys, circuit.dependency
    stored: dict[str, Any] = {"actor": CIRCUIT + declared.name, "calls": circuit.calls, "lease_ms": circuit.lease_ms}
    if circuit.argument:
        stored |= {"argument": circuit.argument, "value": circuit.value}
    rest = msgspec.json.encode(stored | {"by": by, "reason": reason})
    keys = [k.actor_pauses, k.circuit(circuit.digest), k.token, *map(k.wakeup, ALL_LANES)]
    numbers: list[Word] = [str(declared.failures), declared.least, declared.window_ms, declared.open_ms]
    numbers += [declared.longest_open_ms, declared.probes, until_ms, MOST_OPEN_CIRCUITS]
    answer = family.calls.call(script("circuit_note"), keys, [circuit.field, message_id, outcome, *numbers, rest])
    return str(answer, "ascii")
