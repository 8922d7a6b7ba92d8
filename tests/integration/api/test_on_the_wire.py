"""The API over a real socket: bodies of 100 MB, random requests against its document, fifty with one key at once."""

import http.client
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import schemathesis
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from ninja import Router, Status
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from project.asgi import application
from project.urls import api as project_api
from switchyard.api.application import build_api
from switchyard.api.auth import submit_scope
from switchyard.api.middleware import PREFIX
from switchyard.api.models import IdempotentRequest
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, StrictSchema
from switchyard.broker.admin.scheduled import cancel
from switchyard.jobs.services import submit
from tests.factories.web import serving
from tests.integration.jobs import probe_actors

MIB = 1024 * 1024
EXAMPLES = 4
CHECKS = [
    *(not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance),
    *(response_schema_conformance, ignored_auth, unsupported_method),
]
schema = schemathesis.openapi.from_dict(dict(project_api.get_openapi_schema(path_prefix=PREFIX)))
generously = hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    # One token and one database for all examples of an operation.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
CALLERS = 50
router = Router()


@pytest.fixture(scope="module")
def web():
    with serving(application) as address:
        yield address


def connect(web: str) -> http.client.HTTPConnection:
    address = urlsplit(web)
    return http.client.HTTPConnection(address.hostname, address.port, timeout=30)


def chunks(count: int) -> Iterator[bytes]:
    piece = b"x" * MIB
    for _ in range(count):
        yield piece


def test_a_declared_body_of_100_mb_is_413(web):
    connection = connect(web)
    connection.putrequest("POST", "/api/v1/jobs/1")
    connection.putheader("Content-Length", str(100 * MIB))
    connection.putheader("Content-Type", "application/json")
    connection.endheaders()

    answer = connection.getresponse()

    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")
    connection.close()


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
def test_a_chunked_body_of_100_mb_is_413_and_not_kept_in_memory(web, content_type, tmp_path):
    connection = connect(web)
    before = psutil.Process().memory_info().rss

    connection.request("POST", "/api/v1/jobs/1", chunks(100), {"Content-Type": content_type}, encode_chunked=True)
    answer = connection.getresponse()

    assert answer.status == 413
    assert answer.read().startswith(b"{")
    assert psutil.Process().memory_info().rss - before < 60 * MIB
    connection.close()


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/queues", "/api/v1/jobs/1/events"])
def test_refusals_are_problem_documents_under_asgi_too(web, path, transactional_db):
    connection = connect(web)

    connection.request("GET", path)
    answer: Any = connection.getresponse()

    assert answer.status in (401, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"
    connection.close()


@schema.parametrize()
@generously
def test_every_answer_is_documented_and_none_is_5xx(case, web, bearer, facilities):
    case.call_and_validate(base_url=web, headers=bearer, checks=CHECKS)


@pytest.fixture
def ended_job(bearer, facilities):
    """A job that the token may see, and that has ended."""
    job_id = submit(probe_actors.add, owner=f"user:{User.objects.get().pk}", kwargs={"a": 1, "b": 2})
    assert cancel(facilities, job_id) == "cancelled"
    return job_id


@schema.include(path_regex="job_id").parametrize()
@generously
def test_every_answer_about_a_job_that_exists_is_documented(case, web, bearer, ended_job):
    case.path_parameters["job_id"] = ended_job

    answer = case.call_and_validate(base_url=web, headers=bearer, checks=CHECKS)

    assert answer.status_code != 404 or case.path.endswith("/result")


class Sum(StrictSchema):
    """Two numbers."""

    a: int
    b: int


@router.post("", auth=submit_scope, response={202: Accepted})
def create_sum(request: Any, body: Sum) -> Status[dict[str, str]]:
    job_id = submit(probe_actors.add, owner=request.auth.owner_key, kwargs=body.model_dump())
    return Status(202, accepted(request, job_id))


api = build_api(("/jobs", "switchyard.jobs.api.router"), ("/sums", f"{__name__}.router"))
urlpatterns = [path(PREFIX, api.urls)]


@pytest.fixture
def sums(settings, bearer):
    settings.ROOT_URLCONF = __name__
    return bearer


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_of_fifty_requests_at_once_one_makes_the_job(sums, facilities, rounds):
    barrier = threading.Barrier(CALLERS)
    client = Client()
    client.get("/api/v1/nothing")  # loads the middleware, once for all threads

    def send(key: str) -> HttpResponse:
        try:
            barrier.wait(30)
            return client.post(
                "/api/v1/sums", json.dumps({"a": 1, "b": 2}), content_type="application/json",
                headers=sums | {"Idempotency-Key": key},
            )  # fmt: skip
        finally:
            connection.close()

    with ThreadPoolExecutor(CALLERS) as callers:
        for done in range(1, rounds + 1):
            key = str(uuid.uuid4())
            answers = list(callers.map(send, [key] * CALLERS))
            statuses = Counter(answer.status_code for answer in answers)
            assert set(statuses) <= {202, 409}, statuses
            assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
            assert facilities.transport.stats("default").live.waiting == done

    assert IdempotentRequest.objects.count() == rounds
