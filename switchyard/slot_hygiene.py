"""Slot hygiene: nothing that an attempt leaves behind in its thread reaches the next one."""

from __future__ import annotations

import os
import threading
from typing import Any

from django.db.backends.signals import connection_created
from django.utils import timezone, translation
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.loggers import get_logger
from switchyard.middleware.errors import OpenTransaction

log = get_logger(__name__)


class SlotHygiene(Middleware):
    """Middleware that puts a worker's thread back after each attempt: transactions, language, time zone.

    Rows that later jobs write into a transaction that is still open are lost when its connection closes, although those
    jobs have succeeded.

    Listed before the time limit alone: its after-hook runs as soon as no exception can arrive from outside.

    Raises:
        OpenTransaction: an actor returned, and left a transaction open.

    Attributes:
        in_copy: Whether this process is a copy of a worker, forked by a task.
    """

    in_copy = False

    def __init__(self) -> None:
        self._thread = _Thread()
        connection_created.connect(self._note)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note the connections whose transaction is not the attempt's: a test may run an actor inside of one."""
        self._thread.outer = [each for each in self._thread.connections if is_in_transaction(each)]

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Put the thread back; end a process that the actor forked: it would acknowledge the message as well."""
        if self.in_copy:
            log.error("process that the actor forked ended: it returned from the actor", actor=message.actor_name)
            os._exit(0 if exception is None else 1)
        translation.deactivate()
        timezone.deactivate()
        thread = self._thread
        left = [each for each in thread.connections if is_in_transaction(each) and each not in thread.outer]
        if not left:
            return
        databases = ", ".join(each.alias for each in left)
        for each in left:
            abandon(each)
        log.error("transaction left open, rolled back", actor=message.actor_name, databases=databases)
        if exception is None:
            raise OpenTransaction(message.actor_name, databases)

    def _note(self, connection: Any, **signal: Any) -> None:
        if connection not in self._thread.connections:
            self._thread.connections = [*self._thread.connections, connection]


class _Thread(threading.local):
    connections: list[Any] = []
    outer: list[Any] = []


def is_in_transaction(connection: Any) -> bool:
    """Return whether a transaction is open on a Django connection, as Django knows it or as the driver does.

    The two differ where SQL said ``BEGIN``, or where an exception arrived between the driver's step and Django's note.
    """
    if connection.in_atomic_block:
        return True
    driver = connection.connection
    if driver is None:
        return False
    if connection.vendor == "sqlite":
        return bool(driver.in_transaction)
    status = getattr(getattr(driver, "pgconn", None), "transaction_status", 0)  # of psycopg 3; 0 is idle
    return bool(status)


def abandon(connection: Any) -> None:
    """Roll back whatever is open on a Django connection by closing it; the next query opens another."""
    # Django keeps a connection that is closed inside of a block, and refuses it from then on.
    connection.in_atomic_block = connection.closed_in_transaction = False
    try:
        connection.close()
    finally:
        connection.connection = None
