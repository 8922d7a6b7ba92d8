"""From a request to a mail, over the real broker, worker and SMTP."""

from __future__ import annotations

import pytest

from apps.mail.models import UsedAllowance
from tests.factories.callers import Caller
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_a_message_that_is_delivered_twice_sends_one_mail(smtp, facilities, run_worker):
    from apps.mail.actors import send_password_reset

    broker = send_password_reset.broker
    message = send_password_reset.message(to="ada@mail.example")
    broker.enqueue(message)
    with run_worker("urgent"):
        wait_for(lambda: smtp.mails)
        broker.join("urgent", timeout=60_000)
        broker.client.delete(*broker.families["urgent"].keys.done)  # as if its end were forgotten
        broker.enqueue(message)
        broker.join("urgent", timeout=60_000)
        wait_for(lambda: (found := facilities.records.read(message.message_id)) and found.ended)

    assert len(smtp.mails) == 1


def test_a_refused_recipient_is_dead_at_once_and_its_letter_names_no_address(smtp, facilities, run_worker):
    smtp.replies = ["550 5.1.1 <ada@mail.example> unknown"]
    caller = Caller()

    job_id = caller.post("/emails", {"to": "ada@mail.example", "template": "password_reset"}).json()["job_id"]
    with run_worker("urgent", "urgent-retry"):
        job = wait_for(lambda: (found := facilities.records.read(job_id)) and found.ended and found)

    letter = facilities.transport.find_dead_letter("urgent", job_id)
    assert (job.state, job.reason, job.attempts) == ("dead", "permanent", 1)
    assert "ada@" not in letter.error + letter.traceback


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


def test_a_key_that_was_refused_by_a_limit_is_free_again(facilities):
    caller = Caller()
    body = {"to": "ada@mail.example", "template": "password_reset"}
    for _ in range(10):
        caller.post("/emails", body)
    caller.headers["Idempotency-Key"] = "k1"
    refused = [caller.post("/emails", body).status_code for _ in range(2)]
    UsedAllowance.objects.all().delete()

    assert refused == [429, 429]
    assert caller.post("/emails", body).status_code == 202
