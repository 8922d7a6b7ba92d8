"""A mail is sent once and refused in words, over a real SMTP server, from the API and in the admin; the sink."""

import re
import signal
import smtplib
import socket
import subprocess
import sys
import traceback
import uuid

import pytest
from django.urls import reverse

from apps.mail import guard, services
from apps.mail.models import MailState, SentMail, Template
from apps.mail.services import MailNotSent
from switchyard.middleware.errors import PermanentFailure, RetryLater
from tests.factories.callers import Caller
from tests.factories.shop import make_customer
from tests.factories.smtp import smtp_server
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
TO = "ada@mail.example"


@pytest.fixture
def smtp(settings):
    with smtp_server() as recorder:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", recorder.port, 5
        yield recorder


def job() -> str:
    return str(uuid.uuid4())


def test_a_repeated_run_of_a_job_sends_its_mail_once(smtp):
    job_id = job()

    first = services.deliver(Template.WELCOME, TO, job_id=job_id)
    assert (first, services.deliver(Template.WELCOME, TO, job_id=job_id)) == (True, False)
    assert smtp.recipients == [TO]
    assert SentMail.objects.get().state == MailState.SENT
    assert services.deliver(Template.WELCOME, TO, job_id=job())
    assert smtp.recipients == [TO, TO]


def test_a_mail_has_a_text_and_an_html_version_and_the_jobs_message_id(smtp):
    make_customer(name="Ada <b>Lovelace</b>", email=TO)
    job_id = job()

    services.deliver(Template.WELCOME, TO, job_id=job_id)

    (mail,) = smtp.mails
    text, html = mail.get_body(("plain",)).get_content(), mail.get_body(("html",)).get_content()
    assert (mail["Message-ID"], mail["To"]) == (f"<{job_id}@switchyard.example>", TO)
    assert "Welcome, Ada <b>Lovelace</b>." in text
    assert "Welcome, Ada &lt;b&gt;Lovelace&lt;/b&gt;." in html


def test_a_crash_after_the_server_accepted_sends_again_under_the_same_message_id(smtp):
    job_id = job()
    mail, _ = guard.claim(job_id, Template.WELCOME, TO)
    services.send(services.compose(mail))  # the worker dies here, before mark_sent
    SentMail.objects.update(claimed_until=None)  # the claim lapsed

    services.deliver(Template.WELCOME, TO, job_id=job_id)

    assert (len(smtp.mails), smtp.mails[0]["Message-ID"]) == (2, smtp.mails[1]["Message-ID"])


def test_a_second_run_beside_the_first_waits_until_the_claim_lapses(smtp):
    job_id = job()
    guard.claim(job_id, Template.WELCOME, TO)

    with pytest.raises(RetryLater) as held:
        services.deliver(Template.WELCOME, TO, job_id=job_id)

    assert 1_000 < held.value.delay <= (guard.CLAIM_S + 1) * 1_000
    assert smtp.mails == []


@pytest.mark.parametrize(
    ("of", "reply"),
    [("replies", "550 5.1.1 <ada@mail.example> no such user"), ("data_replies", "554 5.7.1 looks like spam")],
)
def test_a_recipient_or_content_that_is_refused_for_good_fails_for_good(smtp, of, reply):
    setattr(smtp, of, [reply])

    with pytest.raises(PermanentFailure, match=re.escape(reply[:9])):
        services.deliver(Template.WELCOME, TO, job_id=job())

    mail = SentMail.objects.get()
    assert (mail.state, mail.reply, mail.claimed_until) == (MailState.REFUSED, reply[:9], None)


def test_a_greylisting_server_is_asked_again_in_a_minute_and_then_takes_it(smtp):
    smtp.replies = ["451 4.7.1 come back later"]
    job_id = job()

    with pytest.raises(RetryLater, match=r"451 4\.7\.1") as later:
        services.deliver(Template.WELCOME, TO, job_id=job_id)
    sent = services.deliver(Template.WELCOME, TO, job_id=job_id)

    assert later.value.delay == 60_000
    assert sent
    assert (SentMail.objects.get().runs, len(smtp.mails)) == (2, 1)


def test_a_server_that_is_not_there_means_another_try(settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    with socket.socket() as closed_again:
        closed_again.bind(("127.0.0.1", 0))
        settings.EMAIL_HOST, settings.EMAIL_PORT = closed_again.getsockname()

    with pytest.raises(MailNotSent, match="ConnectionRefusedError"):
        services.deliver(Template.PASSWORD_RESET, TO, job_id=job())

    assert SentMail.objects.get().claimed_until is None


def test_a_connection_lost_before_the_answer_means_another_try(smtp):
    smtp.hang_up_after_data = True

    with pytest.raises(MailNotSent, match="SMTPServerDisconnected"):
        services.deliver(Template.WELCOME, TO, job_id=job())


@pytest.mark.parametrize("reply", ["550 5.1.1 <ada@mail.example> unknown", "451 4.7.1 <ada@mail.example> wait"])
def test_no_traceback_of_a_refusal_holds_the_recipient(smtp, reply):
    smtp.replies = [reply]

    with pytest.raises((PermanentFailure, RetryLater)) as refused:
        services.deliver(Template.WELCOME, TO, job_id=job())

    assert TO not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("address", ["", "nobody", "a@b@c.example", "ada@mail.example\nBcc: eve@mail.example"])
def test_what_is_no_address_fails_for_good_before_anything_is_sent(smtp, address):
    with pytest.raises(PermanentFailure, match="not an e-mail address"):
        services.deliver(Template.WELCOME, address, job_id=job())

    assert smtp.mails == []
    assert not SentMail.objects.exists()


def test_a_reset_mail_carries_a_link_that_no_table_holds(smtp, django_user_model):
    django_user_model.objects.create_user("ada", TO)
    services.deliver(Template.PASSWORD_RESET, TO, job_id=job())

    (mail,) = smtp.mails
    text, html = mail.get_body(("plain",)).get_content(), mail.get_body(("html",)).get_content()
    link = re.search(r"http://\S+/reset/(\S+)/", text)
    assert html.count(link[0]) == 3
    assert link[1] not in str(list(SentMail.objects.values()))


def test_a_newsletter_that_is_refused_is_dropped_without_a_failure(smtp):
    smtp.replies = ["550 5.1.1 gone"]

    assert services.send_newsletter(TO, "News", ["One thing."], job_id=job()) is False


def test_a_newsletter_says_its_headline_and_how_to_leave(smtp):
    services.send_newsletter(TO, "Two new\nthings", ["One & two."], job_id=job())

    (mail,) = smtp.mails
    assert mail["Subject"] == "Two new things"
    assert mail["List-Unsubscribe"].startswith("<mailto:unsubscribe@")
    assert "One & two." in mail.get_body(("plain",)).get_content()
    assert "One &amp; two." in mail.get_body(("html",)).get_content()


@pytest.fixture
def sink(tmp_path):
    """The sink as a process that keeps mails in the test's folder, and its port."""
    command = [sys.executable, "-m", "apps.mail.sink", "--port", "0", "--dir", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline().strip()
        assert ready.startswith("ready: 127.0.0.1:")
        yield process, int(ready.rpartition(":")[2])
        process.kill()


def client_of(port):
    return smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=30)


def test_the_sink_keeps_a_mail_as_a_file_and_stops_on_sigterm(sink, tmp_path):
    process, port = sink
    with client_of(port) as client:
        client.sendmail("yard@mail.example", ["ada@mail.example"], "Subject: Hello\r\n\r\nText\r\n")
        [kept] = (tmp_path / "new").glob("*.eml")
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)

    assert b"X-Envelope-To: ada@mail.example" in kept.read_bytes()
    assert (list((tmp_path / "tmp").iterdir()), code) == ([], 0)


def test_the_sink_keeps_the_mails_of_many_clients_at_once(sink, tmp_path):
    clients = [client_of(sink[1]) for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendmail("yard@mail.example", [f"a{number}@mail.example"], f"Subject: {number}\r\n\r\nText\r\n")

    wait_for(lambda: len(list((tmp_path / "new").glob("*.eml"))) == 20)
    for client in clients:
        client.close()


LIST = "admin:mail_sentmail_changelist"


def waiting(facilities, queue):
    return facilities.transport.stats(queue).live.waiting


@pytest.mark.parametrize(("template", "queue"), [("welcome", "default"), ("password_reset", "urgent")])
def test_an_accepted_request_ends_as_one_mail(template, queue, smtp, facilities, run_worker):
    answer = Caller().post("/emails", {"to": "ada@mail.example", "template": template})
    job_id = answer.json()["job_id"]
    with run_worker(queue):
        job = wait_for(lambda: (found := facilities.records.read(job_id)) and found.ended and found)

    assert (answer.status_code, job.queue, job.state, job.attempts) == (202, queue, "succeeded", 1)
    assert [mail["Message-ID"] for mail in smtp.mails] == [f"<{job_id}@switchyard.example>"]


def test_a_job_tells_neither_the_address_nor_the_link(smtp, facilities, run_worker):
    caller = Caller()

    job_id = caller.post("/emails", {"to": "ada@mail.example", "template": "password_reset"}).json()["job_id"]
    with run_worker("urgent"):
        wait_for(lambda: (found := facilities.records.read(job_id)) and found.ended)
    shown = caller.get(f"/jobs/{job_id}").content.decode()

    assert "ada@" not in shown and "/reset/" not in shown


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
    assert (other.status_code, waiting(facilities, "urgent")) == (202, 11)


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
