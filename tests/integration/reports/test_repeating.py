"""The actor of the reports product may run again after a crash: one file, one row, the same result."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import time_machine

from apps.reports.actors import generate_report
from apps.reports.models import Report
from switchyard.testing import redelivered, run_enqueued
from tests.factories.shop import make_customer, make_invoice

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


def test_the_actor_of_reports_can_be_repeated() -> None:
    customer = make_customer()
    make_invoice(customer)
    generate_report.send(customer.pk, "2026-10")

    assert redelivered() == ["generate_report"]
    assert Report.objects.count() == 1


def test_a_later_job_finds_the_statement_unchanged() -> None:
    customer = make_customer()
    generate_report.send(customer.pk, "2026-10")
    first = run_enqueued()

    with time_machine.travel(datetime(2100, 1, 1, tzinfo=UTC)):
        generate_report.send(customer.pk, "2026-10")
        second = run_enqueued()

    assert [attempt.result["unchanged"] for attempt in (*first, *second)] == [False, True]
