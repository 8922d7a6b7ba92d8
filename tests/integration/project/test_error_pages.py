"""Pages of requests that fail: in the room's design, with the request's id, and without database or session."""

from __future__ import annotations

import re
import types

import pytest
from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest
from django.test import Client
from django.urls import include, path

import project.urls
from switchyard.jobs.request_origin import HEADER
from tests.factories.pages import text_of


def fail(request: HttpRequest) -> None:
    raise ZeroDivisionError("the secret of the yard")


class PostgresDiskFull(Exception):
    sqlstate = "53100"


def fill(request: HttpRequest) -> None:
    raise OperationalError("database or disk is full")


def fill_postgres(request: HttpRequest) -> None:
    raise OperationalError("could not extend file: No space left on device") from PostgresDiskFull()


@pytest.fixture
def failing(settings: object) -> Client:
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


def test_an_error_is_answered_without_database_broker_or_session(failing: Client) -> None:
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
def test_a_full_disk_is_named(failing: Client, path: str) -> None:
    answer = failing.post(path)

    page = answer.content.decode()
    assert answer.status_code == 503
    assert "because the disk of the database is full." in page and "Free space where the database lies" in page


def test_the_id_of_a_failed_request_is_logged(failing: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = failing.get("/fails/")

    found = re.search(r'<code class="sy-code">([0-9a-f]{16})</code>', answer.content.decode())
    assert found is not None and found[1] == answer[HEADER]
    lines = [record.getMessage() for record in caplog.records if "a page was not shown" in record.getMessage()]
    assert len(lines) == 1 and found[1] in lines[0] and "ZeroDivisionError" in lines[0]


def test_an_error_of_the_api_is_a_problem_document(failing: Client) -> None:
    answer = failing.get("/api/v1/fails")

    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["status"] == 500


def test_a_request_that_cannot_be_read_says_so(client: Client) -> None:
    answer = client.get("/", headers={"host": "not served.example", HEADER: "id-8"})

    page = answer.content.decode()
    assert answer.status_code == 400
    assert "This request cannot be read" in page and "id-8" in text_of(page) and "switchyard_frame/frame.css" in page


def test_a_form_that_is_older_than_its_session_is_refused_in_words(db: None) -> None:
    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {})

    page = answer.content.decode()
    assert answer.status_code == 403
    assert "The form was refused, because it is older than your session" in page
    assert "switchyard_frame/frame.css" in page and not settings.DEBUG
