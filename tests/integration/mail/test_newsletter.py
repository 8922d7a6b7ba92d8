"""The newsletter goes to every customer, after everything else."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command

from apps.mail.actors import newsletter, send_welcome_mail
from apps.mail.management.commands.newsletter import Command
from tests.factories.shop import make_customer
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_command_enqueues_a_mail_for_each_customer_and_workers_send_them(smtp, facilities, run_worker):
    customers = [make_customer() for _ in range(3)]
    said = io.StringIO()

    call_command("newsletter", "Two new things", "One.", "Two.", stdout=said)
    with run_worker("default"):
        wait_for(lambda: len(smtp.mails) == 3)

    assert said.getvalue() == "newsletter: 3 mails enqueued\n"
    assert sorted(smtp.recipients) == sorted(customer.email for customer in customers)
    assert {mail["Subject"] for mail in smtp.mails} == {"Two new things"}


def test_one_address_can_be_chosen(smtp, facilities, run_worker):
    make_customer()

    call_command("newsletter", "Two new things", "One.", to=["ada@mail.example"], stdout=io.StringIO())
    with run_worker("default"):
        wait_for(lambda: smtp.recipients)

    assert smtp.recipients == ["ada@mail.example"]


def test_what_is_no_address_is_refused(facilities, capsys):
    with pytest.raises(SystemExit) as caught:
        Command().run_from_argv(["manage.py", "newsletter", "Two new things", "One.", "--to", "nobody"])

    assert caught.value.code == 2
    assert "'nobody' is no address" in capsys.readouterr().err


def test_other_mails_of_the_queue_come_first():
    assert newsletter.priority > send_welcome_mail.priority
