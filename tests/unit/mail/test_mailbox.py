"""The mailbox page, spellings of an address that share a limit, and the retries of a reset beside its link."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest
from aiosmtpd.smtp import Envelope
from django.urls import reverse
from pytest_django import Settings

from apps.mail import mailbox
from apps.mail.actors import send_password_reset
from apps.mail.allowances import mailbox_of
from apps.mail.apps import check_reset_retries
from apps.mail.sink import Mailbox
from project.topology import YARD
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


def test_the_list_shows_the_newest_mail_first(admin_client, box):
    put(box, subject="First")
    put(box, subject="Second")

    page = admin_client.get("/admin/mail/mailbox/").content.decode()

    assert page.index("Second") < page.index("First")


def test_the_list_can_be_searched(admin_client, box):
    for number in range(mailbox.SHOWN_MAILS + 1):
        put(box, subject=f"Mail number {number:03d}", to=f"a{number}@mail.example")

    found = admin_client.get("/admin/mail/mailbox/", {"q": "A0@mail"}).content.decode()

    assert "Mail number 000" not in admin_client.get("/admin/mail/mailbox/").content.decode()
    assert "Mail number 000" in found
    assert "Mail number 008" not in found


def test_an_empty_mailbox_says_what_would_fill_it(admin_client, box):
    assert "python -m apps.mail.sink" in admin_client.get("/admin/mail/mailbox/").content.decode()


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
    assert "default-src 'none'" in frame["srcdoc"]
    assert SCRIPT in frame["srcdoc"]
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

    assert "Readable" in listed
    assert "Unreadable mail" in listed
    assert "its text" in shown


def test_a_full_disk_is_told_to_the_sender(box, monkeypatch):
    def full(raw, recipients):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(box, "keep", full)

    assert asyncio.run(box.handle_DATA(None, None, Envelope())).startswith("452 ")


def test_a_reset_outlasts_an_outage_of_twenty_minutes_and_ends_before_its_link(settings: Settings) -> None:
    least_ms, most_ms = span_of(send_password_reset, YARD.queue_of("urgent").retry)

    assert least_ms > 20 * 60_000
    assert most_ms < settings.PASSWORD_RESET_TIMEOUT * 1_000
    assert check_reset_retries(None) == []


def test_retries_that_outlast_the_link_are_refused(settings: Settings) -> None:
    long = RetryPolicy(delays_ms=(5_000, 18_000_000))
    queues = tuple(replace(queue, retry=long) for queue in YARD.queues)
    settings.SWITCHYARD = replace(settings.SWITCHYARD, topology=replace(YARD, queues=queues))

    [refused] = check_reset_retries(None)

    assert (refused.id, refused.obj) == ("switchyard.E061", "actor send_password_reset")
    assert refused.msg == "9 retries over 20 h to 1 day 17 h, but its link is valid for 1 h 00 min"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((spelling, "ada@example.com") for spelling in ADA),
        ("a.d.a@gmail.com", "ada@googlemail.com"),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("jos\u00e9@example.com", "jose\u0301@example.com"),
    ],
)
def test_spellings_of_one_mailbox_are_one(one: str, other: str) -> None:
    assert mailbox_of(one) == mailbox_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.da@example.com", "ada@example.com"),
        ("ada@example.com", "ada@example.org"),
        ("+a@example.com", "+b@example.com"),
    ],
)
def test_two_mailboxes_are_two(one: str, other: str) -> None:
    assert mailbox_of(one) != mailbox_of(other)
