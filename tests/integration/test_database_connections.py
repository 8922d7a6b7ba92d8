"""Connections are looked after where there are some."""

import threading
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection

from switchyard.alerts.sending import LOCK_S
from switchyard.database import Connections, keep_in_loop, tidy_connections
from switchyard.schedules.runner import maintenance_tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def looks(monkeypatch):
    """Names of the threads in which Django was asked to close what is old."""
    asked: list[str] = []
    monkeypatch.setattr(
        "switchyard.database.close_old_connections", lambda: asked.append(threading.current_thread().name)
    )
    return asked


def _run_message(connections: Any) -> None:
    connections.before_process_message(None, None)
    connections.after_process_message(None, None)


def _in_thread(name: str, *steps: Any) -> None:
    thread = threading.Thread(target=lambda: [step() for step in steps], name=name)
    thread.start()
    thread.join(30)


def test_only_threads_that_opened_a_connection_look_for_old_ones(looks):
    connections = Connections()

    def query() -> None:
        connection.ensure_connection()
        connection.close()

    _in_thread("with", lambda: _run_message(connections), query, lambda: _run_message(connections))
    _in_thread("without", lambda: _run_message(connections))

    assert looks == ["with", "with"]


def test_a_connection_that_was_opened_in_a_message_is_looked_at_when_it_ends(looks):
    connections: Any = Connections()

    def message() -> None:
        connections.before_process_message(None, None)
        connection.ensure_connection()
        connections.after_process_message(None, None)
        connection.close()

    _in_thread("with", message)

    assert looks == ["with"]


def test_the_thread_of_async_actors_looks_for_itself(looks):
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


def test_a_message_leaves_no_statements_that_debug_keeps(settings):
    settings.DEBUG = True
    connections: Any = Connections()
    kept: list[int] = []

    def message() -> None:
        connections.before_process_message(None, None)
        for _ in range(3):
            connection.cursor().execute("SELECT 1")
        kept.append(len(connection.queries_log))
        connections.after_process_message(None, None)
        kept.append(len(connection.queries_log))
        connection.close()

    _in_thread("with", message)

    assert kept == [3, 0]


def test_the_loop_that_calls_people_keeps_its_connection_for_a_time_and_waits_briefly_for_a_lock():
    [task] = [each for each in maintenance_tasks() if each.name == "alerts"]
    kept: list[bool] = []

    def rounds() -> None:
        for _ in range(2):
            connection.ensure_connection()
            first = connection.connection
            tidy_connections()
            kept.append(connection.connection is first)
        connection.close_at = 0
        tidy_connections()
        kept.append(connection.connection is None)
        kept.append(connection.vendor != "sqlite" or connection.settings_dict["OPTIONS"]["timeout"] == LOCK_S)

    _in_thread("loop", lambda: keep_in_loop(task.lock_s), rounds)

    assert kept == [True] * 4
    assert connection.settings_dict["CONN_MAX_AGE"] == 0, "another thread's is as it was"
