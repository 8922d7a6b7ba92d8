"""Page of one row: its heading, state and figures, its facts with times in UTC, its job, its acts."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from apps.mail.models import MailState, SentMail, Template
from apps.reports.models import Report
from apps.shop.models import Customer
from switchyard.api.models import Token
from switchyard.broker.errors import BrokerUnavailable
from switchyard.dead_letters.models import DeadLetter
from tests.integration.jobs.history_rows import job_row
from tests.integration.operations.test_overview import text_of

pytestmark = pytest.mark.django_db

JOB = str(uuid.UUID(int=7))
SENT_AT = datetime(2026, 11, 20, 3, 11, 47, tzinfo=UTC)


@pytest.fixture
def mail() -> SentMail:
    return SentMail.objects.create(
        key=f"{JOB}:welcome", job_id=JOB, template=Template.WELCOME, to="grace@example.com", runs=3,
        state=MailState.REFUSED, created_at=SENT_AT,
    )  # fmt: skip


def page_of(client: Client, row: object) -> str:
    names = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"  # type: ignore[attr-defined]
    answer = client.get(reverse(names, args=[row.pk]))  # type: ignore[attr-defined]
    assert answer.status_code == 200
    return answer.content.decode()


def facts_of(page: str) -> dict[str, str]:
    """Return the list of facts, as text."""
    pairs = re.findall(r"<dt>([^<]*)</dt><dd class=\"field-[^>]*>(.*?)</dd>", page, re.DOTALL)
    return {name: text_of(value) for name, value in pairs}


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.usefixtures("facilities")
def test_a_row_shows_its_state_beside_its_heading_and_its_figures(admin_client: Client, mail: SentMail) -> None:
    page = page_of(admin_client, mail)

    heading = page[page.index('<h1 class="sy-title">') : page.index("</h1>")]
    assert "Welcome to grace@example.com" in heading
    assert '<span class="sy-word sy-bad">Refused</span>' in heading
    assert "<dt>3 runs</dt><dd>set out to send it</dd>" in page


@pytest.mark.usefixtures("facilities")
def test_facts_are_a_list_with_times_in_utc(admin_client: Client, mail: SentMail) -> None:
    page = page_of(admin_client, mail)

    facts = facts_of(page)
    assert facts["Created at"].startswith("20 Nov 2026 03:11:47 UTC")
    assert facts["Claimed until"] == "–"
    assert facts["State"] == "Refused" and '<dd class="field-state"><span class="sy-word sy-bad">' in page
    assert 'class="form-row' not in page and 'value="Close"' not in page


@pytest.mark.usefixtures("facilities")
def test_the_job_of_a_row_is_linked_with_its_actor_and_its_letter(admin_client: Client, mail: SentMail) -> None:
    job_row(job_id=JOB, actor="send_welcome_mail", queue="mail", state="dead", reason="exhausted")
    letter = DeadLetter.objects.create(
        message_id=JOB, queue="mail", actor="send_welcome_mail", payload={}, reason="exhausted", exception="KeyError",
        attempts=6, died_at=SENT_AT, enqueued_at=SENT_AT, duration_ms=1, fingerprint="f00d", state_at=SENT_AT,
    )  # fmt: skip

    page = page_of(admin_client, mail)

    assert f'href="{reverse("admin:switchyard_jobs_job_change", args=[JOB])}"' in page
    assert f'href="{reverse("switchyard-actor", args=["send_welcome_mail"])}"' in page
    assert f'href="{reverse("switchyard-queue", args=["mail"])}"' in page
    assert f'href="{reverse("admin:switchyard_dead_letters_deadletter_change", args=[letter.pk])}"' in page
    assert '<span class="sy-word sy-bad">dead</span>' in page


@pytest.mark.usefixtures("facilities")
def test_a_job_that_nobody_knows_and_a_broker_that_is_away_are_said(
    admin_client: Client, mail: SentMail, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "neither the broker nor the history knows it any more" in facts_of(page_of(admin_client, mail))["Job"]

    def away(job_id: str) -> None:
        raise BrokerUnavailable("read", "refused")

    monkeypatch.setattr("switchyard.jobs.passport.row_jobs.find_job", away)

    assert "the broker does not answer" in facts_of(page_of(admin_client, mail))["Job"]


@pytest.mark.usefixtures("facilities")
def test_acts_of_the_list_stand_on_the_page_and_work_there(admin_client: Client) -> None:
    token = Token.objects.create(name="shop", owner=User.objects.create_user("ida"), scopes=["read"], prefix="abc")
    page = page_of(admin_client, token)
    form = page[page.index('class="sy-acts">') : page.index("Revoke</button>")]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))

    answer = admin_client.post(reverse("admin:switchyard_api_token_changelist"), fields)

    assert fields["action"] == "revoke" and answer.status_code == 302
    token.refresh_from_db()
    assert token.revoked_at is not None


@pytest.mark.usefixtures("facilities")
def test_acts_need_their_right(mail: SentMail) -> None:
    page = page_of(staff("view_sentmail"), mail)

    assert "again</button>" not in page and ">Delete…</a>" not in page
    assert ">History</a>" in page


@pytest.mark.usefixtures("facilities")
def test_refused_pages_of_rows_name_the_missing_right(mail: SentMail) -> None:
    names, nobody = "admin:mail_sentmail", staff()
    list_page, row_page = reverse(f"{names}_changelist"), reverse(f"{names}_change", args=[mail.pk])

    refused = [nobody.get(list_page), nobody.get(row_page), nobody.get(reverse(f"{names}_delete", args=[mail.pk]))]
    adding = nobody.get(reverse("admin:shop_customer_add"))

    assert {answer.status_code for answer in (*refused, adding)} == {403}
    assert all("The missing right is mail.view_sentmail." in answer.content.decode() for answer in refused)
    assert "The missing right is shop.add_customer." in adding.content.decode()


def test_what_cannot_be_changed_stands_below_what_can(admin_client: Client) -> None:
    token = Token.objects.create(name="shop", owner=User.objects.create_user("ida"), scopes=["read"], prefix="abc")

    page = page_of(admin_client, token)

    assert page.index('name="name"') < page.index("<dt>Owner</dt>") < page.index('name="_save"')
    assert facts_of(page)["Revoked at"] == "–" and "UTC" in facts_of(page)["Created at"]


def test_sizes_and_names_in_code_are_shown_as_such(admin_client: Client) -> None:
    customer = Customer.objects.create(name="Ida", email="ida@example.com", country="NO")
    report = Report.objects.create(
        customer=customer, month="2026-10", checksum="c" * 64, file="reports/a.pdf", filename="a.pdf",
        content_type="application/pdf", size_bytes=48_213, sha256="a" * 64,
    )  # fmt: skip

    page = page_of(admin_client, report)

    assert facts_of(page)["Size"] == "47.1 KB 48,213 bytes"
    assert f'<code class="sy-code">{"a" * 64}</code>' in page
    assert f'href="{reverse("switchyard-actor", args=["generate_report"])}"' in page
    assert "Statement 2026-10 for Ida" in page


def test_a_time_that_can_be_changed_names_its_zone(admin_client: Client) -> None:
    customer = Customer.objects.create(name="Ida", email="ida@example.com", country="NO")

    assert "Created at (UTC):" in text_of(page_of(admin_client, customer))


@pytest.mark.usefixtures("facilities")
def test_an_address_of_an_attacker_is_no_markup(admin_client: Client) -> None:
    row = SentMail.objects.create(key="<b>k</b>", job_id="<b>j</b>", template=Template.WELCOME, to="<b>x</b>@x.example")

    page = page_of(admin_client, row)

    assert "<b>" not in page and "&lt;b&gt;x&lt;/b&gt;@x.example" in page
