"""The actor of the reports product may run again after a crash: one file, one row, the same result."""

import pytest

from apps.reports.actors import generate_report
from apps.reports.models import Report
from switchyard.testing import redelivered
from tests.factories.shop import make_customer, make_invoice

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker", "media")]


def test_the_actor_of_reports_can_be_repeated():
    customer = make_customer()
    make_invoice(customer)
    generate_report.send(customer.pk, "2026-10")

    assert redelivered() == ["generate_report"]
    assert Report.objects.count() == 1
