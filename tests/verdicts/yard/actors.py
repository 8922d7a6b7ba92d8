"""Actors that are quick, slow, limited, wrong in half of their runs, or the end of their worker."""

import os
import socket
import threading

import dramatiq
import urllib3
from django.db import connection, transaction
from periodiq import cron

from switchyard.middleware.errors import PermanentFailure
from tests.ways import hold


def work(ms: int) -> None:
    threading.Event().wait(ms / 1000)


dramatiq.actor(work, actor_name="send_mail", queue_name="default", schedulable=True)
dramatiq.actor(work, actor_name="welcome", queue_name="default", rate_limit="10/m")
for name in ("export_invoices", "sync_stock", "import_orders", "remind"):
    dramatiq.actor(work, actor_name=name, queue_name="default")
for name, queue in (
    ("login_mail", "urgent"),
    ("slow_report", "urgent"),
    ("ping_hook", "hooks"),
    ("long_export", "reports"),
):
    dramatiq.actor(work, actor_name=name, queue_name=queue)
dramatiq.actor(hold, actor_name="parse_address", queue_name="default")


@dramatiq.actor(queue_name="default", periodic=cron("*/5 * * * *"))
def sync_rates() -> None:
    work(1)


@dramatiq.actor(queue_name="default")
def vat_report(number: int) -> None:
    if number % 2:
        try:
            {}["vat_rate"]
        except KeyError as error:
            raise PermanentFailure("the rate is missing") from error


dramatiq.actor(vat_report.fn, actor_name="old_report", queue_name="default")


@dramatiq.actor(queue_name="hooks", max_retries=2)
def deliver_webhook(url: str) -> None:
    post(url)


@dramatiq.actor(queue_name="default", max_retries=5, min_backoff=20_000, max_backoff=20_000)
def call_bank(url: str) -> None:
    post(url)


class MailNotSent(Exception):
    pass


def greet(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=1.5) as connection:
        try:
            connection.recv(100)
        except TimeoutError as error:
            raise MailNotSent("no greeting came") from error


dramatiq.actor(greet, actor_name="reset_mail", queue_name="urgent", max_retries=0)
dramatiq.actor(greet, actor_name="newsletter", queue_name="default", max_retries=0)


@dramatiq.actor(queue_name="default")
def fan_out() -> None:
    work(200)
    fan_out.send()


@dramatiq.actor(queue_name="default")
def sync_customer(customer_id: int) -> None:
    work(300)


class CardRefused(Exception):
    pass


@dramatiq.actor(queue_name="default", max_retries=0)
def charge(customer_id: int) -> None:
    if customer_id == 7:
        raise CardRefused("no such account")


def post(url: str) -> None:
    retries = urllib3.Retry(total=0, status_forcelist=(500,), allowed_methods=None)
    with urllib3.PoolManager(timeout=2) as pool:
        pool.request("POST", url, retries=retries)


@dramatiq.actor(queue_name="hooks")
def write_row(job: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO verdict_row (job) VALUES (%s)", [job])


@dramatiq.actor(queue_name="default")
def crash_worker() -> None:
    os.abort()
