"""Actors that take as long as they are told and note where and when they ran."""

import json
import os
import time
from typing import Any

import dramatiq
from django.db import connection
from dramatiq.middleware import CurrentMessage
from gevent import monkey

from tests.ways import WAYS

STARTED, ENDED, FANNED_OUT = "bench:started", "bench:ended", "bench:fanned_out"


@dramatiq.actor(queue_name="urgent")
def urgent_job(token: str, ms: int, how: str = "sleep") -> None:
    run(token, ms, how)


@dramatiq.actor(queue_name="slow")
def slow_job(token: str, ms: int, how: str = "sleep") -> None:
    run(token, ms, how)


@dramatiq.actor(queue_name="webhook")
def webhook_job(token: str, ms: int, how: str = "sleep") -> None:
    run(token, ms, how)


@dramatiq.actor(queue_name="urgent")
def fan_out() -> None:
    """Send itself twice, so that it never ends."""
    broker: Any = dramatiq.get_broker()
    broker.client.rpush(FANNED_OUT, os.getpid())
    time.sleep(0.03)
    fan_out.send()
    fan_out.send()


def run(token: str, ms: int, how: str) -> None:
    """Note the start, do something for a while, note the end.

    Args:
        how: Name of one of :mod:`tests.ways`.
    """
    client: Any = dramatiq.get_broker().client  # type: ignore[attr-defined]
    place: dict[str, Any] = {
        "token": token,
        "pid": os.getpid(),
        "nice": os.nice(0),
        "patched": bool(monkey.saved),
        "owner": CurrentMessage.get_current_message().lease.owner,  # type: ignore[union-attr]
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        place["database"] = cursor.fetchone()[0]
    client.rpush(STARTED, json.dumps({**place, "at": time.time()}))
    WAYS[how](ms / 1000)
    client.rpush(ENDED, json.dumps({**place, "at": time.time()}))
