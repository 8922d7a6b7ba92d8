"""The admin shows what was sent and sends again, for those who may."""

from __future__ import annotations

import pytest
from django.urls import reverse

from apps.mail import guard
from apps.mail.models import MailState, SentMail

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "admin:mail_sentmail_changelist"


def make_mail(to, template="password_reset", job="j1"):
    mail, _ = guard.claim(f"{job}-{to}", template, to)
    guard.release(mail, state=MailState.SENT)
    return mail


def choose(client, action, *mails):
    return client.post(reverse(LIST), {"action": action, "_selected_action": [mail.pk for mail in mails]}, follow=True)


def waiting(facilities, queue):
    return facilities.transport.stats(queue).live.waiting


def test_a_reset_mail_is_sent_again_once_for_each_address(admin_client, facilities):
    mails = [make_mail("ada@mail.example"), make_mail("ada@mail.example", job="j2"), make_mail("bob@mail.example")]

    page = choose(admin_client, "send_again", *mails).content.decode()

    assert waiting(facilities, "urgent") == 2
    assert "Mails on the way: 2;" in page


def test_a_welcome_mail_is_sent_again_and_a_newsletter_is_not(admin_client, facilities):
    mails = [make_mail("ada@mail.example", "welcome"), make_mail("bob@mail.example", "newsletter")]

    page = choose(admin_client, "send_again", *mails).content.decode()

    assert waiting(facilities, "default") == 1
    assert "Mails on the way: 1;" in page


def test_a_long_list_needs_no_query_for_each_row(admin_client, django_assert_max_num_queries):
    for number in range(30):
        make_mail(f"a{number}@mail.example")

    with django_assert_max_num_queries(20):
        admin_client.get(reverse(LIST))

    assert SentMail.objects.count() == 30


def test_an_operator_cannot_flood_a_mailbox_either(admin_client, facilities):
    mail = make_mail("ada@mail.example")

    pages = [choose(admin_client, "send_again", mail).content.decode() for _ in range(11)]

    assert waiting(facilities, "urgent") == 10
    assert "Reset mails not sent: 1; an address gets at most 10 in 15 minutes" in pages[-1]
