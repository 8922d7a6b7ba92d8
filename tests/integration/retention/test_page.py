"""The page of the retention, before and after a run."""

import pytest
from django.test import Client
from django.urls import reverse

from apps.mail.models import MailState, SentMail, Template
from apps.retention import services
from apps.retention.actors import apply_retention
from apps.retention.apps import check_retention_days
from apps.retention.models import FileRemoval, KindState
from switchyard.schedules.services import find
from tests.integration.operations.test_overview import text_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db]


@pytest.fixture(autouse=True)
def own_files(settings, media):
    settings.RETENTION_DAYS = {"mails": 30, "reports": 1}


def shown(client: Client) -> str:
    return text_of(client.get(reverse("switchyard-retention")).content.decode())


def test_before_the_first_run_the_page_says_where_figures_come_from(admin_client):
    page = shown(admin_client)

    assert "No figures yet" in page and "Its schedule" in page and "30 days" in page


def test_figures_are_those_of_the_last_run(admin_client):
    SentMail.objects.create(key="1", job_id="j", template=Template.WELCOME, to="a@b.example", state=MailState.SENT)
    FileRemoval.objects.create(name="results/2026/01/x/a.csv")
    services.work(1, for_s=60)
    SentMail.objects.create(key="2", job_id="j", template=Template.WELCOME, to="a@b.example", state=MailState.SENT)
    KindState.objects.filter(name="exports").update(error="the storage did not list results/: 403")

    page = shown(admin_client)
    mails = KindState.objects.get(name="mails")

    assert "No figures yet" not in page and "the storage did not list results/: 403" in page and "30 days" in page
    assert (mails.count, mails.size_bytes, mails.removed) == (1, None, 0)


def test_files_that_are_still_to_be_removed_are_told(admin_client):
    FileRemoval.objects.create(name="results/2026/01/x/a.csv")

    assert "1 file is still to be removed" in shown(admin_client)


def test_a_kind_that_no_app_keeps_is_refused_with_the_nearest_name(settings):
    settings.RETENTION_DAYS = {"report": 1, "zzz": 2}

    near, far = check_retention_days(None)

    assert (near.id, near.hint) == ("switchyard.E054", "did you mean reports?")
    assert "exports, mails, payment_events, pictures, reports, results" in str(far.hint)


@pytest.mark.django_db(transaction=True)
def test_the_job_is_scheduled_and_runs_to_its_end(facilities, run_worker, monkeypatch):
    monkeypatch.setattr("apps.retention.actors.AT_A_TIME_S", 0.0)  # each job makes one step

    apply_retention.send()
    with run_worker("default"):
        wait_for(lambda: KindState.objects.filter(done=True, ended_at__isnull=False).count() == 6)

    assert str(find("apply_retention").trigger)
