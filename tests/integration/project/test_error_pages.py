"""Pages of requests that fail, without database or session; arguments and logins stay with those who may have them."""

import logging
import re
import types
from typing import Any

import dramatiq
import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from django.utils import timezone

import project.urls
from project.settings import AXES_FAILURE_LIMIT as FAILURES
from switchyard.audit.services import Who, act
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.queries import find
from switchyard.jobs import pauses
from switchyard.jobs.request_origin import HEADER
from switchyard.jobs.services import submit
from switchyard.schedules.models import StoredSchedule
from tests.factories.letters import keep, letter
from tests.factories.pages import text_of
from tests.factories.staff import client_of
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.integration.project.url_table import ROUTES, model_rows

SECRET = "Tr0ub4dor"
JOBS = "/admin/switchyard_jobs/job/"
OTHERS = [
    *(f"/admin/operations/{page}" for page in ("audit/?export=csv", "audit/?export=json", "actors/probe_fail/")),
    *(f"/admin/operations/{page}" for page in ("", "live/", "queues/default/", "queues/default/live/")),
    f"{JOBS}?state=scheduled",
    f"{JOBS}?state=queued",
    f"{JOBS}?state=dead",
    f"{JOBS}?argument=reason={SECRET}",
]


def fail(request: HttpRequest) -> None:
    raise ZeroDivisionError("the secret of the yard")


class PostgresDiskFull(Exception):
    sqlstate = "53100"


def fill(request: HttpRequest) -> None:
    raise OperationalError("database or disk is full")


def fill_postgres(request: HttpRequest) -> None:
    raise OperationalError("could not extend file: No space left on device") from PostgresDiskFull()


@pytest.fixture
def failing(settings):
    """A client of the project with views that fail; pytest-django refuses it the database."""
    urls = types.ModuleType("urls_with_a_failure")
    urls.__dict__.update(vars(project.urls))
    urls.urlpatterns = [
        path("fails/", fail),
        path("fills/", fill),
        path("fills-postgres/", fill_postgres),
        *project.urls.urlpatterns,
        path("api/v1/", include(([path("fails", fail)], "switchyard_api"))),
    ]  # type: ignore[attr-defined]
    settings.ROOT_URLCONF = urls  # type: ignore[attr-defined]
    return Client(raise_request_exception=False)


def test_an_error_is_answered_without_database_broker_or_session(failing):
    answer = failing.get("/fails/", headers={HEADER: "from-the-proxy-7"})

    page = answer.content.decode()
    assert answer.status_code == 500
    assert "This page was not shown, because the program made an error." in page
    assert "from-the-proxy-7" in text_of(page) and answer[HEADER] == "from-the-proxy-7"
    assert "switchyard_frame/frame.css" in page and "secret of the yard" not in page
    assert answer["Cache-Control"] == "no-store" and "script-src 'self'" in answer["Content-Security-Policy"]
    assert ">Try again</a>" in page and "Nothing was changed by looking." in page
    acted = failing.post("/fails/").content.decode()
    assert ">Try again</a>" not in acted and "Whether what you asked for was done is not known" in acted


@pytest.mark.parametrize("path", ["/fills/", "/fills-postgres/"])
def test_a_full_disk_is_named(failing, path):
    answer = failing.post(path)

    page = answer.content.decode()
    assert answer.status_code == 503
    assert "because the disk of the database is full." in page and "Free space where the database lies" in page


def test_the_id_of_a_failed_request_is_logged(failing, caplog):
    answer = failing.get("/fails/")

    found = re.search(r'<code class="sy-code">([0-9a-f]{16})</code>', answer.content.decode())
    assert found is not None and found[1] == answer[HEADER]
    lines = [record.getMessage() for record in caplog.records if "a page was not shown" in record.getMessage()]
    assert len(lines) == 1 and found[1] in lines[0] and "ZeroDivisionError" in lines[0]


def test_an_error_of_the_api_is_a_problem_document(failing):
    answer = failing.get("/api/v1/fails")

    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["status"] == 500


def test_a_request_that_cannot_be_read_says_so(client):
    answer = client.get("/", headers={"host": "not served.example", HEADER: "id-8"})

    page = answer.content.decode()
    assert answer.status_code == 400
    assert "This request cannot be read" in page and "id-8" in text_of(page) and "switchyard_frame/frame.css" in page


def test_a_form_that_is_older_than_its_session_is_refused_in_words(db):
    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {})

    page = answer.content.decode()
    assert answer.status_code == 403
    assert "The form was refused, because it is older than your session" in page
    assert "switchyard_frame/frame.css" in page and not settings.DEBUG


@pytest.fixture
def eve(db):
    user = User.objects.create_user("eve", is_staff=True)
    rights = Permission.objects.filter(content_type__app_label__startswith="switchyard_")
    user.user_permissions.set(rights.exclude(codename="view_arguments"))
    return client_of(user)


@pytest.fixture
def jobs(facilities):
    """A waiting, a scheduled, a dead and an ended job, each with the argument."""
    sent = submit(probe_actors.fail, kwargs={"reason": SECRET})
    later = submit(probe_actors.fail, delay_ms=600_000, kwargs={"reason": SECRET})
    made = letter(id="letter", actor="probe_fail")
    made.message["kwargs"] = {"reason": SECRET}
    keep(made)
    return [sent, later, made.id, job_row(state="dead", arguments=f'{{"reason": "{SECRET}"}}').job_id]


@pytest.mark.django_db
def test_no_address_shows_an_argument_without_the_right(jobs, eve):
    broker, now = dramatiq.get_broker(), timezone.now()
    entry = Quarantine.entry("default", f'{{"args":["{SECRET}"]}}'.encode(), "no actor", message_id="odd")
    broker.client.lpush(broker.keys.queue("default").quarantine, entry)
    kwargs = {"dataset": SECRET, "format": "csv"}
    StoredSchedule.objects.create(name="nightly", actor="export_dataset", cron="0 2 * * *", kwargs=kwargs)
    chosen = {"argument": f"reason={SECRET}"}
    bulk = BulkAct.objects.create(kind="job.cancel", filter=chosen, total=1, created_at=now, touched_at=now)
    who = Who("ada", "page")
    pauses.pause(pauses.chosen(probe_actors.fail, f"reason={SECRET} of bob"), who=who)
    pauses.resume(pauses.chosen(probe_actors.fail, f"reason={SECRET} of bob"), who=who)
    pauses.pause(pauses.chosen(probe_actors.fail, f"reason={SECRET}"), who=who)
    for name, of_old, detail in (
        ("job.edit", "", {"changes": {"reason": {"from": SECRET, "to": "x"}}}),
        ("actor.pause", f'probe_fail with reason="{SECRET}"', {}),
        ("circuit.open", f'probe_fail with reason="{SECRET}"', {}),
        ("bulk.start", "", {"filter": chosen}),
    ):
        with act(name, who=who, target=of_old or jobs[0], detail=detail):
            pass
    names: dict[str, Any] = dict.fromkeys(
        ("alert", "silence", "token", "user", "group", "worker", "quieted", "member"), "1"
    )
    names |= {
        "queue": "default", "schedule": "purge_delivery_attempts", "stored": "nightly",
        "fingerprint": "f00dfacef00dface",
    }  # fmt: skip
    rows = [row for found in (*model_rows().values(), *ROUTES.values()) for row in found if row.method == "GET"]
    names |= {"letter": find("letter").pk, "bulk": bulk.pk}
    paths = {row.path.format(**names, job=job) for row in rows for job in jobs if "events" not in row.path}

    answers = {
        path: eve.get(path) for path in [*sorted(paths), *(f"{JOBS}{job}/?format=json" for job in jobs), *OTHERS]
    }

    shown = {path: answer for path, answer in answers.items() if answer.status_code == 200 and not answer.streaming}
    assert [path for path, answer in shown.items() if SECRET in answer.content.decode()] == []
    assert len(shown) > 60


LOGIN = "/admin/login/?next=/admin/"


@pytest.fixture
def ada(db, settings):
    """A superuser of a web with keys of its own, which answers other machines."""
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if each != "project.middleware.loopback_only"]
    return User.objects.create_superuser("ada", "ada@example.com", "correct horse")


def log_in(password: str, *, address: str = "192.0.2.1", username: str = "ada", **headers: str) -> HttpResponse:
    data = {"username": username, "password": password, "next": "/admin/"}
    return Client(REMOTE_ADDR=address, **headers).post(LOGIN, data)


def test_further_wrong_passwords_are_not_answered(ada, caplog):
    with caplog.at_level(logging.WARNING):
        statuses = [log_in(f"wrong {number}").status_code for number in range(FAILURES + 3)]
    answer = log_in("correct horse")

    assert (statuses.count(200), statuses[FAILURES:]) == (FAILURES - 1, [429] * 3)
    assert (answer.status_code, answer["Retry-After"]) == (429, "900")
    assert "Try again in 15 minutes" in answer.content.decode()
    assert any("ada" in record.getMessage() and "192.0.2.1" in record.getMessage() for record in caplog.records)
    assert not any("wrong" in record.getMessage() for record in caplog.records)


def test_the_owner_logs_in_from_another_address_and_another_user_from_the_same(ada):
    User.objects.create_superuser("grace", "grace@example.com", "correct horse")
    for number in range(FAILURES):
        log_in(f"wrong {number}")

    assert log_in("correct horse", address="192.0.2.2").status_code == 302
    assert log_in("correct horse", username="grace").status_code == 302


def test_a_header_does_not_change_the_address(ada):
    for number in range(FAILURES + 1):
        answer = log_in(f"wrong {number}", HTTP_X_FORWARDED_FOR=f"192.0.2.{number + 10}")

    assert answer.status_code == 429


def test_a_successful_login_forgets_the_failures(ada):
    for _ in range(2):
        for number in range(FAILURES - 1):
            log_in(f"wrong {number}")
        assert log_in("correct horse").status_code == 302

    assert AccessAttempt.objects.count() == 0
