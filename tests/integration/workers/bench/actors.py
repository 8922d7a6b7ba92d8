"""Actors that take as long as they are told and note where and when they ran."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import dramatiq
from gevent import monkey

STARTED, ENDED = "bench:started", "bench:ended"


@dramatiq.actor(queue_name="urgent")
def urgent_job(token: str, ms: int) -> None:
    """Run in the threads pool."""
    run(token, ms)


@dramatiq.actor(queue_name="slow")
def slow_job(token: str, ms: int) -> None:
    """Run in the processes pool."""
    run(token, ms)


@dramatiq.actor(queue_name="webhook")
def webhook_job(token: str, ms: int) -> None:
    """Run in the gevent pool."""
    run(token, ms)


def run(token: str, ms: int) -> None:
    """Note the start, wait, note the end."""
    client: Any = dramatiq.get_broker().client  # type: ignore[attr-defined]
    place = {
        "token": token,
        "pid": os.getpid(),
        "nice": os.nice(0),
        "patched": bool(monkey.saved),
        "broker_id": dramatiq.get_broker().broker_id,  # type: ignore[attr-defined]
    }
    client.rpush(STARTED, json.dumps({**place, "at": time.time()}))
    time.sleep(ms / 1000)
    client.rpush(ENDED, json.dumps({**place, "at": time.time()}))
