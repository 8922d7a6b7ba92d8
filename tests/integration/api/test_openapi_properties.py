"""Requests that the OpenAPI document allows, and many that it forbids, are answered as the document says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
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
from project.urls import api
from switchyard.api.middleware import PREFIX
from switchyard.broker.admin.cancel import cancel
from switchyard.broker.interface import Facilities
from switchyard.jobs.services import submit
from tests.factories.web import serving
from tests.integration.jobs import probe_actors

EXAMPLES = 4
CHECKS = [
    *(not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance),
    *(response_schema_conformance, ignored_auth, unsupported_method),
]

schema = schemathesis.openapi.from_dict(dict(api.get_openapi_schema(path_prefix=PREFIX)))


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving(application) as address:
        yield address


generously = hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    # One token and one database for all examples of an operation.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@schema.parametrize()
@generously
def test_every_answer_is_documented_and_none_is_5xx(
    case: Any, web: str, bearer: dict[str, str], facilities: Facilities
) -> None:
    case.call_and_validate(base_url=web, headers=bearer, checks=CHECKS)


@pytest.fixture
def ended_job(bearer: dict[str, str], facilities: Facilities) -> str:
    """A job that the token may see, and that has ended."""
    job_id = submit(probe_actors.add, owner=f"user:{User.objects.get().pk}", kwargs={"a": 1, "b": 2})
    assert cancel(facilities, job_id) == "cancelled"
    return job_id


@schema.include(path_regex="job_id").parametrize()
@generously
def test_every_answer_about_a_job_that_exists_is_documented(
    case: Any, web: str, bearer: dict[str, str], ended_job: str
) -> None:
    case.path_parameters["job_id"] = ended_job

    answer = case.call_and_validate(base_url=web, headers=bearer, checks=CHECKS)

    assert answer.status_code != 404 or case.path.endswith("/result")
