"""Actors that reach each state a job can have, and stay there."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import dramatiq

from switchyard.jobs.services import check_cancelled, report_progress

HOUR_MS = 3_600_000
POLL_S = 0.1
# While this file of the state folder is there, exports run.
HOLD = "exports-run"

log = logging.getLogger(__name__)


class PartnerTimeout(Exception):
    """A partner's service did not answer."""


def hold_file() -> Path:
    """Return the file that keeps exports running."""
    return Path(os.environ["SWITCHYARD_STATE_DIR"]) / HOLD


# Of the queue with the longest limit: its jobs outlast the tests.
@dramatiq.actor(queue_name="billing", max_retries=0, search=("customer",))
def export_orders(customer: str, rows: int) -> None:
    """Run until the file is gone or the job is cancelled."""
    report_progress(rows // 3, rows, "writing orders.csv")
    while hold_file().exists():
        check_cancelled()
        time.sleep(POLL_S)


@dramatiq.actor(queue_name="default", max_retries=0, search=("customer",), tags=("basket",))
def price_basket(customer: str, basket: int, country: str) -> dict[str, Any]:
    """Fail for a country without a tax rate."""
    log.info("basket %s of %s is priced", basket, customer)
    rates = {"DE": 19, "FR": 20}
    return {"basket": basket, "vat_rate": rates[country]}


# Just below the hard limit of its queue.
@dramatiq.actor(queue_name="default", max_retries=0, time_limit=85_000)
def import_prices(supplier: str, at: int) -> None:
    """Hold a slot until the file is gone."""
    while hold_file().exists():
        check_cancelled()
        time.sleep(POLL_S)


@dramatiq.actor(queue_name="default")
def thank(customer: str) -> None:
    """Do nothing."""


@dramatiq.actor(queue_name="urgent", store_results=True, keep_logs=True, search=("customer",))
def confirm_order(customer: str, order: int) -> dict[str, Any]:
    """Succeed."""
    log.info("order %s of %s is confirmed", order, customer)
    return {"order": order, "confirmed": True}


@dramatiq.actor(queue_name="webhook", max_retries=9, min_backoff=HOUR_MS, max_backoff=HOUR_MS)
def ask_partner(partner: str) -> None:
    """Fail, and wait for the next attempt."""
    raise PartnerTimeout(f"https://{partner}.example/stock did not answer within 5 s")


@dramatiq.actor(queue_name="webhook", max_retries=0)
def tell_partner(partner: str) -> None:
    """Fail for good."""
    raise PartnerTimeout(f"https://{partner}.example/stock did not answer within 5 s")


@dramatiq.actor(queue_name="default", rate_limit="1/d")
def send_digest(customer: str) -> None:
    """Succeed once a day."""


@dramatiq.actor(queue_name="images")
def crop_picture(picture: int) -> None:
    """Wait, as the queue is paused."""


@dramatiq.actor(queue_name="default", max_retries=0, store_results=True, keep_logs=True, search=("text",))
def repeat(text: str, more: dict[str, Any], fails: bool) -> dict[str, Any]:
    """Say a text in every place that an actor can: log, progress, result, error."""
    log.warning("%s", text)
    report_progress(1, 2, text)
    if fails:
        raise ValueError(text)
    return {text: text, **more}
