"""From a request to a mail, over the real broker, worker and SMTP; the admin shows it and sends it again."""

from __future__ import annotations

import pytest
from django.urls import reverse

from apps.mail import guard
from apps.mail.models import MailState, SentMail
from tests.factories.callers import Caller
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "admin:mail_sentmail_changelist"


def waiting(facilities, queue):
    return facilities.transport.stats(queue).live.waiting


@pytest.mark.parametrize(("template", "queue"), [("welcome", "default"), ("password_reset", "urgent")])
def test_an_accepted_request_ends_as_one_mail(template, queue, smtp, facilities, run_worker):
    caller = Caller()

    answer = caller.post("/emails", {"to": "ada@mail.example", "template": template})
    job_id = answer.json()["job_id"]
    with run_worker(queue):
        job = wait_for(lambda: (found := facilities.records.read(job_id)) and found.ended and found)

    assert answer.status_code == 202
    assert (job.queue, job.state, job.attempts) == (queue, "succeeded", 1)
    assert [mail["Message-ID"] for mail in smtp.mails] == [f"<{job_id}@switchyard.example>"]


def test_a_job_tells_neither_the_address_nor_the_link(smtp, facilities, run_worker):
    caller = Caller()

    job_id = caller.post("/emails", {"to": "ada@mail.example", "template": "password_reset"}).json()["job_id"]
    with run_worker("urgent"):
        wait_for(lambda: (found := facilities.records.read(job_id)) and found.ended)
    shown = caller.get(f"/jobs/{job_id}").content.decode()

    assert "ada@" not in shown
    assert "/reset/" not in shown


def test_the_eleventh_welcome_mail_of_a_minute_waits(smtp, facilities, run_worker):
    caller = Caller()

    ids = [
        caller.post("/emails", {"to": f"ada{number}@mail.example", "template": "welcome"}).json()["job_id"]
        for number in range(11)
    ]
    with run_worker("default", threads=2):
        wait_for(lambda: len(smtp.mails) == 10)
        held = wait_for(
            lambda: [job for job in map(facilities.records.read, ids) if job.state == "scheduled"], what="one waits"
        )

    assert [job.reason for job in held] == ["rate_limit"]
    assert len(smtp.mails) == 10


def test_one_mailbox_gets_ten_reset_mails_however_it_is_spelt(smtp, facilities):
    callers = [Caller(), Caller("another")]
    spellings = ["ada@mail.example", "ADA@mail.example", "ada+1@mail.example"]

    answers = [
        callers[number % 2].post("/emails", {"to": spellings[number % 3], "template": "password_reset"})
        for number in range(15)
    ]
    other = callers[0].post("/emails", {"to": "bob@mail.example", "template": "password_reset"})

    assert [answer.status_code for answer in answers] == [202] * 10 + [429] * 5
    assert answers[-1]["Content-Type"] == "application/problem+json"
    assert 0 < int(answers[-1]["Retry-After"]) <= 15 * 60
    assert "ada" not in answers[-1].json()["detail"]
    assert other.status_code == 202
    assert waiting(facilities, "urgent") == 11


def make_mail(to, template="password_reset", job="j1"):
    mail, _ = guard.claim(f"{job}-{to}", template, to)
    guard.release(mail, state=MailState.SENT)
    return mail


def choose(client, action, *mails):
    return client.post(reverse(LIST), {"action": action, "_selected_action": [mail.pk for mail in mails]}, follow=True)


@pytest.mark.parametrize(
    ("mails", "queue", "count"),
    [
        ([("ada@mail.example",), ("ada@mail.example", "password_reset", "j2"), ("bob@mail.example",)], "urgent", 2),
        ([("ada@mail.example", "welcome"), ("bob@mail.example", "newsletter")], "default", 1),
    ],
    ids=["a reset once for each address", "a welcome and no newsletter"],
)
def test_mails_are_sent_again(admin_client, facilities, mails, queue, count):
    page = choose(admin_client, "send_again", *(make_mail(*each) for each in mails)).content.decode()

    assert waiting(facilities, queue) == count
    assert f"Mails on the way: {count};" in page


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
