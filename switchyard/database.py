"""Database of workers: connections, checked around messages; deletion of old rows; text that every database stores."""

import threading
from typing import Any

from asgiref.sync import SyncToAsync
from django.apps import apps
from django.db import close_old_connections, connections, router
from django.db.backends.signals import connection_created
from django.db.models import Model, QuerySet
from django_dramatiq.middleware import DbConnectionsMiddleware
from dramatiq.broker import Broker, MessageProxy

from switchyard.broker.topology import Yard

CONNECTION_AGE_S = 60
# Loops close theirs soon: of an SQLite file that was replaced they would go on in the old one.
LOOP_AGE_S = 10
# One thread runs the queries of all async actors of a child.
ASYNC_CONNECTIONS = 1
# Of the web, whose requests each use one, and of scheduler, history writer, commands and shells.
WEB_CONNECTIONS, SPARE_CONNECTIONS = 40, 10
# Connections that PostgreSQL keeps for superusers, by default.
RESERVED_CONNECTIONS = 3
# Size of a pool of psycopg whose settings name none.
POOL_SIZE = 4


def planned_connections(yard: Yard, *, pool_size: int | None = None) -> int:
    """Return the connections that all processes of a yard may open, each with Django's pool of a size, or without."""
    extra = 0 if pool_size is None else ASYNC_CONNECTIONS
    pools = sum(pool.most_connections + pool.most_children * extra for pool in yard.pools)
    return pools + (WEB_CONNECTIONS if pool_size is None else pool_size) + SPARE_CONNECTIONS


def pool_size(alias: str) -> int | None:
    """Return how many connections Django's pool keeps for a process at most, or ``None`` without a pool."""
    declared = connections[alias].settings_dict.get("OPTIONS", {}).get("pool")
    if not declared:
        return None
    sizes = {} if declared is True else declared
    return int(sizes.get("max_size") or sizes.get("min_size", POOL_SIZE))


def keep_in_loop(lock_s: float | None = None) -> None:
    """Keep this thread's database connections from round to round, for 10 s; SQLite waits ``lock_s`` for its lock.

    A loop that asks every second spends more on connecting than on its statements.
    """
    for own in connections.all():
        own.close()
        age_s = LOOP_AGE_S if pool_size(own.alias) is None else 0
        changes: dict[str, Any] = {"CONN_MAX_AGE": age_s, "CONN_HEALTH_CHECKS": True}
        if lock_s is not None and own.vendor == "sqlite":
            changes["OPTIONS"] = own.settings_dict["OPTIONS"] | {"timeout": lock_s}
        own.settings_dict = own.settings_dict | changes


def tidy_connections() -> None:
    """Close this thread's connections that are too old or broken, and forget the statements that ``DEBUG`` keeps."""
    for own in connections.all(initialized_only=True):
        if not own.force_debug_cursor:  # a test that counts them
            own.queries_log.clear()
    close_old_connections()


def keep_in_child(slots: int) -> None:
    """Keep each slot's database connection from message to message, for a minute at most, or in Django's pool.

    A pool gets room for every slot and for async actors: a slot must not wait for another's connection.
    """
    for database in connections.settings.values():
        database["CONN_HEALTH_CHECKS"] = True
        options = database.get("OPTIONS", {})
        if pool := options.get("pool"):
            declared = {} if pool is True else pool
            most = slots + ASYNC_CONNECTIONS
            options["pool"] = declared | {"min_size": min(declared.get("min_size", 0), most), "max_size": most}
        else:
            database["CONN_MAX_AGE"] = CONNECTION_AGE_S


def close_all() -> None:
    """Close this thread's database connections, and Django's pools: a child must not talk on its parent's socket."""
    connections.close_all()
    for alias in connections:
        if pool_size(alias) is not None:
            connection: Any = connections[alias]  # of PostgreSQL, whose class alone has a pool
            connection.close_pool()


class Connections(DbConnectionsMiddleware):
    """Close a thread's database connections once they are too old or broken, before and after each message.

    Threads without one are left out: to check every database costs more than many a task. Async actors share one
    thread, which alone may close its connections: the check is submitted to it.
    """

    def __init__(self) -> None:
        self._thread = _Thread()
        self._elsewhere = False
        connection_created.connect(self._note)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._thread.works = True
        if self._thread.connected:
            tidy_connections()
        if self._elsewhere:
            # Between two calls of that thread no transaction is open.
            SyncToAsync.single_thread_executor.submit(tidy_connections)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if self._thread.connected:
            tidy_connections()

    def _note(self, **signal: Any) -> None:
        if self._thread.works:
            self._thread.connected = True
        else:
            self._elsewhere = True


class _Thread(threading.local):
    works = False
    connected = False


def in_transaction(connection: Any) -> bool:
    """Return whether code under way has opened a transaction. That of a ``TestCase`` around it counts for none."""
    return connection.in_atomic_block and not all(block._from_testcase for block in connection.atomic_blocks)


def open_transaction() -> str:
    """Return the alias of the first of ``DATABASES`` with an open transaction of this thread, "" for none."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and in_transaction(connection):
            return connection.alias
    return ""


KNOWN_TABLES: set[tuple[str, str]] = set()


def has_table(alias: str, model: type[Model]) -> bool:
    """Return whether a database has a model's table: the default one after ``migrate``, others if migrated too.

    A replica has none: a database in which the project's routers read models, and write none.
    """
    table = model._meta.db_table
    if (alias, table) not in KNOWN_TABLES:
        if not router.allow_migrate_model(alias, model) or _is_replica(alias):
            return False
        with connections[alias].cursor() as cursor:
            if table not in connections[alias].introspection.table_names(cursor):
                return False
        KNOWN_TABLES.add((alias, table))
    return True


def _is_replica(alias: str) -> bool:
    models = apps.get_models()
    read, written = ({choose(model) for model in models} for choose in (router.db_for_read, router.db_for_write))
    return alias in read - written


def aliases_with(model: type[Model]) -> list[str]:
    """Return the databases that have a model's table."""
    return [alias for alias in connections if has_table(alias, model)]


AT_ONCE, MOST_BATCHES = 1_000, 100


def delete_old(rows: QuerySet[Any], *, batches: int = 0) -> int:
    """Delete rows in their order, 1,000 a statement and at most 100,000, or as many batches; return the count."""
    deleted = 0
    for _ in range(batches or MOST_BATCHES):
        keys = list(rows.values_list("pk", flat=True)[:AT_ONCE])
        deleted += rows.model._base_manager.using(rows.db).filter(pk__in=keys).delete()[0]
        if len(keys) < AT_ONCE:
            break
    return deleted


def storable(text: str) -> str:
    """Escape what UTF-8 or PostgreSQL refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
