"""Limits as page and command show them: what waits for what, since when, how long still; and acts on them.

Every function may raise ``switchyard.broker.errors.BrokerError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final

import dramatiq

from switchyard.audit.services import Who, act
from switchyard.broker.admin import limits as stored
from switchyard.broker.admin.limits import KeyPage, KeyState, LimitState, limit_of
from switchyard.broker.clock import datetime_of, now_ms, utc_now
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.queue.limits import MOST_AT_ONCE, Override
from switchyard.broker.shapes import shown_json
from switchyard.broker.stores.yard_facts import RUNS, Counts, actor_subject, percentile_ms
from switchyard.conf import declared_yard
from switchyard.console.formatting import duration, unusable_end
from switchyard.jobs.calls import read_json
from switchyard.jobs.queries import answering_families, families
from switchyard.middleware.rate_limits import UNIT_MS, rates_of
from switchyard.operations.past import day_of_all
from switchyard.operations.queries import yard_state
from switchyard.queues.services import LONGEST_REASON, family_of

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
