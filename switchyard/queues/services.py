"""Operators' acts on a queue, and limits as page and command show them. Acts are written to the audit log first.

Every function may raise ``switchyard.broker.errors.BrokerError``. Pausing and resuming work without the database; their
rows are in the log then.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final

import dramatiq
from dramatiq.middleware import CurrentMessage

from switchyard.audit.services import LONGEST_REASON, Who, act
from switchyard.broker.admin import limits as stored
from switchyard.broker.admin.limits import KeyPage, KeyState, LimitState, limit_of
from switchyard.broker.admin.purge import Purge, PutBack, Relocated, purges, relocate, set_aside, undo
from switchyard.broker.clock import datetime_of, now_ms, utc_now
from switchyard.broker.errors import ActRefused, NotFound, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.broker.keys import LANES, Lane
from switchyard.broker.queue import administration
from switchyard.broker.queue.limits import MOST_AT_ONCE, Override
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import shown_json
from switchyard.broker.stores.yard_facts import RUNS, Counts, actor_subject, percentile_ms
from switchyard.conf import declared_yard
from switchyard.console.formatting import duration, unusable_end
from switchyard.jobs.calls import read_json
from switchyard.jobs.queries import answering_families, families
from switchyard.middleware.rate_limits import UNIT_MS, rates_of
from switchyard.operations.past import day_of_all
from switchyard.operations.queries import yard_state


class ForeignBroker(SwitchyardError):
    """The broker of this deployment has no such act."""

    def __init__(self, broker: str) -> None:
        super().__init__(f"a {broker} can neither be browsed nor paused; use the server's own tools")


LEFT_OUT = "Left out, because messages with their ids were sent since: {:,}."


def family_of(queue: str) -> QueueOperations:
    """Return the operations of a queue of the yard, or ``UnknownQueue``; also by the name of one of its lanes.

    Raises:
        ForeignBroker: the broker is not Switchyard's own.
    """
    name = declared_yard().queue_of(queue).name
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        raise ForeignBroker(type(broker).__name__)
    return broker.lane(name)[0]


def pause(queue: str, *, who: Who, reason: str = "", until: datetime | None = None) -> bool:
    """Pause a queue; ``False`` when it was paused already and stays as it was.

    Args:
        until: When it resumes by itself. With it, or with a reason, an earlier pause is changed.

    Raises:
        ActRefused: ``until`` is over by the server's clock.
    """
    family = family_of(queue)
    until_ms = 0 if until is None else int(until.timestamp() * 1000)
    detail = {"until": until.isoformat()} if until is not None else {}
    with act("queue.pause", who=who, target=family.keys.queue, reason=reason, detail=detail, essential=False) as entry:
        try:
            changed = administration.pause(family, until_ms=until_ms, by=who.name, reason=reason[:LONGEST_REASON])
        except ValueError as error:
            raise unusable_end(until.isoformat() if until else "", str(error)) from error
        entry.count = int(changed)
        return changed


def pause_queue(until: datetime, reason: str) -> bool:
    """Pause the queue of the job that calls this, retries included, until a time; see :func:`pause`.

    The job itself runs on. Raises ``LookupError`` outside of a worker.
    """
    message = CurrentMessage.get_current_message()
    if message is None:
        raise LookupError("pause_queue: no job runs here; call it in an actor, or pause(queue, who=...)")
    return pause(message.queue_name, who=Who(f"job {message.message_id}", "command"), reason=reason, until=until)


def resume(queue: str, *, who: Who, reason: str = "") -> bool:
    """Resume a queue; ``False`` when it was not paused."""
    family = family_of(queue)
    with act("queue.resume", who=who, target=family.keys.queue, reason=reason, essential=False) as entry:
        changed = administration.resume(family)
        entry.count = int(changed)
        return changed


def purge(queue: str, *, who: Who, reason: str = "") -> Purge | None:
    """Set aside every message of a queue that waits or is scheduled, its retries included; ``None`` for nothing.

    The leading scheduler drops them for good after a minute; until then :func:`undo_purge` puts them back. Jobs that
    run and dead letters are not touched.
    """
    family = family_of(queue)
    id_ = secrets.token_hex(6)
    with act("queue.purge", who=who, target=family.keys.queue, reason=reason, detail={"purge": id_}) as entry:
        entry.count = set_aside(family, id_, by=who.name, reason=reason[:LONGEST_REASON])
        return next((found for found in purges(family) if found.id == id_), None)


def undo_purge(queue: str, purge_id: str, *, who: Who) -> PutBack:
    """Put back what a purge set aside, before what was sent since; leave out what was sent again with the same id.

    Raises:
        ActRefused: the messages are dropped, or being dropped.
    """
    family = family_of(queue)
    detail = {"purge": purge_id}
    with act("queue.purge_undo", who=who, target=family.keys.queue, detail=detail) as entry:
        entry.count = 0
        try:
            undone = undo(family, purge_id)
        except LookupError as error:
            fact = "its messages cannot be put back; a purge can be undone for a minute"
            raise ActRefused(str(error), fact) from error
        entry.count = undone.put_back
        if undone.left_out:
            entry.detail = {**detail, "left_out": undone.left_out}
        return undone


def relocate_actor(
    actor: str, source: str, target: str, *, who: Who, reason: str = ""
) -> Iterator[tuple[Lane, Relocated]]:
    """Move an actor's waiting messages to another queue; yield lane and progress after each batch.

    Its new messages go there only when its ``queue_name`` says so.

    Raises:
        ActRefused: both queues are one.
    """
    old, new = family_of(source), family_of(target)
    if old.keys.queue == new.keys.queue:
        raise ActRefused("relocate", f"{source!r} is both the old and the new queue; name another", by_argument=True)
    detail = {"actor": actor, "to": new.keys.queue}
    queues = old.keys.queue, new.keys.queue
    with act("queue.relocate", who=who, target=queues[0], reason=reason, detail=detail, queues=queues) as entry:
        entry.count = 0
        for lane in LANES:
            moved = entry.count
            for step in relocate(old, new, actor=actor, lane=lane):
                entry.count = moved + step.moved
                yield lane, step


PAGE: Final = 50
UNITS: Final = {ms: unit for unit, ms in UNIT_MS.items()}
# Reserved starts that a larger rate brings forward; those after them reserve anew at their time.
BROUGHT_FORWARD: Final = 1_000
CHANGEABLE: Final = ("concurrency", "rate_limit")


@dataclass(frozen=True, slots=True)
class CircuitState:
    """A circuit in a queue, ``closed``, ``open`` or ``half_open``; an open one of a value, in JSON, for itself.

    ``probe`` is the job that probes it, "*" for the next one, ``times`` how often it opened without a success between.
    """

    queue: str
    dependency: str
    argument: str
    actors: list[str]
    state: str = "closed"
    value: str = ""
    opened_at: datetime | None = None
    times: int = 0
    next_probe_at: datetime | None = None
    probe: str = ""
    waiting: int = 0
    by: str = ""
    reason: str = ""


def text_of(state: LimitState) -> str:
    """Return a limit as its option says it: ``5 per customer_id``, ``10/m``, ``by order_id``."""
    if state.kind not in CHANGEABLE:
        return f"by {state.argument}"
    rate = f"/{UNITS[state.window_ms]}" if state.window_ms else ""
    return f"{state.declared:,}{rate}{f' per {state.argument}' if state.argument else ''}"


def still_text(one: LimitState | KeyState) -> str:
    """Return how long the last one that waits will, as a range; "" where nobody knows, or none does."""
    if one.earliest is None or one.latest is None:
        return ""
    low, high = (duration(max((at - utc_now()).total_seconds(), 0) * 1_000) for at in (one.earliest, one.latest))
    return high if low == high else f"{low} to {high}"


def limits_now(*, arguments: bool) -> tuple[list[LimitState], list[CircuitState]]:
    """Return all limits and circuits with what waits for them, in a number of server calls independent of their keys.

    The values of open circuits are arguments, which a reader may have no right to view.
    """
    runs = day_of_all(facilities().facts.server_ms())
    found = [each if each.argument else replace(each, **_still(each, each, runs)) for each in states()]
    return found, _circuits(arguments=arguments)


def states() -> list[LimitState]:
    """Return every limit: those that workers have declared, and the rates of actors that this process knows."""
    found = stored.limit_states(answering_families())
    yard, rates = declared_yard(), []
    for actor in dramatiq.get_broker().actors.values():
        queue = yard.queue_of(actor.queue_name).name
        for rate in rates_of(actor.options.get("rate_limit") or ()):
            about = actor.actor_name, rate.argument, rate.limit, rate.window_ms, rate.suffix
            rates.append(limit_of(queue, "rate_limit", *about))
    if rates:
        records = facilities().records
        found += stored.rate_states(records.calls, records.keys, rates)
    places = {queue.name: at for at, queue in enumerate(yard.queues)}
    return sorted(found, key=lambda each: (places[each.queue], each.actor, each.kind, each.argument))


def find(limit_id: str) -> LimitState:
    """Return a limit by its id. Raises ``NotFound``."""
    found = next((state for state in states() if state.id == limit_id), None)
    if found is None:
        raise NotFound(f"limit {limit_id!r:.200} is not declared; write one that the list of limits has")
    return found


def keys_of(state: LimitState, *, value: str = "", after: str = "") -> KeyPage:
    """Return a page of a limit's keys from a value on, JSON or text; and on the first page the largest.

    Raises:
        ActRefused: no index is kept of the values of a rate.
    """
    if state.kind == "rate_limit":
        raise ActRefused(state.id, "no index is kept of the values of a rate; see the jobs that wait")
    runs = day_of_all(facilities().facts.server_ms())
    first = shown_json(_parsed(value)).replace("/", "\\/") if value else ""  # as Lua writes it
    page = stored.key_page(family_of(state.queue), state, first=first, after=after, count=PAGE)
    keys, largest = ([replace(one, **_still(state, one, runs)) for one in rows] for rows in (page.keys, page.largest))
    return KeyPage(keys, largest, page.after)


def _parsed(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return text


def as_text(value: str) -> str:
    """Return a value as the list of jobs compares it: a text without its quotes."""
    read = _parsed(value)
    return read if isinstance(read, str) else value


def _still(state: LimitState, one: LimitState | KeyState, runs: Mapping[str, Counts]) -> dict[str, Any]:
    """Return when the last one that waits starts: after so many runs, of their median and of their 95th percentile."""
    if not one.waiting or state.kind not in ("concurrency", "order"):
        return {}
    counts = runs.get(actor_subject(state.actor), {})
    usual, most = (percentile_ms(counts, RUNS, share) for share in (0.5, 0.95))
    if usual is None or most is None:
        return {}
    rounds = ceil(one.waiting / max(state.current, 1))
    later = {"earliest": (rounds - 1) * usual, "latest": rounds * most}
    return {name: utc_now() + timedelta(milliseconds=ms) for name, ms in later.items()}


def _circuits(*, arguments: bool) -> list[CircuitState]:
    if not families():  # circuits have no effect on other brokers
        return []
    found: list[CircuitState] = []
    opened = {stats.queue: stats.circuits for stats in yard_state().queues}
    actors: dict[tuple[str, str, str], list[str]] = {}
    for actor in dramatiq.get_broker().actors.values():
        dependency, _, argument = (actor.options.get("depends_on") or "").partition(" per ")
        if dependency:
            of = declared_yard().queue_of(actor.queue_name).name, dependency, argument
            actors.setdefault(of, []).append(actor.actor_name)
    for (queue, dependency, argument), names in sorted(actors.items()):
        closed = CircuitState(queue, dependency, argument, sorted(names))
        its = [
            replace(
                closed,
                state="half_open" if pause.probe else "open",
                value=shown_json(pause.value) if argument and arguments else "",
                opened_at=datetime_of(pause.since),
                times=pause.times,
                next_probe_at=datetime_of(pause.until) if pause.until and not pause.probe else None,
                probe=pause.probe,
                waiting=each.waiting,
                by=pause.by,
                reason=pause.reason,
            )
            for each in opened.get(queue, ())
            for pause in [each.pause]
            if pause.dependency == dependency and pause.argument == argument
        ]
        found += its or [closed]
    return found


def override(limit_id: str, n: int | None, *, who: Who, until: datetime | None = None, reason: str = "") -> LimitState:
    """Let another number count for a limit until a time, by the server's clock; ``None`` ends that.

    Workers obey within two seconds; what runs goes on. Of a larger rate without argument the reserved starts are
    brought forward; other reserved starts keep their time.

    Raises:
        ActRefused: the limit is none of those that have a number, or the number or the time is unusable.
        NotFound: there is no such limit.
    """
    state, wanted = find(limit_id), None
    if state.kind not in CHANGEABLE:
        raise ActRefused(limit_id, "a sequence has one place, and a fair queue its weights in the topology")
    if n is not None:
        if not 0 < n <= MOST_AT_ONCE:
            raise ActRefused(f"limit of {n}", f"write 1 to {MOST_AT_ONCE:,}, or pause the actor", by_argument=True)
        if until is None:
            raise unusable_end("", "an override has an end")
        wanted = Override(n, int(until.timestamp() * 1_000), now_ms(), who.name, reason[:LONGEST_REASON])
    detail = {"n": n, "declared": state.declared, "until": until and until.isoformat()}
    with act(
        "limit.override", who=who, target=state.id, reason=reason, detail=detail, essential=False, queues=[state.queue]
    ):
        try:
            _write(state, wanted)
        except ValueError as error:
            raise unusable_end(until.isoformat() if until else "", str(error)) from error
    return find(limit_id)


def _write(state: LimitState, wanted: Override | None) -> None:
    if state.kind == "concurrency":
        stored.override_limit(family_of(state.queue), state.name, wanted)
        return
    found = facilities()
    calls, keys = found.records.calls, found.records.keys
    stored.override_rate(calls, keys, state.rate, wanted)
    if not state.argument and (state.declared if wanted is None else wanted.n) > state.current:
        for id_ in stored.forget_reserved(calls, keys, state.rate, most=BROUGHT_FORWARD):
            found.transport.due_now(state.queue, id_)
