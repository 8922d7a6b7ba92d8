"""Database connections of workers: checked around each message, in threads that opened one."""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import SyncToAsync
from django.db.backends.signals import connection_created
from django_dramatiq.middleware import DbConnectionsMiddleware
from dramatiq.broker import Broker, MessageProxy


class Connections(DbConnectionsMiddleware):
    """Close a thread's database connections once they are too old or broken, before and after each message.

    Threads without a connection are left out: checking every configured database costs more than many a task that uses
    none.

    Async actors reach the database through one thread that they share. Only that thread may close its connections, so
    the check is submitted to it before the message runs.
    """

    def __init__(self) -> None:
        self._thread = _Thread()
        self._elsewhere = False
        connection_created.connect(self._note)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Close connections that became too old or broke since the message before."""
        self._thread.works = True
        if self._thread.connected:
            self._close_old_connections()
        if self._elsewhere:
            # Between two calls of that thread no transaction is open.
            SyncToAsync.single_thread_executor.submit(self._close_old_connections)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Close connections that this message broke or that are too old by now."""
        if self._thread.connected:
            self._close_old_connections()

    def _note(self, **signal: Any) -> None:
        if self._thread.works:
            self._thread.connected = True
        else:
            self._elsewhere = True


class _Thread(threading.local):
    works = False
    connected = False
