"""Jobs in every state, sent and left to the pools."""

import dramatiq

from devtools.room import actors
from devtools.room.yard import until
from switchyard.audit.services import Who
from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.jobs.services import submit
from switchyard.queues import services as queues

OPERATOR = Who("a.lind", "page")
PAUSED = "images"
CUSTOMERS = ("nordwind", "acme", "globex", "initech", "umbrella", "hooli", "stark")


def send_waiting() -> dict[str, str]:
    """Send the jobs that wait: for a paused queue, for their time, for a rate limit."""
    queues.pause(PAUSED, who=OPERATOR, reason="the picture host is moved")
    queued = [submit(actors.crop_picture, owner="user:1", kwargs={"picture": number}) for number in range(6)]
    scheduled = submit(actors.send_digest, delay_ms=actors.HOUR_MS, kwargs={"customer": "nordwind"})
    for customer in CUSTOMERS[:3]:
        submit(actors.send_digest, kwargs={"customer": customer})
    _quarantine()
    return {"queued": queued[0], "scheduled": scheduled}


def send_running(count: int = 2) -> list[str]:
    """Send exports that run until they are cancelled or the yard stops."""
    actors.hold_file().touch()
    return [
        submit(actors.export_orders, owner="user:1", kwargs={"customer": customer, "rows": 30_000})
        for customer in CUSTOMERS[:count]
    ]


def send_ending() -> dict[str, str]:
    """Send the jobs that end, one way or another."""
    sent: dict[str, str] = {}
    for number, customer in enumerate(CUSTOMERS):
        sent["succeeded"] = submit(actors.confirm_order, owner="user:1", kwargs={"customer": customer, "order": number})
        sent["dead"] = submit(
            actors.price_basket, owner="user:1", kwargs={"customer": customer, "basket": number, "country": "NO"}
        )
    for partner in ("stock", "parcels"):
        sent["retrying"] = submit(actors.ask_partner, kwargs={"partner": partner})
        submit(actors.tell_partner, kwargs={"partner": partner})
    sent["cancelled"] = submit(actors.send_digest, delay_ms=actors.HOUR_MS, kwargs={"customer": "acme"})
    cancel(facilities(), sent["cancelled"])
    late = actors.confirm_order.message_with_options(kwargs={"customer": "acme", "order": 99}, max_age=1)
    dramatiq.get_broker().enqueue(late, delay=20)
    return sent | {"expired": late.message_id}


def wait_for(states: dict[str, str]) -> None:
    until(lambda: all(job_state(job_id) == state for state, job_id in states.items()), f"jobs to be {states}")


def job_state(job_id: str) -> str:
    """Return a job's state, or ""."""
    record = facilities().records.read(job_id)
    return "" if record is None else str(record.state)


def _quarantine() -> None:
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        raise TypeError(f"the broker is {type(broker).__name__}, not RedisBroker; remove SWITCHYARD_BROKER_URL")
    entry = Quarantine.entry("default", b'{"queue_name": "default", "actor_na', "it is not JSON")
    broker.client.lpush(broker.keys.queue("default").quarantine, entry)
