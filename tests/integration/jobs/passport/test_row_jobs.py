"""The job of a product's row, on the row's page in the admin: a link to the job's page."""

from __future__ import annotations

import uuid

import pytest
from django.test import Client
from django.urls import reverse

from apps.mail.models import SentMail, Template

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("facilities")]

JOB = str(uuid.UUID(int=7))


def page_of_mail(client: Client, *, job_id: str = JOB, to: str = "grace@example.com") -> str:
    row = SentMail.objects.create(key=f"{job_id}:welcome", job_id=job_id, template=Template.WELCOME, to=to)
    answer = client.get(reverse("admin:mail_sentmail_change", args=[row.pk]))
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_job_of_a_row_is_linked(admin_client: Client) -> None:
    assert f'href="{reverse("switchyard-job", args=[JOB])}"' in page_of_mail(admin_client)


def test_an_address_of_an_attacker_is_no_markup(admin_client: Client) -> None:
    page = page_of_mail(admin_client, job_id="<b>j</b>", to="<b>x</b>@x.example")

    assert "<b>" not in page and "&lt;b&gt;x&lt;/b&gt;@x.example" in page
