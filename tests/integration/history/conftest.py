"""Fixtures of the history: ended attempts put into the streams as workers do, and a writer to move them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis

from apps.platform.history.writer import HistoryWriter
from broker.interface import Facilities
from broker.keys.keys import Keys
from broker.stores.ended_jobs import EndedJob, Failure, encode, encode_rows
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
        "id": f"00000000-0000-4000-8000-{number:012x}",
        "state": state,
        "attempt": 1,
        "started_at": BASE_MS + at - 100,
        "finished_at": BASE_MS + at,
        "error": Failure(error, f"text of {error}", "beef") if error else None,
        "lane": "default",
        "pool": "default",
        "worker": "host/12",
        "release": "1.4",
        "body": json.dumps(message).encode(),
    }
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
    broker = dramatiq.get_broker()

    def find_by_customer(customer_id: Any, card: str = "") -> None:
        """Do nothing."""

    actor = dramatiq.actor(find_by_customer, redact=("card",), broker=broker)
    actor.options["search"] = ("customer_id", "card")
    yield actor
    del broker.actors[actor.actor_name]
