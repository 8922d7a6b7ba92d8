"""Construction of the broker with its middleware, in order. django-dramatiq's settings name :func:`build_broker`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from django.conf import settings
from django.db import connections
from dramatiq.broker import Broker
from dramatiq.middleware import CurrentMessage, GroupCallbacks, Middleware

from switchyard.broker.errors import SwitchyardError, UnusableAddress
from switchyard.broker.interface import Facilities, Transport, attach
from switchyard.broker.keys import Keys
from switchyard.broker.process import is_patched, once_imported
from switchyard.broker.redis.addresses import Server
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.alert_groups import AlertGroups
from switchyard.broker.stores.batches import Batches
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.history_streams import WorkerPlace
from switchyard.broker.stores.job_records import JobRecords, RecordLimits, RecordResults
from switchyard.broker.stores.limit_counts import GroupBarriers, RateWindows
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.stores.result_stores import ResultStores
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.broker.topology import Yard
from switchyard.broker.transport import RedisTransport
from switchyard.broker.worker.acks import AckBarrier, barrier_over
from switchyard.conf import SwitchyardSettings, switchyard_settings
from switchyard.console.commands import refuse
from switchyard.console.links import absolute, job_url
from switchyard.database import Connections, tidy_connections
from switchyard.jobs.results import result_stores
from switchyard.middleware import arguments, logs
from switchyard.middleware.arguments import Arguments, TypedArguments
from switchyard.middleware.async_actors import AsyncActors
from switchyard.middleware.callbacks import BatchEnds, DurableCallbacks, DurableGroupCallbacks, DurablePipelines
from switchyard.middleware.cancellation import ActorPauses, Cancellation, ShutdownNotices
from switchyard.middleware.circuits import Circuits
from switchyard.middleware.clock_comparison import compare_clocks
from switchyard.middleware.crashes import Crashes, LostLeases
from switchyard.middleware.dead_letters import Alerts, DeadLetters
from switchyard.middleware.envelope import Envelope, Origin
from switchyard.middleware.interrupts import make_interrupts
from switchyard.middleware.logs import Logs
from switchyard.middleware.metrics import Metrics
from switchyard.middleware.options import ForeignOptions, OnCommit, Options, Periodic, refuse_unknown, without_replaced
from switchyard.middleware.parking import Parking
from switchyard.middleware.rate_limits import Concurrency, RateLimits
from switchyard.middleware.redaction import Redaction
from switchyard.middleware.retries import Retries
from switchyard.middleware.status import Status
from switchyard.middleware.time_limits import AgeLimits, TimeLimits
from switchyard.middleware.unique_keys import UniqueKeys
from switchyard.outbox.sends import CommitSends
from switchyard.send_warnings import warnings_of_sends
from switchyard.setting_values import refuse_without, refuse_without_driver
from switchyard.slot_hygiene import SlotHygiene
from switchyard.workers.metrics import keep_files, name_files

if TYPE_CHECKING:
    import redis

STORES_REFUSED_S = 0.3
# Where OpenTelemetry sends traces, and what it takes: modules, requirement and extra.
OWN_ENDPOINT, ENDPOINT = "SWITCHYARD_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINTS = (OWN_ENDPOINT, ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACES = ("opentelemetry.exporter.otlp.proto.http", "opentelemetry-exporter-otlp-proto-http>=1.45,<2", "traces")
# Makes the broker of a yard and its transport, as on_redis does.
Place = Callable[..., tuple[Broker, Transport]]


def build_broker(middleware: list[Middleware] | None = None) -> Broker:
    """Return this project's broker, without a connection to the server yet. Invalid settings exit the process with 78.

    ``middleware`` of django-dramatiq's settings is listed last, before the time limit only. Dramatiq's own, whose work
    ours does, is left out.
    """
    try:
        refuse_without_driver(settings.DATABASES)
        own = switchyard_settings()
        options: dict[str, Any] = {"observers": [*traces(own.release), *error_tracker()]}
    except SwitchyardError as error:
        refuse(str(error), *getattr(error, "__notes__", ()))
    if own.configure_logging:
        logs.configure(own.log_format, release=own.release)
    else:
        once_imported("structlog", logs.use_standard_logging)
    extra = [*without_replaced(middleware or []), *warnings_of_sends(debug=own.debug and own.sends == "now")]
    options |= {"development": own.debug, "release": own.release, "limits": own.record_limits, "sends": own.sends}
    options |= {"results": result_stores(own.results), "extra": extra, "on_dead": (project_dead_letter,)}
    if (place := own.place) is not None:
        options |= {"place": place.load("place"), "url": own.place_url, **own.place_options}
    try:
        broker: Broker = build_yard(own.topology, server_of(own), Keys(), **options)
    except UnusableAddress as error:
        refuse(str(error))
    compare_clocks(broker)
    return broker


def server_of(own: SwitchyardSettings) -> redis.Redis | Server:
    """Return the server of the settings, or ``UnusableAddress``; most are connected to when they are first asked."""
    if own.broker_url.startswith(("redis://", "rediss://", "unix://")):
        return Server(own.broker_url, own.absence)
    from switchyard.broker.redis.connections import connect

    return connect(own.broker_url, absence=own.absence)


def build_yard(
    yard: Yard,
    client: redis.Redis | Server,
    keys: Keys,
    *,
    place: Place | None = None,
    extra: list[Middleware] | None = None,
    on_dead: tuple[Any, ...] = (),
    development: bool = False,
    release: str = "",
    limits: RecordLimits | None = None,
    results: ResultStores | None = None,
    sends: str = "now",
    observers: Sequence[Middleware] = (),
    **options: Any,
) -> Any:
    """Return a broker for a yard on a server; the project and the tests both use it.

    Args:
        place: Where its queues live, with its ``options``; by default on that server, as :func:`on_redis` has it.
        on_dead: Called with each dead letter after it is in its list.
        development: Log the traceback of a job's first failure.
        release: Name of this code in records of jobs.
        sends: See the setting ``SENDS``.
        limits, results: Of what the broker keeps of ended jobs; stores of results that records do not hold.
        observers: As :func:`traces` and :func:`error_tracker` return them.
    """
    keys = msgspec.structs.replace(keys, slot_groups=yard.keys.slot_groups)
    # Queue operations ride out a restart of the server; pages and records say at once that it is down.
    calls = calls_on(client, refused_s=STORES_REFUSED_S)
    records = JobRecords(calls, keys, (queue.name for queue in yard.queues), limits=limits)
    records.results = results or records.results
    barrier = barrier_over(records)
    barrier.worker_place = WorkerPlace(release=release)
    broker, transport = (place or on_redis)(yard, client, records, barrier, **options)
    records.finds_waiting = transport.finds_waiting
    broker.results = RecordResults(records, broker)  # type: ignore[attr-defined]
    facilities = Facilities(
        yard=yard,
        transport=transport,
        records=records,
        barrier=barrier,
        windows=RateWindows(calls, keys),
        alerts=AlertGroups(calls, keys),
        pools=PoolReports(calls, keys),
        facts=FactStore(calls, keys),
        groups=GroupBarriers(calls, keys),
        batches=Batches(calls, keys) if isinstance(broker, RedisBroker) else None,
    )
    attach(broker, facilities)
    broker.postpone = CommitSends(broker, waits=sends != "now", keeps_rows=sends == "outbox")  # type: ignore[attr-defined]
    for entry in in_order(facilities, on_dead, extra or [], observers, development=development):
        broker.add_middleware(entry)
    # Sentry and its like put theirs first when a broker is made, and would pass for the sender with their options.
    broker.middleware.sort(key=lambda entry: not isinstance(entry, Options))
    refuse_unknown(broker)
    for lane in yard.lanes:
        broker.declare_queue(lane)
    return broker


def on_redis(
    yard: Yard, client: redis.Redis | Server, records: JobRecords, barrier: AckBarrier, **options: Any
) -> tuple[RedisBroker, RedisTransport]:
    """Return broker, with ``options``, and transport of a yard whose queues live on the server of its records."""
    calls, keys = records.calls, records.keys
    fair = {queue.name: share for queue in yard.queues if (share := queue.fair_share) is not None}
    options = {"limits": depths(yard), "fair": fair, "knows": arguments.knows, "stores": (calls,), **options}
    broker = RedisBroker(client, keys, middleware=[], barrier=barrier, **options)
    return broker, RedisTransport(broker, yard, DeadLists(calls, keys), Quarantine(calls, keys))


def depths(yard: Yard) -> dict[str, int]:
    """Return how many messages each queue with a limit may hold."""
    return {queue.name: queue.max_depth for queue in yard.queues if queue.max_depth is not None}


def in_order(
    facilities: Facilities,
    on_dead: tuple[Any, ...] = (),
    extra: Sequence[Middleware] = (),
    observers: Sequence[Middleware] = (),
    *,
    development: bool = False,
) -> list[Middleware]:
    """Return the middleware in the required order.

    Before-hooks run from first to last, after-hooks from last to first. So connections enclose everything; middleware
    that may stop a message precedes the middleware that records its start; readers of the outcome precede those that
    decide it; the time limit is last, so that its clock runs for the task alone and never fires in a hook.
    """
    yard, transport, interrupts = facilities.yard, facilities.transport, make_interrupts()
    circuits = Circuits(yard=yard, transport=transport)
    # Participant of the flush before acknowledgements; a pool's child adds its row, in workers/child/main.py.
    metrics = facilities.barrier.metrics = Metrics(
        barrier=facilities.barrier, keep_files=keep_files, thread_time=not is_patched()
    )
    name_files()
    groups = DurableGroupCallbacks(groups=facilities.groups, barrier=facilities.barrier, yard=yard, transport=transport)
    return [
        Options(),
        LostLeases(),
        Connections(),
        Arguments(),
        Parking(transport=transport),
        UniqueKeys(),
        Cancellation(transport=transport, interrupts=interrupts),
        ActorPauses(transport=transport),
        circuits,
        AgeLimits(),
        Crashes(transport=transport),
        Concurrency(),
        RateLimits(windows=facilities.windows, transport=transport),
        *observers,
        Logs(tracebacks=development),
        metrics,
        *([] if facilities.batches is None else [BatchEnds(batches=facilities.batches, yard=yard)]),
        # Not beside Dramatiq's: jobs of both would be counted in two places.
        *([] if any(isinstance(entry, GroupCallbacks) for entry in extra) else [groups]),
        Status(
            yard=yard,
            barrier=facilities.barrier,
            finds_waiting=transport.finds_waiting,
            history_bytes=facilities.records.history_share,
            results=facilities.records.results,
        ),
        Alerts(groups=facilities.alerts),
        DeadLetters(yard=yard, transport=transport, on_dead=on_dead),
        Retries(yard=yard, transport=transport, circuits=circuits),
        ShutdownNotices(interrupts=interrupts),
        DurableCallbacks(),
        DurablePipelines(),
        AsyncActors(),
        CurrentMessage(),
        Redaction(),
        Periodic(),
        OnCommit(databases=connections),
        Origin(),
        Envelope(),
        *extra,
        ForeignOptions(),
        TypedArguments(),
        SlotHygiene(),
        TimeLimits(yard=yard, interrupts=interrupts),
    ]


def traces(release: str) -> list[Middleware]:
    """Return the middleware of traces where the environment names an endpoint. Nothing else loads OpenTelemetry."""
    given = os.environ.get
    name = next((name for name in ENDPOINTS if given(name)), "")
    if not name or given("OTEL_SDK_DISABLED", "").lower() == "true" or given("OTEL_TRACES_EXPORTER") == "none":
        return []
    refuse_without(name, TRACES, "a trace")
    if name == OWN_ENDPOINT:
        os.environ.setdefault(ENDPOINT, os.environ[name])
    from switchyard.middleware.tracing import start

    return [start(release)]


def error_tracker() -> list[Middleware]:
    """Return the middleware that reports final failures to Sentry, where the project has set up its client."""
    sdk = sys.modules.get("sentry_sdk")
    if sdk is None or not sdk.is_initialized():
        return []
    from switchyard.middleware.error_tracker import ErrorTracker

    return [ErrorTracker(link=lambda job_id: absolute(job_url(job_id)))]


def project_dead_letter(letter: DeadLetter) -> None:
    """Write the row of a dead letter; log a database that is away."""
    # Models are not loaded yet when the broker is built.
    from switchyard.dead_letters.projection import project_or_log

    tidy_connections()  # a task may have left a broken connection, and no hook checks those of a consumer's thread
    project_or_log(letter)
