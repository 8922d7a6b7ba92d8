"""Connections are looked after where there are some."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection

from switchyard.database import Connections

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads in which Django was asked to close what is old."""
    asked: list[str] = []
    monkeypatch.setattr("django.db.close_old_connections", lambda: asked.append(threading.current_thread().name))
    return asked


def _run_message(connections: Any) -> None:
    connections.before_process_message(None, None)
    connections.after_process_message(None, None)


def _in_thread(name: str, *steps: Any) -> None:
    thread = threading.Thread(target=lambda: [step() for step in steps], name=name)
    thread.start()
    thread.join(30)


def test_only_threads_that_opened_a_connection_look_for_old_ones(looks: list[str]) -> None:
    connections = Connections()

    def query() -> None:
        connection.ensure_connection()
        connection.close()

    _in_thread("with", lambda: _run_message(connections), query, lambda: _run_message(connections))
    _in_thread("without", lambda: _run_message(connections))

    assert looks == ["with", "with"]


def test_a_connection_that_was_opened_in_a_message_is_looked_at_when_it_ends(looks: list[str]) -> None:
    connections: Any = Connections()

    def message() -> None:
        connections.before_process_message(None, None)
        connection.ensure_connection()
        connections.after_process_message(None, None)
        connection.close()

    _in_thread("with", message)

    assert looks == ["with"]


def test_the_thread_of_async_actors_looks_for_itself(looks: list[str]) -> None:
    connections = Connections()
    thread = SyncToAsync.single_thread_executor

    def open_one() -> str:
        connection.close()  # one that another test of this process has left there
        connection.ensure_connection()
        return threading.current_thread().name

    name = thread.submit(open_one).result(30)
    _in_thread("without", lambda: _run_message(connections))
    thread.submit(lambda: connection.close()).result(30)

    assert looks == [name]
