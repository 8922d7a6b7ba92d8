"""Refusals below /api/v1 are problem documents; requests over a limit are refused before their bodies are read."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.urls import include, path

from switchyard.api import request_limits
from switchyard.api.exception_handlers import problem_of
from switchyard.api.parsing import MAX_ERRORS, refuse_bad_text
from switchyard.api.problems import Problem
from switchyard.api.request_limits import RequestLimits
from switchyard.api.responses import job_url
from switchyard.broker.errors import QueueFull, UnencodablePayload
from switchyard.conf import read, switchyard_settings
from tests.unit.api import probe_urls
from tests.unit.api.conftest import problem

GOOD = {"id": 1, "month": "2026-10"}


def test_no_line_of_the_log_is_written_by_a_stranger(caplog):
    request = RequestFactory().post("/api/v1/jobs/x%0A2026-11-28 CRITICAL forged")
    errors = [
        OperationalError("gone"),
        QueueFull("default", 3, 3),
        UnencodablePayload("x", "args[0]", "has a\nline"),
        KeyError(),
    ]

    for error in errors:
        problem_of(request, error)

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(errors)
    assert [line for line in lines if "\n" in line or "forged" not in line] == []


def test_a_good_body_is_taken(post):
    response = post("/orders", GOOD | {"note": "Grüße", "tags": ["a"], "extra": {"deep": [1, 2.5, None]}})

    assert (response.status_code, response["Cache-Control"]) == (201, "no-store")
    assert probe_urls.calls[0]["note"] == "Grüße"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"surprise": 1}, "surprise", "is not a known field"),
        ({"id": "1"}, "id", "valid integer"),
        ({"id": True}, "id", "valid integer"),
        ({"id": 1.0}, "id", "valid integer"),
        ({"id": None}, "id", "valid integer"),
        ({"id": 0}, "id", "greater than or equal to 1"),
        ({"id": 2**63}, "id", "less than or equal to"),
        ({"month": "2026-13"}, "month", "is not a month: '2026-13'"),
        ({"month": "2026-1"}, "month", "is not a month"),
        ({"month": "0000-01"}, "month", "is not a month"),
        ({"month": "٢٠٢٦-10"}, "month", "is not a month"),
        ({"month": "2026-10\n"}, "month", "is not a month"),
        ({"month": 202610}, "month", "valid string"),
        ({"note": "x" * 256}, "note", "at most 255 characters"),
        ({"note": "two\nlines"}, "note", "control character"),
        ({"note": "nul\0"}, "note", "NUL"),
        ({"tags": ["x" * 10_001]}, "tags.0", "at most 10000 characters"),
        ({"tags": "a"}, "tags", "valid list"),
        ({"tags": [1]}, "tags.0", "valid string"),
        ({"extra": {"a": ["b", "\0"]}}, "extra.a.1", "NUL"),
        ({"extra": {"a\0b": 1}}, "extra.a\\0b (name)", "NUL"),
        ({"extra": {"a": "\ud800"}}, "extra.a", "surrogate"),
    ],
)
def test_a_wrong_field_is_named_with_its_reason(post, change, field, message):
    document = problem(post("/orders", GOOD | change), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert message in document["errors"][0]["message"] and field in document["detail"]
    assert probe_urls.calls == []


def test_a_missing_field_is_named_in_an_answer_for_no_cache_and_of_very_many_wrong_ones_the_first(post):
    response = post("/orders", {"id": 1})

    assert problem(response, 422)["errors"] == [{"field": "month", "message": "is required"}]
    assert response["Cache-Control"] == "no-store"
    document = problem(post("/orders", GOOD | {f"field{number}": 1 for number in range(500)}), 422)
    assert len(document["errors"]) == 50
    assert "and 499 more" in document["detail"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{", "is not JSON"),
        (b"{'id': 1}", "is not JSON"),
        (b'{"id": NaN}', "NaN is not a JSON number"),
        (b'{"id": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"extra": {"a": 1e999}}', "too large"),
        (b'{"id": 1, "id": 2}', "twice"),
        (b'{"id": ' + b"9" * 5000 + b"}", "a number has too many digits; send"),
        (b"\xff\xfe\xfa", "is no"),
        (b'{"note": "\xc3\x28"}', "is not UTF-8"),
        (b'{"note": "\xed\xa0\x80"}', "is not UTF-8"),
        ('{"id": 1}'.encode("utf-16"), "is not UTF-8"),
        ('{"id": 1}'.encode("utf-16-le"), "is not JSON"),
        ('{"id": 1}'.encode("utf-32-be"), "is not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b'{"extra": ' + b'{"a":' * 80 + b"1" + b"}" * 80 + b"}", "nested deeper"),
    ],
)
def test_an_unreadable_body_is_400(post, body, reason):
    assert reason in problem(post("/orders", body), 400)["detail"]
    assert probe_urls.calls == []


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"'])
def test_a_body_that_is_no_object_is_422(post, body):
    problem(post("/orders", body), 422)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_another_content_type_is_415(probe, bearer, content_type):
    body = json.dumps(GOOD).encode()

    response = probe.post("/api/v1/probe/orders", body, content_type=content_type, headers=bearer)

    assert "application/json" in problem(response, 415)["detail"]


@pytest.mark.parametrize("number", ["many", "%00"])
def test_a_query_parameter_of_the_wrong_kind_is_422(probe, number):
    assert problem(probe.get(f"/api/v1/probe/open?number={number}"), 422)["errors"][0]["field"] == "number"


@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1/nothing", "/api/v1/probe/orders/1", "/api/v1/probe/%00"])
def test_an_unknown_path_is_404(probe, path):
    problem(probe.get(path), 404)


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "options"])
def test_an_unknown_method_is_405_and_names_those_that_are_known(probe, method):
    response = getattr(probe, method)("/api/v1/probe/orders")

    problem(response, 405)
    assert response["Allow"] == "POST"


def test_the_projects_own_api_below_the_same_root_keeps_its_answers(probe):
    response = probe.get("/api/v1/checks/")

    assert (response.status_code, response.json()) == (401, {"error": "missing api key"})
    assert "Cache-Control" not in response


def test_below_a_prefix_refusals_are_problem_documents_as_well(probe, settings):
    settings.ROOT_URLCONF = (path("yard/", include("tests.unit.api.probe_urls")),)

    assert problem(probe.get("/yard/api/v1/nothing"), 404)["detail"].endswith("see /yard/api/v1/docs")
    problem(probe.get("/yard/api/v1/probe/orders"), 405)
    assert probe.get("/api/v1/nothing")["Content-Type"].startswith("text/html")


def test_our_own_failure_says_nothing_outside_and_is_logged(post, caplog):
    response = post("/broken")

    problem(response, 500)
    assert "secret" not in response.content.decode()
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("broker", 503, "the broker does not answer"),
        *((what, 503, "the database does not answer") for what in ("database", "database's connection")),
        ("database's history", 503, "the database does not answer"),
        ("full", 503, "has no room for more work"),
        ("queue", 429, "queue default holds"),
        ("unsafe", 503, "until it is safe again"),
    ],
)
def test_what_does_not_answer_or_is_full_says_so_and_when_to_come_back(post, what, status, said):
    response = post(f"/unavailable/{what}")

    assert said in problem(response, status)["detail"]
    assert int(response["Retry-After"]) > 0
    assert "allkeys" not in response.content.decode(), "settings of the broker"


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("large", 413, "larger than 1048576 bytes"),
        ("infinite", 422, "is inf, which JSON does not have"),
        ("unfit", 422, "argument due expects datetime.date; this str does not fit"),
    ],
)
def test_a_value_that_no_queue_carries_is_refused_without_a_place_in_the_code(post, what, status, said):
    detail = problem(post(f"/enqueued/{what}", {}), status)["detail"]

    assert said in detail and ".py" not in detail


def test_many_bad_texts_far_down_are_refused_by_the_first_ones_in_short():
    body: Any = ["\0"] * 100_000
    for _ in range(60):
        body = {"n" * 100: body}

    with pytest.raises(Problem) as refused:
        refuse_bad_text(body)

    errors = refused.value.errors
    assert len(errors) == MAX_ERRORS
    assert all(len(error.field) < 500 for error in errors)


@pytest.fixture
def document(probe: Client) -> dict[str, Any]:
    return probe.get("/api/v1/openapi.json").json()


def operation(document: dict[str, Any], path: str, method: str = "post") -> dict[str, Any]:
    return document["paths"][f"/api/v1/probe{path}"][method]


def test_every_refusal_is_a_problem_document(document):
    refusals = [
        response
        for operations in document["paths"].values()
        for details in operations.values()
        for status, response in details["responses"].items()
        if int(status) >= 400
    ]

    assert refusals
    reference = {"$ref": "#/components/schemas/Problem"}
    assert all(refusal["content"] == {"application/problem+json": {"schema": reference}} for refusal in refusals)


def test_an_operation_names_the_scope_it_needs_and_a_post_with_a_token_takes_an_idempotency_key(document):
    assert operation(document, "/orders")["security"] == [{"BearerToken": ["submit"]}]
    assert operation(document, "/all", "get")["security"] == [{"BearerToken": ["operate"]}]
    assert "security" not in operation(document, "/open", "get")
    assert document["components"]["securitySchemes"]["BearerToken"]["scheme"] == "bearer"

    def headers(details: dict[str, Any]) -> list[str]:
        return [parameter["name"] for parameter in details["parameters"] if parameter["in"] == "header"]

    assert headers(operation(document, "/orders")) == ["Idempotency-Key"]
    assert (headers(operation(document, "/signed")), headers(operation(document, "/mine", "get"))) == ([], [])


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/orders", "post", {201, 400, 401, 403, 409, 413, 415, 422, 429, 500, 503}),
        ("/mine", "get", {200, 401, 403, 429, 500, 503}),
        ("/open", "get", {200, 422, 500, 503}),
        ("/fail/{status}", "post", {200, 400, 401, 403, 404, 409, 422, 429, 500, 503}),
    ],
)
def test_an_operation_lists_every_status(document, path, method, statuses):
    assert {int(status) for status in operation(document, path, method)["responses"]} == statuses


JOB = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("debug", "is_given", "start"),
    [
        (True, True, "https://yard.example.com/"),
        (False, True, "https://yard.example.com/"),
        (False, False, "https://yard.example.com/"),
        (True, False, "http://localhost:666/"),
    ],
)
def test_a_public_url_is_used_where_it_is_set(settings, debug, is_given, start):
    url = "https://yard.example.com"
    settings.SWITCHYARD = replace(switchyard_settings(), public_url=url, debug=debug, has_public_url=is_given)

    assert job_url(RequestFactory().get("/", HTTP_HOST="localhost:666"), JOB).startswith(start)


def test_the_variable_counts_as_set_and_the_default_does_not():
    assert read({}, {"SWITCHYARD_PUBLIC_URL": "https://yard.example.com"}, debug=True).has_public_url
    assert not read({}, {}, debug=True).has_public_url


Message = dict[str, Any]
FORM = {"content-type": "Multipart/Form-Data; boundary=x"}
TOKEN = {"authorization": "Bearer good"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "FREE_BYTES", 50)
    monkeypatch.setattr(request_limits, "LINGER_S", 0.05)


async def scopes_of(plain: str) -> list[str] | None:
    return {"good": ["submit"], "other": ["submit"], "reader": ["read"]}.get(plain)


class Echo:
    """Reads all of a body, as Django does, and tells its size."""

    def __init__(self) -> None:
        self.asked = 0
        self.read_bytes = 0

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self.asked += 1
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.read_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.read_bytes).encode()})


def limited(application: Any, **options: Any) -> RequestLimits:
    small = {"body_bytes": 100, "large_body_bytes": 300, "timeout_s": 0.05, "large_timeout_s": 0.1, "wait_s": 0.05}
    return RequestLimits(application, large_routes=("/large",), check_token=scopes_of, **{**small, **options})


def call(
    headers: dict[str, str],
    chunks: list[bytes],
    *,
    path: str = "/api/v1/x",
    kind: str = "http",
    ends: bool = True,
    method: str = "POST",
) -> tuple[list[Message], Echo, int]:
    """Send a request through the limits; return what was answered, the application, and the chunks read before that.

    A body that does not end is one whose client stops sending.
    """
    echo = Echo()
    sent: list[Message] = []
    asked = asked_before = 0

    async def receive() -> Message:
        nonlocal asked
        if asked == len(chunks):
            await asyncio.Event().wait()
        chunk = chunks[asked]
        asked += 1
        return {"type": "http.request", "body": chunk, "more_body": asked < len(chunks) or not ends}

    async def send(message: Message) -> None:
        nonlocal asked_before
        asked_before = asked_before if sent else asked
        sent.append(message)

    scope = {
        "type": kind,
        "method": method,
        "http_version": "1.1",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(limited(echo)(scope, receive, send))  # type: ignore[arg-type]
    return sent, echo, asked_before


def refusal(sent: list[Message], status: int) -> dict[str, Any]:
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
    assert not sent[-1].get("more_body", False)
    return json.loads(sent[1]["body"])


async def status_of(
    limit: RequestLimits,
    path: str,
    address: str = "::1",
    headers: dict[str, str] | None = None,
    until: asyncio.Event | None = None,
) -> int:
    """Send a request whose body comes when an event is set, and return the status of its answer."""
    statuses: list[int] = []

    async def receive() -> Message:
        if until is not None:
            await until.wait()
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": named, "client": (address, 1)}
    await limit(scope, receive, send)  # type: ignore[arg-type]
    return statuses[0]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def test_a_declared_length_up_to_the_limit_passes_and_a_body_over_it_is_refused_unread_or_once_it_is_over():
    passed, _, _ = call({"content-length": "100"}, [b"x" * 100])
    sent, _, asked = call({"content-length": "101"}, [b"x" * 101])

    assert passed[1]["body"] == b"100"
    assert "100 bytes" in refusal(sent, 413)["detail"]
    assert asked == 0

    sent, echo, asked = call({}, [b"x" * 40] * 1000)

    refusal(sent, 413)
    assert (asked, echo.read_bytes) == (3, 80)


@pytest.mark.parametrize("length", ["10", "-1", "1e3", "²", "9" * 5_000])
def test_a_length_that_lies_does_not_help(length):
    sent, _, _ = call({"content-length": length}, [b"x" * 60, b"x" * 60])

    refusal(sent, 413)


@pytest.mark.parametrize(("chunks", "ends"), [([b"x" * 60] * 9, True), ([b"x" * 120], False)])
def test_the_rest_of_a_refused_body_is_discarded_for_a_while_and_the_connection_closed(chunks, ends):
    sent, _, _ = call({"content-length": "540"}, chunks, ends=ends)

    refusal(sent, 413)
    assert (b"connection", b"close") in sent[0]["headers"]
    assert len(sent) == 3


def test_a_large_form_is_accepted_on_its_route_with_a_token():
    passed, _, _ = call(FORM | TOKEN, [b"x" * 300], path="/large")
    refused, _, _ = call(FORM | TOKEN, [b"x" * 301], path="/large")

    assert passed[1]["body"] == b"300"
    refusal(refused, 413)


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        (FORM, "/large", 401),
        (FORM | {"authorization": "Bearer bad"}, "/large", 401),
        (FORM | {"authorization": "Basic good"}, "/large", 401),
        (FORM | {"authorization": "Bearer reader"}, "/large", 403),
        (FORM | TOKEN, "/api/v1/x", 413),
        (TOKEN, "/large", 413),
    ],
)
def test_any_other_large_body_is_refused_unread(headers, path, status):
    sent, _, asked = call(headers | {"content-length": "300"}, [b"x" * 300], path=path)

    refusal(sent, status)
    assert asked == 0


def test_a_chunked_form_without_a_token_is_refused_after_the_free_part():
    sent, echo, asked = call(FORM, [b"x" * 30] * 100, path="/large")

    refusal(sent, 401)
    assert (asked, echo.read_bytes) == (2, 0)


@pytest.mark.parametrize(
    ("headers", "path", "chunks", "waited"),
    [*(({}, "/api/v1/x", [b"x" * size] * bool(size), "0.05 s") for size in (0, 10, 60)),
     (FORM | TOKEN, "/large", [b"x" * 60], "0.1 s")],
    ids=["nothing", "little", "more than is free", "a large one has more time"],
)  # fmt: skip
def test_a_body_that_stops_is_408(headers, path, chunks, waited):
    sent, _, _ = call(headers, chunks, path=path, ends=False)

    assert waited in refusal(sent, 408)["detail"]


@pytest.mark.parametrize(
    ("one", "another", "path"),
    [
        (("", "::1"), ("", "::2"), "/"),
        (("invented", "::1"), ("invented", "::2"), "/"),
        (("good", "::1"), ("other", "::1"), "/"),
        (("good", ""), ("other", ""), "/large"),
    ],
    ids=["address", "unknown token", "token", "large"],
)
def test_one_caller_has_half_of_the_places(one, another, path):
    limit = limited(Echo(), requests=4, large_requests=4, unknown_requests=4, timeout_s=60, large_timeout_s=60)
    third = ("reader" if one[0] == "good" else "", "::3")

    async def run() -> list[int]:
        go_on = asyncio.Event()

        def start(client: tuple[str, str]) -> asyncio.Task[int]:
            headers = FORM | {"content-length": "200"} if path == "/large" else {"content-length": "99"}
            return asyncio.create_task(status_of(limit, path, client[1], headers | bearer(client[0]), go_on))

        reading = [start(one), start(one)]
        await asyncio.sleep(0)
        refused = [await start(one)]
        reading += [start(another), start(another)]
        await asyncio.sleep(0)
        refused += [await start(third)] if path != "/large" else []
        go_on.set()
        return [*refused, *await asyncio.gather(*reading), await start(one)]

    assert asyncio.run(run()) == [429, *([503] if path != "/large" else []), *[200] * 5]


def test_slow_bodies_without_a_token_hold_up_nobody_else():
    limit = limited(Echo(), requests=1, unknown_requests=1, timeout_s=60)
    body = {"content-length": "99"}

    async def run() -> list[int]:
        never = asyncio.Event()
        slow = asyncio.create_task(status_of(limit, "/healthz", "::1", body, never))
        await asyncio.sleep(0)
        statuses = [
            await status_of(limit, "/", "::2", {"content-length": "0"}),
            await status_of(limit, "/healthz", "::3", body, never),
        ]
        slow.cancel()
        return statuses

    assert asyncio.run(run()) == [200, 503]


def test_requests_wait_for_their_turn_and_probes_for_none():
    async def run() -> list[int]:
        go_on = asyncio.Event()

        async def slow(scope: Message, receive: Any, send: Any) -> None:
            if scope["path"] == "/slow":
                await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await go_on.wait()  # the rest of the answer holds no place

        limit = limited(slow, requests=1)

        def start(path: str) -> asyncio.Task[int]:
            return asyncio.create_task(status_of(limit, path))

        begun = [start("/sent"), start("/slow")]
        await asyncio.sleep(0)
        refused = [await status_of(limit, "/same", "::1"), await status_of(limit, "/other", "::2")]
        begun += [start("/healthz"), start("/waiting")]
        given_up = start("/given-up")
        await asyncio.sleep(0)
        given_up.cancel()
        go_on.set()
        return [*refused, *await asyncio.gather(*begun), await start("/after")]

    assert asyncio.run(run()) == [429, 503, *[200] * 5]


CHARSETS = ["punycode", '"rot13"', "x", 'utf-8;charset="idna"']


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("content-type", "a;x*=foo''%41", 400, "RFC 2231"),
        *(("content-type", f"multipart/form-data; boundary=x; charset={each}", 400, "send UTF-8") for each in CHARSETS),
        ("cookie", 'a="' + "\\" * 31_000 + '"', 431, "cookie: has 31"),
        ("content-type", ";" * 31_000, 431, "content-type: has 31"),
    ],
    ids=["unreadable for Django", *CHARSETS, "a cookie of seconds", "a type of seconds"],
)
def test_a_header_that_cannot_be_read_soon_is_refused(name, value, status, said):
    sent, echo, _ = call({name: value}, [b""], path="/healthz", method="GET")

    assert said in refusal(sent, status)["detail"]
    assert echo.asked == 0


@pytest.mark.parametrize(("tokens", "expected"), [(["made-up-1", "made-up-2", "made-up-3"], 429), (["good"] * 3, 200)])
def test_made_up_tokens_have_no_share_of_their_own(tokens, expected):
    async def run() -> list[int]:
        go_on = asyncio.Event()

        async def application(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
            if scope["path"] == "/held":
                await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        limit = limited(application, requests=4)
        held = [asyncio.create_task(status_of(limit, "/held", headers=bearer(f"bad-{number}"))) for number in (1, 2)]
        await asyncio.sleep(0)
        statuses = await asyncio.gather(*(status_of(limit, "/", headers=bearer(token)) for token in tokens))
        go_on.set()
        await asyncio.gather(*held)
        return statuses

    assert asyncio.run(run()) == [expected] * 3
