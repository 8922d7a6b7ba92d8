"""Database connections around messages: looked after in threads that opened one, and nowhere else."""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import SyncToAsync
from django.db.backends.signals import connection_created
from django_dramatiq.middleware import DbConnectionsMiddleware
from dramatiq.broker import Broker, MessageProxy


class Connections(DbConnectionsMiddleware):
    """Close a thread's database connections once they are too old or broken, before and after each message.

    Django asks every database of its settings each time, which costs more than many a task without a database.

    Async actors reach the database in one thread that they share. Only that thread may look after its connections, so
    it is told to, before the message asks anything of it.
    """

    def __init__(self) -> None:
        self._thread = _Thread()
        self._elsewhere = False
        connection_created.connect(self._note)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Close what the time since the message before made unusable."""
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
        """Close what this message left unusable."""
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
