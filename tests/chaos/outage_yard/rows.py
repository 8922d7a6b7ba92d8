"""``python -m tests.chaos.outage_yard.rows QUEUE COUNT [URL]``: write what the jobs need, print their arguments."""

import json
import sys
from typing import Any

import django


def deliveries(count: int, url: str) -> list[dict[str, Any]]:
    from apps.webhooks import services
    from apps.webhooks.models import Delivery, Event

    endpoint, _ = services.create_endpoint("owner", url, ["order.paid"])
    events = Event.objects.bulk_create(
        Event(owner_key="owner", type="order.paid", payload=f'{{"order":{number}}}') for number in range(count)
    )
    made = Delivery.objects.bulk_create(Delivery(event=event, endpoint=endpoint, job_id="") for event in events)
    return [{"delivery_id": str(delivery.pk)} for delivery in made]


def payments(count: int) -> list[dict[str, Any]]:
    from apps.billing import services
    from tests.factories.shop import make_invoice

    found = []
    for number in range(count):
        data = {
            "id": f"pay_{number}", "amount": "100.00", "currency": "EUR", "paid_at": "2026-10-20T12:00:00+00:00",
            "invoice_number": make_invoice(total="100.00").number, "reference": "",
        }  # fmt: skip
        event, _ = services.receive_event(f"evt_{number}", {"type": "payment.received", "data": data})
        found.append({"event_id": event.pk})
    return found


if __name__ == "__main__":
    django.setup()
    kind, count, *url = sys.argv[1:]
    print(json.dumps(deliveries(int(count), *url) if kind == "webhook" else payments(int(count))))
