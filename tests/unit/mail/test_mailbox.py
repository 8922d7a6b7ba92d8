"""The mailbox page, spellings of an address, reset links that work once, and the allowance of a mailbox."""

import asyncio
import datetime
import re
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest
import time_machine
from aiosmtpd.smtp import Envelope
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from apps.mail import allowances, guard, links, mailbox, services
from apps.mail.actors import send_password_reset
from apps.mail.allowances import mailbox_of
from apps.mail.apps import check_reset_retries
from apps.mail.models import UsedAllowance
from apps.mail.sink import Mailbox
from project.topology import YARD
from switchyard.api.problems import Problem
from switchyard.api.request_jobs import RequestJobs, request_jobs
from switchyard.broker.topology import RetryPolicy
from switchyard.middleware.retries import span_of

pytestmark = pytest.mark.django_db
SCRIPT = '<script>alert("x")</script>'
ADA = (
    *("ada@example.com", "ADA@Example.COM", "ada+1@example.com", "Ada+a+b@example.com", "ada@example.com."),
    *("\uff41da@example.com", '"ada"@example.com', '"\\ada"@example.com', '"a\\d\\A+x"@example.com'),
)


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setattr(mailbox, "folder", lambda: tmp_path)
    return Mailbox(tmp_path)


def put(box, *, subject="Hello", text="Text", html="<p>Hello</p>", to="ada@mail.example"):
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "yard@mail.example", to
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return box.keep(message.as_bytes(), [to])


def test_the_list_shows_the_newest_mail_first_and_an_empty_one_what_would_fill_it(admin_client, box):
    assert "python -m apps.mail.sink" in admin_client.get("/admin/mail/mailbox/").content.decode()
    put(box, subject="First")
    put(box, subject="Second")

    page = admin_client.get("/admin/mail/mailbox/").content.decode()

    assert page.index("Second") < page.index("First")


def test_the_list_can_be_searched(admin_client, box):
    for number in range(mailbox.SHOWN_MAILS + 1):
        put(box, subject=f"Mail number {number:03d}", to=f"a{number}@mail.example")

    found = admin_client.get("/admin/mail/mailbox/", {"q": "A0@mail"}).content.decode()

    assert "Mail number 000" not in admin_client.get("/admin/mail/mailbox/").content.decode()
    assert "Mail number 000" in found and "Mail number 008" not in found


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.seen = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_a_mails_html_is_shown_in_a_frame_that_runs_nothing(admin_client, box):
    path = put(box, subject=SCRIPT, text=SCRIPT, html=f'{SCRIPT}"><img src=x onerror=alert(1)>', to="ada@mail.example")

    page = admin_client.get(reverse("admin:mail_mailbox_mail", args=[path.name])).content.decode()

    seen = Tags(page).seen
    (frame,) = [attrs for tag, attrs in seen if tag == "iframe"]
    assert frame["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    assert "default-src 'none'" in frame["srcdoc"] and SCRIPT in frame["srcdoc"]
    assert SCRIPT not in page
    assert not [attrs for tag, attrs in seen if tag == "img" and "onerror" in attrs]


@pytest.mark.parametrize("name", ["../../etc/passwd", "x.eml", "..", "1-1-1.eml", "0" * 20 + "-1-1.eml"])
def test_a_name_that_is_no_mail_is_not_found(admin_client, box, name):
    assert mailbox.read(name) is None
    assert admin_client.get(f"/admin/mail/mailbox/{name}/").status_code == 404


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00",
        b"Subject: =?utf-8?b?////?=\r\n\r\n\xff",
        b"Content-Type: text/html; charset=klingon\r\n\r\nhi",
        b"Message-ID: <\r\n\r\nhi",
        b"From: a@[\r\n\r\nhi",
        b"Content-Type: text/html; charset=idna\r\n\r\n\xff",
        b"Content-Type: text/plain; charset=undefined\r\n\r\nhi",
        b'Content-Type: text/html; charset="\x00x"\r\n\r\nhi',
        b"Content-Type: text/plain; charset=unicode_escape\r\n\r\n\\ud800",
    ],
)
def test_a_mail_that_is_broken_can_be_read(admin_client, box, raw):
    path = box.keep(raw, ["ada@mail.example"])

    assert admin_client.get("/admin/mail/mailbox/").status_code == 200
    assert admin_client.get(reverse("admin:mail_mailbox_mail", args=[path.name])).status_code == 200


def test_a_mail_that_cannot_be_parsed_is_shown_as_its_text_beside_the_others(admin_client, box):
    put(box, subject="Readable")
    odd = box.keep(b"Message-ID: <\r\n\r\nits text", ["ada@mail.example"])

    listed = admin_client.get("/admin/mail/mailbox/").content.decode()
    shown = admin_client.get(reverse("admin:mail_mailbox_mail", args=[odd.name])).content.decode()

    assert "Readable" in listed and "Unreadable mail" in listed
    assert "its text" in shown


def test_a_full_disk_is_told_to_the_sender(box, monkeypatch):
    def full(raw, recipients):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(box, "keep", full)

    assert asyncio.run(box.handle_DATA(None, None, Envelope())).startswith("452 ")


def test_a_reset_outlasts_an_outage_of_twenty_minutes_and_ends_before_its_link(settings):
    least_ms, most_ms = span_of(send_password_reset, YARD.queue_of("urgent").retry)

    assert least_ms > 20 * 60_000
    assert most_ms < settings.PASSWORD_RESET_TIMEOUT * 1_000
    assert check_reset_retries(None) == []


def test_retries_that_outlast_the_link_are_refused(settings):
    long = RetryPolicy(delays_ms=(5_000, 18_000_000))
    queues = tuple(replace(queue, retry=long) for queue in YARD.queues)
    settings.SWITCHYARD = replace(settings.SWITCHYARD, topology=replace(YARD, queues=queues))

    [refused] = check_reset_retries(None)

    assert (refused.id, refused.obj) == ("switchyard.E061", "actor send_password_reset")
    assert refused.msg == "9 retries over 20 h to 1 day 17 h, but its link is valid for 1 h 00 min"


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        *((spelling, "ada@example.com", True) for spelling in ADA),
        ("a.d.a@gmail.com", "ada@googlemail.com", True),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example", True),
        ("jos\u00e9@example.com", "jose\u0301@example.com", True),
        ("a.da@example.com", "ada@example.com", False),
        ("ada@example.com", "ada@example.org", False),
        ("+a@example.com", "+b@example.com", False),
    ],
)
def test_spellings_of_one_mailbox_are_one_and_two_mailboxes_are_two(one, other, is_one):
    assert (mailbox_of(one) == mailbox_of(other)) is is_one


PASSWORD = "correct horse 17 battery"
TYPED = {"new_password1": PASSWORD, "new_password2": PASSWORD}


def page_of(address="ada@mail.example"):
    return re.fullmatch(r"https?://[^/]+(/account/reset/.+/)", links.reset_link(address))[1]


@pytest.fixture
def ada():
    return User.objects.create_user("ada", "ada@mail.example", "old password 1")


def test_a_link_sets_the_password_once_and_leaves_its_address(client, ada):
    page = page_of()

    opened = client.get(page)
    form = client.get(opened["Location"]).content.decode()
    done = client.post(opened["Location"], TYPED, follow=True).content.decode()
    again = client.get(page, follow=True).content.decode()

    ada.refresh_from_db()
    assert page not in opened["Location"] and "Choose a new password" in form and ada.email in form
    assert "Your password is changed" in done and "does not work any more" in again
    assert ada.check_password(PASSWORD)


@pytest.mark.parametrize(("minutes", "works"), [(59, True), (61, False)])
def test_a_link_works_for_an_hour(client, ada, minutes, works):
    with time_machine.travel("2026-11-20 10:00:00+00:00", tick=False) as clock:
        page = page_of()
        clock.shift(datetime.timedelta(minutes=minutes))
        said = client.get(page, follow=True).content.decode()

    assert ("Choose a new password" in said) is works


def test_a_forged_link_starts_no_session(client, ada):
    assert "does not work any more" in client.get(f"/account/reset/MQ/{'x' * 500}/").content.decode()

    assert not Session.objects.exists()


def test_a_mail_to_an_address_without_an_account_says_so(ada):
    addresses = (ada.email, "nobody@mail.example")
    mails = [guard.claim(to, "password_reset", to)[0] for to in addresses]

    known, unknown = (services.compose(mail).body for mail in mails)

    assert "/account/reset/" in known and "/account/reset/" not in unknown and "there is none" in unknown


@pytest.fixture
def compares_without_case(transactional_db):
    """SQLite, which knows the case of ASCII letters only, made to compare as PostgreSQL does."""

    def like(pattern, value, escape="\\"):
        return pattern.replace(escape, "").upper() == value.upper() if value is not None else False

    connection.ensure_connection()
    connection.connection.create_function("like", 3, like)
    yield
    connection.close()


@pytest.mark.sqlite
@pytest.mark.parametrize("address", ["g\u0131na@mail.example", "gina@ma\u0131l.example", "gina@\u017fhop.example"])
def test_an_address_that_only_looks_like_the_accounts_is_not_its(address, compares_without_case):
    User.objects.create_user("gina", address.replace("\u0131", "i").replace("\u017f", "s"), "old password 1")

    assert User.objects.filter(email__iexact=address).exists()
    assert links.account_of(address) is None


def test_the_case_of_an_address_does_not_matter(ada):
    assert links.account_of("ADA@Mail.example") == ada


@pytest.fixture(autouse=True)
def two_in_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "LIMIT", 2)
    monkeypatch.setattr(allowances, "WINDOW", timedelta(minutes=5))


def test_of_three_requests_for_a_mailbox_two_are_allowed_and_the_third_waits_for_the_window():
    answers = [allowances.use("ada") for _ in range(3)]

    assert answers[:2] == [0, 0]
    assert 295 <= answers[2] <= 300
    assert allowances.use("bob") == 0


def test_a_new_window_begins_when_the_old_one_is_over():
    for _ in range(3):
        allowances.use("ada")
    UsedAllowance.objects.update(began_at=timezone.now() - timedelta(minutes=5))

    assert [bool(allowances.use("ada")) for _ in range(3)] == [False, False, True]


def test_no_address_is_stored():
    allowances.use("ada@example.com")

    assert "ada" not in UsedAllowance.objects.get().key


def test_a_refusal_is_429_with_a_time_to_wait_and_frees_the_key():
    for _ in range(2):
        allowances.require("ada")

    with request_jobs(RequestJobs(has_key=True, claim="one claim")) as jobs, pytest.raises(Problem) as raised:
        allowances.require("ada")

    assert raised.value.status == 429
    assert 0 < int(raised.value.headers["Retry-After"]) <= 300
    assert jobs.refused_before_work


def test_a_repeated_request_is_counted_once():
    for _ in range(5):
        with request_jobs(RequestJobs(has_key=True, claim="one claim", repeated=True)):
            allowances.require("ada")

    assert not UsedAllowance.objects.exists()


def test_old_counts_are_purged():
    allowances.use("ada")
    UsedAllowance.objects.update(began_at=timezone.now() - timedelta(days=3))
    allowances.use("bob")

    assert (allowances.purge(), UsedAllowance.objects.count()) == (1, 1)
