"""Fixtures of the history: ended attempts put into the streams as workers do, and a writer to move them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from django.apps import apps
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import ConnectionHandler

from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores.history_streams import EndedJob, Failure, encode, encode_rows
from switchyard.history.writer import HistoryWriter
from tests.chaos.postgres import PostgresUnderTest
from tests.environment import POSTGRES
from tests.integration.history.rows import BASE_MS

Ended = Callable[..., EndedJob]
Put = Callable[..., None]


def ended_job(number: int = 1, *, state: str = "succeeded", error: str = "", **fields: Any) -> EndedJob:
    """Return an ended attempt. ``args``, ``kwargs``, ``actor`` and ``options`` make its message."""
    at = fields.pop("at", 0)
    options = {"enqueued_at": BASE_MS + at - 500} | fields.pop("options", {})
    message = {"actor": fields.pop("actor", "work"), "sent_at": BASE_MS, "options": options}
    message |= {name: fields.pop(name) for name in ("args", "kwargs") if name in fields}
    values = {
        "id": f"00000000-0000-4000-8000-{number:012x}", "state": state, "attempt": 1, "started_at": BASE_MS + at - 100,
        "finished_at": BASE_MS + at, "error": Failure(error, f"text of {error}", "beef") if error else None,
        "lane": "default", "pool": "default", "worker": "host/12", "release": "1.4",
        "body": json.dumps(message).encode(),
    }  # fmt: skip
    return EndedJob(**values | fields)


def put_into(client: redis.Redis, *ended: EndedJob, queue: str = "default") -> None:
    """Add ended attempts to a queue's stream, in one entry."""
    fields = {"n": len(ended), "rows": encode_rows(map(encode, ended))}
    client.xadd(Keys().queue(queue).history, fields)


@pytest.fixture
def put(valkey: redis.Redis, facilities: Facilities) -> Put:
    """Add ended attempts to a queue's stream: ``put(ended_job(1), queue="default")``."""
    return lambda *ended, queue="default": put_into(valkey, *ended, queue=queue)


@pytest.fixture
def writer(facilities: Facilities) -> HistoryWriter:
    """A history writer; call ``step()``."""
    return HistoryWriter(poll_s=0.01, pause_s=0.02)


@pytest.fixture
def find_by_customer(facilities: Facilities) -> Any:
    """An actor ``find_by_customer(customer_id, card)`` that hides the card."""

    def find_by_customer(customer_id: Any, card: str = "") -> None:
        """Do nothing."""

    return dramatiq.actor(find_by_customer, redact=("card",), search=("customer_id", "card"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresUnderTest]:
    """A PostgreSQL for the tests of the history."""
    with PostgresUnderTest() as server:
        yield server


@pytest.fixture
def on_postgres(postgres: PostgresUnderTest, django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The default database is PostgreSQL, with the tables of the history, all empty."""
    address = {"HOST": "127.0.0.1", "PORT": postgres.port, "USER": "yard", "NAME": "postgres"}
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", **address}})
    sqlite = connections[DEFAULT_DB_ALIAS]
    with django_db_blocker.unblock():
        connections[DEFAULT_DB_ALIAS] = handler["default"]
        try:
            call_command("migrate", "switchyard_history", verbosity=0)
            yield
            connections[DEFAULT_DB_ALIAS].close()  # a test may have stopped the server
            for model in apps.get_app_config("switchyard_history").get_models():
                model.objects.all().delete()
        finally:
            connections[DEFAULT_DB_ALIAS].close()
            connections[DEFAULT_DB_ALIAS] = sqlite


# The run's own database; beside SQLite a PostgreSQL as well.
OWN = pytest.param("postgres" if POSTGRES else "sqlite", marks=pytest.mark.django_db(transaction=True))


@pytest.fixture(params=[OWN] if POSTGRES else [OWN, "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """A database with the tables of the history."""
    if request.param == "postgres" and not POSTGRES:
        request.getfixturevalue("on_postgres")
    return str(request.param)
