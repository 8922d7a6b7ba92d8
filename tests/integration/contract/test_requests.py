"""Every request that is promised to the outside: what it answers when right, and when wrong in each way."""

import datetime
import json
import re
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from switchyard.api.tokens import create_token, revoke_token
from switchyard.audit.services import Who
from switchyard.broker.interface import Facilities
from tests.factories.callers import api_user
from tests.factories.shop import make_customer
from tests.unit.api.conftest import problem

pytestmark = pytest.mark.usefixtures("facilities")
MONTH = f"{datetime.datetime.now(datetime.UTC):%Y}-01"
DATASETS = ("invoices", "payments", "customers")
PRIVATE = [
    *("http://127.0.0.1/", "http://localhost:8000/", "http://10.0.0.1/", "https://192.0.2.1/"),
    *("http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/"),
    *("http://0.0.0.0/", "file:///etc/passwd", "ftp://example.com/", "http://user:secret@127.0.0.1/", "no url", ""),
]
SUBMITS: dict[str, dict[str, Any]] = {
    "reports": {"customer_id": 1, "month": MONTH},
    "emails": {"to": "ada@example.com", "template": "welcome"},
    "thumbnails": {"url": "https://1.1.1.1/cat.png", "width": 100, "height": 100},
    "exports": {"dataset": "invoices", "format": "csv"},
    "reconciliations": {"month": MONTH},
    "webhooks/endpoints": {"url": "https://1.1.1.1/hook", "events": ["invoice.paid"]},
    "webhooks/events": {"event": "invoice.paid", "payload": {"number": 1}},
}


@pytest.fixture
def ada(transactional_db):
    return api_user("ada")


@pytest.fixture
def client(ada):
    _, plain = create_token(owner=ada, scopes=["submit", "read"], name="test")
    return Client(headers={"Authorization": f"Bearer {plain}"})


def post(client: Client, path: str, body: Any, **headers: str) -> HttpResponse:
    return client.post(f"/api/v1/{path}", json.dumps(body), content_type="application/json", headers=headers)


def waiting(facilities: Facilities) -> dict[str, int]:
    """Return how many messages wait in each queue that has some."""
    counts = {
        queue.name: facilities.transport.stats(queue.name).live.waiting for queue in settings.SWITCHYARD.topology.queues
    }
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize(
    ("path", "bodies", "queue"),
    [
        ("reports", [{"month": MONTH}], "slow"),
        ("emails", [{"to": "ada@example.com", "template": "welcome"}], "default"),
        ("emails", [{"to": "ada@example.com", "template": "password_reset"}], "urgent"),
        ("exports", [{"dataset": each, "format": form} for each in DATASETS for form in ("csv", "xlsx")], "slow"),
        ("reconciliations", [{"month": MONTH}], "billing"),
    ],
)
def test_work_is_accepted_on_its_queue(client, path, bodies, queue):
    for body in bodies:
        about = {"customer_id": make_customer().pk} if path == "reports" else {}
        answer = post(client, path, body | about)
        links = answer.json()
        job = client.get(links["status_url"]).json()

        assert (answer.status_code, links["events_url"]) == (202, links["status_url"] + "/events")
        assert links.keys() == {"job_id", "status_url", "events_url"}
        assert (job["id"], job["queue"], job["state"]) == (links["job_id"], queue, "queued")


WRONG: dict[str, list[tuple[dict[str, Any], str]]] = {
    "reports": [
        *(({"customer_id": value}, "customer_id") for value in (987654, "1", 2**63)),
        *(({"month": value}, "month") for value in ("2026-13", "2026-00", "2026-1")),
    ],
    "emails": [
        *(({"to": value}, "to") for value in ("nobody", "a@b@c.example", "ada@example.com\nBcc: eve@example.com")),
        *(({"to": value}, "to") for value in ("a" * 300 + "@example.com", ["ada@example.com"])),
        ({"template": "newsletter"}, "template"),
    ],
    "exports": [({"dataset": "users"}, "dataset"), ({"format": "pdf"}, "format"), ({"format": None}, "format")],
    "reconciliations": [({"month": "0000-01"}, "month"), ({"month": 202611}, "month")],
    "thumbnails": [
        *(({"width": value}, "width") for value in (0, "100")),
        ({"height": 10**9}, "height"),
        *(({"url": url}, "url") for url in PRIVATE),
    ],
    "webhooks/endpoints": [
        *(({"events": value}, field) for value, field in (([], "events"), (["no event!"], "events.0"))),
        ({"events": "invoice.paid"}, "events"),
        *(({"url": url}, "url") for url in PRIVATE),
    ],
    "webhooks/events": [
        *(({"event": ""}, "event"), ({"payload": []}, "payload"), ({"payload": {"a": "\0"}}, "payload.a"))
    ],
}


@pytest.mark.parametrize("path", SUBMITS)
def test_a_wrong_field_is_422_named_and_nothing_is_enqueued(client, facilities, path):
    customer = make_customer().pk
    for change, field in [*WRONG[path], ({"surprise": 1}, "surprise")]:
        body = SUBMITS[path] | ({"customer_id": customer} if path == "reports" else {}) | change

        assert field in [error["field"] for error in problem(post(client, path, body), 422)["errors"]], change
        assert waiting(facilities) == {}, change


UNUSABLE = (
    (b" ", "application/json", 400),
    (b"{", "application/json", 400),
    (b"\xff", "application/json", 400),
    (b"[]", "application/json", 422),
    (b"{}", "application/json", 422),
    (b"{}", "text/plain", 415),
    (b" " * (1024 * 1024 + 1), "application/json", 413),
)


@pytest.mark.parametrize("path", SUBMITS)
def test_an_unusable_body_is_refused(client, facilities, path):
    for body, content_type, status in UNUSABLE:
        problem(client.post(f"/api/v1/{path}", body, content_type=content_type), status)
    assert waiting(facilities) == {}


@pytest.mark.parametrize("path", SUBMITS)
def test_no_token_a_wrong_one_or_one_without_the_scope_is_refused(ada, facilities, path):
    revoked, old = create_token(owner=ada, scopes=["submit"], name="old")
    revoke_token(revoked.prefix, who=Who("ada", "command"))
    _, reader = create_token(owner=ada, scopes=["read"], name="reader")
    client = Client()

    problem(post(client, path, SUBMITS[path]), 401)
    problem(post(client, path, SUBMITS[path], Authorization="Bearer sy_000000000000_" + "x" * 43), 401)
    problem(post(client, path, SUBMITS[path], Authorization=f"Bearer {old}"), 401)
    problem(post(client, path, SUBMITS[path], Authorization=f"Bearer {reader}"), 403)
    assert waiting(facilities) == {}


def test_the_description_names_every_request(client):
    document = Client().get("/api/v1/openapi.json").json()

    assert document["openapi"].startswith("3.1")
    offered = {(method, path.removeprefix("/api/v1/")) for path, ways in document["paths"].items() for method in ways}
    promised = {("post", path) for path in SUBMITS} | {
        ("post", "payments/events"),
        ("get", "jobs"),
        ("post", "jobs"),
        ("get", "jobs/{job_id}"),
        ("delete", "jobs/{job_id}"),
        ("get", "jobs/{job_id}/events"),
        ("get", "jobs/{job_id}/result"),
        ("get", "jobs/{job_id}/why"),
        ("get", "queues"),
    }
    assert offered == promised


def test_the_page_of_the_description_takes_nothing_from_elsewhere(client):
    page = Client().get("/api/v1/docs")

    assert page.status_code == 200
    taken = re.findall(r'<(?:link|script|img|iframe)\b[^>]*?\b(?:href|src)="([^"]*)"', page.content.decode())
    assert taken != []
    assert [address for address in taken if not re.match(r"/(?!/)", address)] == []
