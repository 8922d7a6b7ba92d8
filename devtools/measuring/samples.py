"""Sample actors to measure without one of the project: computing, waiting for HTTP, querying the database."""

from __future__ import annotations

import urllib.request

import dramatiq
from django.db import connection

from devtools.measuring.work import SAMPLES_QUEUE

# About 20 ms of plain Python.
ROUNDS = 300_000
# A query of about 10 ms: a sleep on PostgreSQL, else rows to count.
WAIT_SQL = "SELECT pg_sleep(0.01)"
COUNT_SQL = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT count(*) FROM n"


@dramatiq.actor(actor_name="sample_cpu", queue_name=SAMPLES_QUEUE, track=False)
def cpu() -> None:
    total = 0
    for number in range(ROUNDS):
        total += number


@dramatiq.actor(actor_name="sample_http", queue_name=SAMPLES_QUEUE, track=False)
def http(url: str) -> None:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  given by the command
        answer.read()


@dramatiq.actor(actor_name="sample_database", queue_name=SAMPLES_QUEUE, track=False)
def database() -> None:
    with connection.cursor() as cursor:
        cursor.execute(WAIT_SQL if connection.vendor == "postgresql" else COUNT_SQL)
        cursor.fetchone()
