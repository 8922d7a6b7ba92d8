"""A small API on the platform's own foundations, for tests of those alone."""

import datetime
import threading
from typing import Any

import dramatiq
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from dramatiq.brokers.stub import StubBroker
from ninja import File, Router, Status
from ninja.files import UploadedFile

from switchyard.api.application import build_api
from switchyard.api.auth import operate_scope, read_scope, submit_scope
from switchyard.api.middleware import PREFIX
from switchyard.api.problems import Problem
from switchyard.api.request_jobs import HistoryUnavailable, current_request, is_repeated_request, row_id_of_request
from switchyard.api.schemas import Line, Month, RowId, StrictSchema
from switchyard.broker.errors import BrokerFull, BrokerUnavailable, BrokerUnsafe, QueueFull
from switchyard.broker.queue.json_body import encode
from switchyard.middleware.arguments import Arguments

router = Router()
calls: list[dict[str, Any]] = []
hold = threading.Event()
entered = threading.Event()
next_errors: list[Exception] = []


@dramatiq.actor(broker=StubBroker(middleware=[Arguments()]))
def remind(due: datetime.date) -> None: ...


class Order(StrictSchema):
    """A body with one field of each kind."""

    id: RowId
    month: Month
    note: Line = ""
    tags: list[str] = []
    extra: dict[str, Any] = {}


@router.post("/orders", auth=submit_scope, response={201: dict[str, Any]})
def create_order(request: HttpRequest, body: Order) -> Status[dict[str, Any]]:
    calls.append(body.model_dump())
    return Status(201, {"number": len(calls), "note": body.note})


@router.post("/slow", auth=submit_scope, response={201: dict[str, Any]})
def create_slowly(request: HttpRequest, body: Order) -> Status[dict[str, Any]]:
    calls.append(body.model_dump())
    entered.set()
    assert hold.wait(30)
    return Status(201, {"number": len(calls)})


@router.post("/files", auth=submit_scope, response={201: dict[str, Any]})
def create_file(request: HttpRequest, file: File[UploadedFile]) -> Status[dict[str, Any]]:
    calls.append({"size": file.size})
    return Status(201, {"number": len(calls), "content": file.read().decode()})


@router.post("/fail/{status}", auth=submit_scope)
def fail(request: HttpRequest, status: int) -> dict[str, Any]:
    calls.append({"status": status})
    raise Problem(status, "as asked")


@router.post("/broken", auth=submit_scope)
def broken(request: HttpRequest) -> dict[str, Any]:
    calls.append({})
    raise RuntimeError("a secret reason")


@router.post("/unavailable/{what}", auth=submit_scope)
def unavailable(request: HttpRequest, what: str) -> dict[str, Any]:
    calls.append({})
    errors = {
        "broker": BrokerUnavailable("an enqueue", "refused"),
        "away": BrokerUnavailable("an enqueue", "refused", outcome="refused"),
        "unsafe": BrokerUnsafe("enqueue", "maxmemory-policy is 'allkeys-lru'"),
        "full": BrokerFull("an enqueue", "used memory > 'maxmemory'"),
        "queue": QueueFull("default", 10, 10),
        "database": OperationalError("database is locked"),
        "database's connection": InterfaceError("connection already closed"),
        "database's history": HistoryUnavailable("job", "OperationalError"),
    }
    raise errors[what]


@router.post("/jobs", auth=submit_scope)
def create_job(request: HttpRequest) -> dict[str, Any]:
    jobs = current_request()
    row = row_id_of_request("order")
    calls.append({"job": jobs.next_job_id(), "row": row and str(row), "repeated": is_repeated_request()})
    raise next_errors.pop(0) if next_errors else BrokerUnavailable("an enqueue", "refused")


@router.post("/enqueued/{what}", auth=submit_scope)
def enqueue(request: HttpRequest, what: str) -> dict[str, Any]:
    calls.append({})
    if what == "unfit":
        remind.send("tomorrow")
    values = {"large": "x" * 2_000_000, "infinite": float("inf")}
    return {"bytes": len(encode({"actor": "probe", "args": [values[what]]}))}


@router.get("/mine", auth=read_scope)
def mine(request: Any) -> dict[str, Any]:
    return {"owner": request.auth.owner_key}


@router.get("/all", auth=operate_scope)
def everything(request: HttpRequest) -> dict[str, Any]:
    return {}


@router.get("/open", auth=None)
def open_to_all(request: HttpRequest, number: int = 1) -> dict[str, Any]:
    return {"number": number}


@router.post("/signed", auth=None)
def signed(request: HttpRequest) -> dict[str, Any]:
    calls.append({})
    return {"number": len(calls)}


def of_the_project(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"error": "missing api key"}, status=401)


urlpatterns = [
    path(PREFIX, build_api(("/probe", "tests.unit.api.probe_urls.router")).urls),
    path(f"{PREFIX}checks/", of_the_project),
]
