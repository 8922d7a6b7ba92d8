"""Actors of the mail product may run again after a crash: no mail goes out twice."""

import pytest
from django.core import mail

from apps.mail.actors import newsletter, send_password_reset, send_welcome_mail
from switchyard.testing import redelivered
from tests.factories.shop import make_customer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


def test_every_actor_of_mail_can_be_repeated():
    customer = make_customer()
    send_welcome_mail.send(customer.email)
    send_password_reset.send(customer.email)
    newsletter.send(customer.email, "News", ["There is some.", "And more."])

    assert redelivered() == ["newsletter", "send_password_reset", "send_welcome_mail"]
    assert len(mail.outbox) == 3
