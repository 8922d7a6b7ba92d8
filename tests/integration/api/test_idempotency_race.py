"""Fifty requests with one key at once: one job."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from ninja import Router, Status

from switchyard.api.application import build_api
from switchyard.api.auth import submit_scope
from switchyard.api.middleware import PREFIX
from switchyard.api.models import IdempotentRequest
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, StrictSchema
from switchyard.broker.interface import Facilities
from switchyard.jobs.services import submit
from tests.integration.jobs import probe_actors

CALLERS = 50

router = Router()


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
def sums(settings: Any, bearer: dict[str, str]) -> dict[str, str]:
    settings.ROOT_URLCONF = __name__
    return bearer


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_of_fifty_requests_at_once_one_makes_the_job(sums: dict[str, str], facilities: Facilities, rounds: int) -> None:
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
