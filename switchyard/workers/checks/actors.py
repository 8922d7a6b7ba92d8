"""Mistakes in the declared yard and in actors. Each check in ``CHECKS`` looks at one actor; the others at a yard."""

import difflib
import inspect
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import msgspec
from django.core.checks import CheckMessage, Error, Warning
from dramatiq.actor import Actor
from dramatiq.broker import Broker

from switchyard.broker.queue.arguments import argument_types
from switchyard.broker.topology import ALONE_SUFFIX, DEAD_SUFFIX, RETRY_SUFFIX, WIDEST_CLASS, Queue, Yard, is_duration
from switchyard.console.formatting import retries_text
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.errors import place_of
from switchyard.middleware.retries import RETRY_DELAYS, span_of
from switchyard.middleware.time_limits import TimeLimits
from switchyard.middleware.unique_keys import POLICIES

LEAST_LIMIT_MS = 1_000  # threads are interrupted within a quarter of a second, so nobody needs a shorter limit


class DeclaredActor(msgspec.Struct, frozen=True):
    """An actor with what it is compared with; no queue where the yard does not declare it."""

    actor: Actor[Any, Any]
    queue: Queue | None
    yard: Yard
    broker: Broker

    @property
    def time_limit_ms(self) -> float | None:
        """Time limit of the actor, else of its queue; ``None`` for a value that is no duration."""
        limit = self.actor.options.get("time_limit", self.queue and self.queue.soft_limit_ms)
        return limit if is_duration(limit) else None

    @property
    def subject(self) -> str:
        """The actor and its place."""
        return f"actor {self.actor.actor_name} ({place_of(self.actor.fn)})"


def undeclared_queue(each: DeclaredActor) -> Iterator[CheckMessage]:
    """E001: an actor on a queue that the yard does not declare, or straight on a retry lane."""
    name, yard = each.actor.queue_name, each.yard
    if each.queue is not None or name in {queue.dead_list for queue in yard.queues}:
        return
    hint = f"Use one of {', '.join(queue.name for queue in yard.queues)}, or declare the queue in {TOPOLOGY}."
    if name in yard.lanes:
        hint = f"Use queue_name={yard.queue_of(name).name!r}; only retries go to the retry lane."
    yield Error(f"runs on queue {name!r}, which the yard does not declare", hint, each.subject, "switchyard.E001")


def missing_time_limit(each: DeclaredActor) -> Iterator[CheckMessage]:
    """E002: an actor that may run for ever."""
    if each.queue is None:
        return
    if "time_limit" not in each.broker.actor_options:
        fact = "no middleware of the broker enforces time limits"
        yield Error(fact, "Add TimeLimits to the middleware in switchyard/wiring.py.", each.subject, "switchyard.E002")
    elif each.time_limit_ms is None:
        fact = f"its time_limit is {each.actor.options.get('time_limit')!r}, so it may run for ever"
        own = f"the {each.queue.soft_limit_ms} ms of queue {each.queue.name}"
        hint = f"Remove time_limit to inherit {own}, or set milliseconds above 0."
        yield Error(fact, hint, each.subject, "switchyard.E002")


def limit_over_the_hard_limit(each: DeclaredActor) -> Iterator[CheckMessage]:
    """E003: an actor whose time limit is not below its queue's hard limit, so that its child is killed first."""
    if each.queue is None or (limit := each.time_limit_ms) is None or limit < (hard := each.queue.hard_limit_ms):
        return
    fact = f"its time_limit is {limit:.15g} ms, the hard limit of queue {each.queue.name} is {hard} ms"
    hint = f"Lower time_limit below {hard}, split the work, or raise hard_limit_ms in {TOPOLOGY}."
    yield Error(fact, hint, each.subject, "switchyard.E003")


def consumed_dead_list(each: DeclaredActor) -> Iterator[CheckMessage]:
    """E011: an actor that runs on a dead list."""
    for queue in each.yard.queues:
        if queue.dead_list == each.actor.queue_name:
            fact = f"runs on {queue.dead_list!r}, the dead list of queue {queue.name}"
            hint = f"Use queue_name={queue.name!r}; messages come to the dead list by themselves."
            yield Error(fact, hint, each.subject, "switchyard.E011")


def unknown_callbacks(each: DeclaredActor) -> Iterator[CheckMessage]:
    """E022: an actor whose ``on_success``, ``on_failure`` or ``on_retry_exhausted`` names no actor."""
    known = each.broker.actors
    for option in ("on_success", "on_failure", "on_retry_exhausted"):
        name = each.actor.options.get(option)
        if name is None or name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Declare it in an actors.py, or leave the option out."
        yield Error(f"{option} is {name!r}: no actor is called so", hint, each.subject, "switchyard.E022")


def no_plain_function(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W022: an actor that is a class, a method, a lambda or a generator, or that another decorator hides."""
    actor, id_ = each.actor, "switchyard.W022"
    if inspect.isclass(actor.fn):
        fact = "is a class: a job makes an instance of it, and calls none of its methods"
        yield Warning(fact, "Declare a function, or a class of dramatiq.GenericActor with perform.", each.subject, id_)
    if (first := next(iter(signature_of(actor.fn).parameters), "")) in ("self", "cls"):
        fact = f"is a method: its first parameter is {first!r}, which no message can carry"
        hint = "Declare a function outside of the class, and send it the primary key of the object."
        yield Warning(fact, hint, each.subject, id_)
    if name := _name_of_wrapper(actor):
        fact = f"another decorator is above @dramatiq.actor: {name} is a plain function, so {name}.send(...) fails"
        yield Warning(fact, "Put @dramatiq.actor(...) above the other decorators.", each.subject, id_)
    if actor.actor_name == "<lambda>":
        fact = "is a lambda without a name: a second one is refused, and its messages say nothing of what they do"
        yield Warning(fact, "Declare a function with def, or write actor_name=...", each.subject, id_)
    if inspect.isgeneratorfunction(actor.fn) or inspect.isasyncgenfunction(actor.fn):
        fact = "is a generator: it has a yield, so its jobs succeed and none of its code runs"
        yield Warning(fact, "Leave yield out; return a list, or send a job for each part.", each.subject, id_)


def endless(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W023: an actor that declares no time limit, and is interrupted before its queue's hard limit nevertheless."""
    name, queue = each.actor.actor_name, each.queue
    for entry in each.broker.middleware:
        if queue is not None and isinstance(entry, TimeLimits) and name in entry.endless:
            fact = (
                f"its time_limit is {entry.endless[name]!r}; it ends after {each.time_limit_ms:,} ms, "
                f"because the hard limit of queue {queue.name} is {queue.hard_limit_ms:,} ms"
            )
            hint = f"Write the milliseconds that it may take, or raise hard_limit_ms in {TOPOLOGY}."
            yield Warning(fact, hint, each.subject, "switchyard.W023")


def coroutine_among_greenlets(each: DeclaredActor) -> Iterator[CheckMessage]:
    """E033: an async actor whose messages a pool of greenlets may run: its event loop needs threads."""
    if each.queue is None or not inspect.iscoroutinefunction(inspect.unwrap(each.actor.fn)):
        return
    for lane in (each.queue.name, each.queue.retry_lane):
        if pools := [pool for pool in each.yard.pools_of(lane) if pool.kind == "gevent"]:
            fact = f"is async, and pool {pools[0].name} of kind gevent runs {lane}; its event loop needs threads"
            hint = f"Move it to a queue of another pool, write it without async, or change the pool in {TOPOLOGY}."
            yield Error(fact, hint, each.subject, "switchyard.E033")


def declared_dead_lists(yard: Yard, broker: Broker) -> Iterator[CheckMessage]:
    """E011: a dead list that was declared with the broker, so that workers consume it."""
    dead = {queue.dead_list: queue.name for queue in yard.queues}
    used = {actor.queue_name for actor in broker.actors.values()}
    for name in sorted((broker.get_declared_queues() & dead.keys()) - used):
        fact = f"is declared with the broker, but is the dead list of queue {dead[name]}; every worker would consume it"
        yield Error(fact, f"Remove the call of declare_queue({name!r}).", f"queue {name}", "switchyard.E011")


def queue_limits_in_seconds(yard: Yard) -> Iterator[CheckMessage]:
    """W020: the time limit of a queue that was most likely meant in seconds."""
    for queue in yard.queues:
        if (limit := queue.soft_limit_ms) < LEAST_LIMIT_MS:
            fact = f"its soft_limit_ms is {limit} ms, after which every attempt fails"
            hint = f"For {limit} s write soft_limit_ms={limit * 1_000:_} in {TOPOLOGY}."
            yield Warning(fact, hint, f"queue {queue.name}", "switchyard.W020")


def _name_of_wrapper(actor: Actor[Any, Any]) -> str:
    """Return the name that holds a function made of the actor where it was declared, else ""."""
    name = getattr(actor.fn, "__name__", "")
    held = getattr(sys.modules.get(actor.fn.__module__), name, None)
    wraps = isinstance(held, FunctionType) and inspect.unwrap(held, stop=lambda function: function is actor) is actor
    return name if wraps else ""


# Below these milliseconds a value helps nobody. A first retry after a fraction of a second may be intended.
LEAST_MS = {
    "time_limit": (LEAST_LIMIT_MS, "after which every attempt fails"),
    "max_age": (1_000, "after which a job that has not started expires"),
    "result_ttl": (60_000, "after which its result may be gone"),
    "unique_for": (1_000, "after which its key is free"),
    "min_backoff": (100, "its first delay before a retry"),
    "max_backoff": (1_000, "its longest delay before a retry"),
}
LEAST_SPAN_MS = 15 * 60_000  # a restart, a failover or a bad release of a service lasts for minutes


def options_without_effect(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W023: ``result_ttl`` without results, options of a schedule or a unique key without it, a redacted ``search``."""
    options, id_ = each.actor.options, "switchyard.W023"
    if "result_ttl" in options and not options.get("store_results"):
        fact = "its result_ttl has no effect, because its results are not stored"
        yield Warning(fact, "Add store_results=True, or leave result_ttl out.", each.subject, id_)
    for name in ("catch_up", "time_zone"):
        if options.get(name) is not None and options.get("periodic") is None:
            fact = f"its {name} has no effect, because it is not periodic"
            yield Warning(fact, f"Add periodic=cron('0 2 * * *'), or leave {name} out.", each.subject, id_)
    for name in POLICIES if "unique_key" not in options else ():
        if name in options:
            fact = f"its {name} has no effect on messages that are sent without a unique_key of their own"
            yield Warning(fact, f"Add unique_key=lambda ...: ..., or leave {name} out.", each.subject, id_)
    redacted = options.get("redact") or ()
    if hidden := [name for name in options.get("search") or () if name in redacted]:
        fact = f"no job is found by {', '.join(hidden)}, because redacted arguments are not kept"
        yield Warning(fact, "Leave it out of search, or out of redact.", each.subject, id_)


def annotations_without_effect(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W025: annotations that count as none: their arguments are not compared, and have the values of JSON."""
    for name, (written, fault) in argument_types(each.actor.fn).faults.items():
        hint = "annotate one of the types, or Any"
        if "resolved" in fault:
            hint = "import its names outside of TYPE_CHECKING, or leave the annotation out"
        fact = f"argument {name} has the annotation {written}, which counts as none: {fault}"
        yield Warning(fact, hint, each.subject, "switchyard.W025")


def options_in_seconds(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W020: an option of :data:`LEAST_MS` that was most likely meant in seconds."""
    for name, (least_ms, meaning) in LEAST_MS.items():
        value = each.actor.options.get(name)
        is_of_queue = name == "time_limit" and each.queue is not None and value == each.queue.soft_limit_ms
        if value is not None and is_duration(value) and value < least_ms and not is_of_queue:
            hint = f"It is milliseconds: for {value:g} s write {name}={int(value * 1_000):_}."
            yield Warning(f"its {name} is {value:g} ms, {meaning}", hint, each.subject, "switchyard.W020")


def short_retries(each: DeclaredActor) -> Iterator[CheckMessage]:
    """W007: an actor that shortens the retries of such a queue to less than 15 minutes. None at all are deliberate."""
    options, queue = each.actor.options, each.queue
    if queue is None or not queue.calls or "retry_when" in options or not RETRY_DELAYS & options.keys():
        return
    retries, span_ms = options.get("max_retries", queue.retry.retries), span_of(each.actor, queue.retry)
    if retries and span_ms[0] < LEAST_SPAN_MS:
        hint = "Leave max_retries and its backoff out for those of its queue, or write max_retries=0 for none."
        yield Warning(_short(queue, retries, span_ms), hint, each.subject, "switchyard.W007")


CHECKS = (
    *(undeclared_queue, missing_time_limit, limit_over_the_hard_limit, consumed_dead_list, unknown_callbacks),
    *(no_plain_function, endless, coroutine_among_greenlets),
    *(options_in_seconds, options_without_effect, annotations_without_effect, short_retries),
)


def short_policies(yard: Yard) -> Iterator[CheckMessage]:
    """W007: a queue that calls another service, whose retries may be over within 15 minutes."""
    hint = f"Leave retry out in {TOPOLOGY} for 12 retries over hours, or give it longer delays_ms."
    for queue in (queue for queue in yard.queues if queue.calls):
        span_ms = queue.retry.span_ms()
        if span_ms[0] < LEAST_SPAN_MS and queue.retry.retries:
            fact = _short(queue, queue.retry.retries, span_ms)
            yield Warning(fact, hint, f"queue {queue.name}", "switchyard.W007")


def hurried_retries(yard: Yard, *, debug: bool) -> Iterator[CheckMessage]:
    """E034: a production yard whose retries are shortened as in a demo."""
    if yard.retry_speed != 1 and not debug:
        fact = f"retry_speed is {yard.retry_speed:,}: retries are over {yard.retry_speed:,} times as fast as declared"
        yield Error(fact, f"Leave retry_speed out in {TOPOLOGY}.", "yard", "switchyard.E034")


def _short(queue: Queue, retries: int, span_ms: tuple[int, int]) -> str:
    outage = f"an outage of what it calls ({queue.calls}) that lasts longer makes dead letters"
    return f"{retries_text(retries, span_ms)}; {outage}"


TOPOLOGY = "the topology"
IDLE_CHILD_BYTES = 120_000_000  # resident memory of an idle child with all products: 112 to 121 MB were measured


def names_of_lanes(yard: Yard) -> Iterator[CheckMessage]:
    """E011: a queue named as another queue's lane, whether that queue is declared or not."""
    for queue in yard.queues:
        for suffix, word in ((RETRY_SUFFIX, "retry lane"), (ALONE_SUFFIX, "lane of what runs alone")):
            if queue.name.endswith(suffix):
                fact = f"ends in {suffix}, as the {word} of another queue does"
                hint = f"Give the queue a name that does not end in {suffix} in {TOPOLOGY}."
                yield Error(fact, hint, f"queue {queue.name}", "switchyard.E011")


def unserved_lanes(yard: Yard) -> Iterator[CheckMessage]:
    """E007: a queue or a retry lane that no pool consumes, so that its messages would wait for ever."""
    for queue in yard.queues:
        if not yard.pools_of(queue.name):
            fact = "no pool serves it, so its messages would never start"
            hint = f"Add {queue.name!r} to the queues of a pool in {TOPOLOGY}."
            yield Error(fact, hint, f"queue {queue.name}", "switchyard.E007")
        if not yard.pools_of(queue.retry_lane):
            fact = "no pool serves it, so failed messages would never be tried again"
            add = f"add {queue.retry_lane!r} to the queues of a pool"
            hint = f"Give one pool shared_retries=True in {TOPOLOGY}, or {add}."
            yield Error(fact, hint, f"retry lane {queue.retry_lane}", "switchyard.E007")


def consumed_dead_lists(yard: Yard) -> Iterator[CheckMessage]:
    """E011: a dead list that a pool serves, or that is declared as a queue, and so would be consumed."""
    dead = {queue.dead_list: queue.name for queue in yard.queues}
    for pool in yard.pools:
        for lane in (lane for lane in pool.queues if lane in dead):
            list_of = f"serves {lane!r}, the dead list of queue {dead[lane]}"
            fact = f"{list_of}; dead letters wait for people, not for workers"
            remove = f"Remove {lane!r} from the pool's queues in {TOPOLOGY}"
            hint = f"{remove}; requeue with `manage.py switchyard deadletters requeue`."
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E011")
    for name in yard.lanes:
        if name in dead:
            fact = f"has the name of the dead list of queue {dead[name]}, so workers would consume dead letters"
            hint = f"Give the queue a name that does not end in {DEAD_SUFFIX} in {TOPOLOGY}."
            yield Error(fact, hint, f"queue {name}", "switchyard.E011")


def undeclared_lanes(yard: Yard) -> Iterator[CheckMessage]:
    """E001: a pool that serves a lane which no queue of the yard has."""
    known = {name for queue in yard.queues for name in (queue.name, queue.retry_lane, queue.dead_list)}
    alone = {queue.alone_lane: queue.name for queue in yard.queues}
    for pool in yard.pools:
        for lane in (lane for lane in pool.queues if lane not in known):
            fact = f"serves {lane!r}, which no queue declares"
            hint = f"Declare the queue in {TOPOLOGY}, or remove it from the pool."
            if lane in alone:
                fact = f"serves {lane!r}, the lane of what runs alone of queue {alone[lane]}"
                hint = f"Remove it from the pool in {TOPOLOGY}: who serves {alone[lane]!r} serves it as well."
            elif near := difflib.get_close_matches(lane, yard.lanes, n=1):
                hint = f"Did you mean {near[0]!r}? {hint}"
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E001")


def pools_that_watch_everything(yard: Yard) -> Iterator[CheckMessage]:
    """E008: a pool, but a small yard's, that serves every queue, or no lane at all, which Dramatiq treats alike."""
    live = {queue.name for queue in yard.queues}
    hint = f"Name only queues of one latency class in {TOPOLOGY}, or remove the pool."
    for pool in yard.pools:
        served = set(yard.served_by(pool))
        if not served:
            fact = "serves no lane; Dramatiq takes an empty list for every queue there is"
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E008")
        elif len(live) > 1 and live <= served and not yard.is_small:
            fact = f"serves all {len(live)} queues, so one slow kind of work holds up all the others"
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E008")


def mixed_latency_classes(yard: Yard) -> Iterator[CheckMessage]:
    """E009: a pool, but a small yard's, in which urgent work waits behind slow work, or live work behind retries."""
    objectives = {queue.name: queue.objective_ms for queue in yard.queues}
    retry_lanes = {queue.retry_lane for queue in yard.queues}
    hint = (
        f"Give each latency class a pool of its own in {TOPOLOGY}; "
        "retry lanes go to the pool with shared_retries=True or to one of their own."
    )
    for pool in () if yard.is_small else yard.pools:
        served = yard.served_by(pool)
        live = [name for name in served if name in objectives]
        retries = [name for name in served if name in retry_lanes and name not in objectives]
        fact = _spread({name: objectives[name] for name in live})
        if live and retries:
            fact = f"serves the queue {live[0]} together with the retry lane {retries[0]}; a retry storm would delay it"
        if fact:
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E009")


def more_slots_than_connections(yard: Yard) -> Iterator[CheckMessage]:
    """E010: a pool that may run more messages at once than it may open database connections."""
    hint = f"In {TOPOLOGY}, lower processes or slots, or raise database_connections if the database has room for them."
    for pool in yard.pools:
        if pool.most_running > pool.most_connections:
            fact = (
                f"{pool.children} × {pool.slots} slots, and {pool.most_running - pool.total_slots} for what runs alone "
                f"or replaces a child, need {pool.most_running} database connections; "
                f"database_connections is {pool.database_connections}"
            )
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E010")


def limits_below_an_idle_child(yard: Yard) -> Iterator[CheckMessage]:
    """W009: a memory limit that a child has nearly reached before its first message."""
    hint = f"Raise it in {TOPOLOGY} by what a message takes, for example to {2 * IDLE_CHILD_BYTES:_}."
    for pool in yard.pools:
        if pool.memory_limit_bytes is not None and pool.memory_limit_bytes <= IDLE_CHILD_BYTES:
            fact = (
                f"memory_limit_bytes is {pool.memory_limit_bytes / 1e6:,.0f} MB, and an idle child takes about "
                f"{IDLE_CHILD_BYTES / 1e6:,.0f} MB: it would be replaced after each message"
            )
            yield Warning(fact, hint, f"pool {pool.name}", "switchyard.W009")


def greenlets_without_gevent(yard: Yard) -> Iterator[CheckMessage]:
    """E033: a pool of greenlets where gevent is not installed."""
    hint = f"Install it (`pip install gevent`), or give the pool another kind in {TOPOLOGY}."
    for pool in yard.pools:
        if pool.kind == "gevent" and find_spec("gevent") is None:
            yield Error("is of kind gevent, and gevent is not installed", hint, f"pool {pool.name}", "switchyard.E033")


def _spread(objectives: dict[str, int | None]) -> str:
    """Return why one pool must not serve these queues together, or ``""``."""
    promised = {name: objective for name, objective in objectives.items() if objective is not None}
    if not promised:
        return ""
    strict, loose = min(promised, key=promised.__getitem__), max(promised, key=promised.__getitem__)
    if promised[loose] > WIDEST_CLASS * promised[strict]:
        return (
            f"mixes {strict} (objective {promised[strict]} ms) with {loose} (objective {promised[loose]} ms); "
            f"more than {WIDEST_CLASS} times apart"
        )
    without = [name for name, objective in objectives.items() if objective is None]
    if without:
        return f"mixes {strict} (objective {promised[strict]} ms) with {without[0]}, which has no objective"
    return ""
