"""Async actors, generic actors and callbacks, as Dramatiq's guide shows them."""

import asyncio
import json
import threading
from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage

from tests.integration.workers.kinds import DONE


def note(**facts: Any) -> None:
    client: Any = dramatiq.get_broker().client  # type: ignore[attr-defined]
    client.rpush(DONE, json.dumps(facts))


@dramatiq.actor(queue_name="urgent")
def kinds_succeeded(message: dict[str, Any], result: Any) -> None:
    note(of=message["actor_name"], result=result)


@dramatiq.actor(queue_name="slow")
def kinds_failed(message: dict[str, Any], error: dict[str, Any]) -> None:
    note(of=message["actor_name"], error=error["type"])


class Greeting(dramatiq.GenericActor):
    class Meta:
        abstract = True

    word = ""

    def perform(self, name: str) -> str:
        if not name:
            raise ValueError("nobody to greet")
        return f"{self.word} {name}"


class UrgentGreeting(Greeting):
    class Meta:
        queue_name = "urgent"
        max_retries = 0
        on_success = "kinds_succeeded"
        on_failure = "kinds_failed"

    word = "Hi"


class SlowGreeting(Greeting):
    class Meta:
        queue_name = "slow"
        max_retries = 0
        on_success = "kinds_succeeded"
        on_failure = "kinds_failed"

    word = "Good evening"


async def fetch(name: str, ms: int = 0) -> str:
    """Wait on the event loop, and say which message runs."""
    message = CurrentMessage.get_current_message()
    note(runs=message is not None and message.actor_name, loop=threading.current_thread().name.startswith("Thread"))
    try:
        await asyncio.sleep(ms / 1_000)
    except asyncio.CancelledError:
        note(interrupted=name)
        raise
    if not name:
        raise ValueError("nothing to fetch")
    return name


OPTIONS: dict[str, Any] = {"max_retries": 0, "on_success": "kinds_succeeded", "on_failure": "kinds_failed"}
urgent_fetch = dramatiq.actor(fetch, queue_name="urgent", actor_name="urgent_fetch", **OPTIONS)
slow_fetch = dramatiq.actor(fetch, queue_name="slow", actor_name="slow_fetch", **OPTIONS)
