"""The job of a product's row, on the row's page in the admin: its state, its actor and its dead letter as links."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from django.test import Client
from django.urls import reverse

from apps.mail.models import SentMail, Template
from switchyard.console.links import letter_url
from switchyard.dead_letters.models import DeadLetter
from tests.factories.pages import text_of
from tests.integration.jobs.history_rows import job_row

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("facilities")]

JOB = str(uuid.UUID(int=7))
SENT_AT = datetime(2026, 11, 20, 3, 11, 47, tzinfo=UTC)


def page_of_mail(client: Client, *, job_id: str = JOB, to: str = "grace@example.com") -> str:
    row = SentMail.objects.create(key=f"{job_id}:welcome", job_id=job_id, template=Template.WELCOME, to=to)
    answer = client.get(reverse("admin:mail_sentmail_change", args=[row.pk]))
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_job_of_a_row_is_linked_with_its_actor_and_its_letter(admin_client: Client) -> None:
    job_row(job_id=JOB, actor="send_welcome_mail", queue="mail", state="dead", reason="exhausted")
    letter = DeadLetter.objects.create(
        message_id=JOB, queue="mail", actor="send_welcome_mail", payload={}, reason="exhausted", exception="KeyError",
        attempts=6, died_at=SENT_AT, enqueued_at=SENT_AT, duration_ms=1, fingerprint="f00d", state_at=SENT_AT,
    )  # fmt: skip

    page = page_of_mail(admin_client)

    for address in (
        reverse("switchyard-job", args=[JOB]),
        reverse("switchyard-actor", args=["send_welcome_mail"]),
        reverse("switchyard-queue", args=["mail"]),
        letter_url(letter.pk),
    ):
        assert f'href="{address}"' in page
    assert f"{JOB} dead on mail exhausted" in text_of(page)


def test_an_address_of_an_attacker_is_no_markup(admin_client: Client) -> None:
    page = page_of_mail(admin_client, job_id="<b>j</b>", to="<b>x</b>@x.example")

    assert "<b>" not in page and "&lt;b&gt;x&lt;/b&gt;@x.example" in page
