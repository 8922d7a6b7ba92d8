"""Actors of newer code. They note with what they ran."""

import json
import os
import time
from typing import Any

import dramatiq

from tests.integration.workers.newer import ENDED


@dramatiq.actor(queue_name="urgent")
def urgent_job(token: str, *, seconds: float) -> None:
    note(token, seconds)


@dramatiq.actor(queue_name="urgent")
def audit(token: str, seconds: float = 0.0) -> None:
    note(token, seconds)


def note(token: str, seconds: float) -> None:
    client: Any = dramatiq.get_broker().client  # type: ignore[attr-defined]
    time.sleep(seconds)
    client.rpush(ENDED, json.dumps({"token": token, "seconds": seconds, "pid": os.getpid(), "at": time.time()}))
