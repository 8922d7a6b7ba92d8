"""Endpoints and events through the API, as the contract has them."""

from __future__ import annotations

import json

import pytest

from apps.webhooks import services
from apps.webhooks.models import Delivery, Endpoint, Event
from switchyard.api.request_jobs import RequestJobs, request_jobs
from switchyard.broker.interface import facilities as facilities_of

pytestmark = pytest.mark.django_db
ENDPOINTS = "/webhooks/endpoints"
EVENTS = "/webhooks/events"
URL = "https://93.184.216.34/hook?key=1"


def waiting() -> int:
    return facilities_of().transport.stats("webhook").live.waiting


def fields(response) -> list[str]:
    document = json.loads(response.content)
    assert response["Content-Type"] == "application/problem+json"
    return [error["field"] for error in document["errors"]]


def test_an_endpoint_is_registered_and_its_secret_given_once(post):
    response = post(ENDPOINTS, {"url": URL, "events": ["invoice.paid", "invoice.sent"]})

    assert response.status_code == 201
    body = response.json()
    endpoint = Endpoint.objects.get()
    assert body == {"id": str(endpoint.pk), "secret": endpoint.secret}
    assert body["secret"].startswith("whsec_") and len(body["secret"]) == 50
    assert (endpoint.url, endpoint.events, endpoint.active) == (URL, ["invoice.paid", "invoice.sent"], True)


def test_an_owner_has_at_most_a_hundred_enabled_endpoints(post):
    """Each event would be sent to all of them: a flood, where they have one URL."""
    assert post(ENDPOINTS, {"url": URL, "events": ["a"]}).status_code == 201
    first = Endpoint.objects.get()
    Endpoint.objects.bulk_create(
        Endpoint(owner_key=first.owner_key, url=URL, events=["a"], secret="-") for _ in range(99)
    )

    refused = post(ENDPOINTS, {"url": URL, "events": ["a"]})
    Endpoint.objects.filter(pk=first.pk).update(active=False)
    taken = post(ENDPOINTS, {"url": URL, "events": ["a"]})

    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("100 endpoints are enabled for this token's owner, which is the most")
    assert taken.status_code == 201


def test_no_name_is_resolved_in_a_request_and_what_is_inside_by_its_form_is_refused(post, monkeypatch):
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **options: asked.append(host))

    names = [post(ENDPOINTS, {"url": f"https://{host}/", "events": ["a"]}) for host in ("slow.example", "nolocalhost")]
    inside = ("localhost", "LOCALHOST.", "a.localhost", "\uff4cocalhost", "127.0.0.1", "[::ffff:10.0.0.1]", "a.b:25")
    refused = [post(ENDPOINTS, {"url": f"https://{host}/", "events": ["a"]}) for host in inside]

    assert [answer.status_code for answer in names] == [201, 201]
    assert ([fields(answer) for answer in refused], asked) == ([["url"]] * 7, [])


@pytest.mark.parametrize(
    "events",
    [
        *([], ["a", "b", "a"], [""], ["a b"], ["a."], [".a"], ["a..b"], ["ä"], ["a\n"], ["a" * 101], [1], "a", {}),
        *(None, ["a"] * 2),
    ],
)
def test_events_that_are_none_or_repeat_are_refused(post, events):
    response = post(ENDPOINTS, {"url": URL, "events": events})

    assert response.status_code == 422
    assert fields(response)[0].startswith("events")
    assert not Endpoint.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_event_goes_to_each_active_subscribed_endpoint_of_its_owner_only(post, facilities):
    wanted = [post(ENDPOINTS, {"url": URL, "events": ["invoice.paid", "other"]}).json()["id"] for _ in range(2)]
    post(ENDPOINTS, {"url": URL, "events": ["other"]})
    disabled = post(ENDPOINTS, {"url": URL, "events": ["invoice.paid"]}).json()["id"]
    Endpoint.objects.filter(pk=disabled).update(active=False)
    post(ENDPOINTS, {"url": URL, "events": ["invoice.paid"]}, user="eve")

    response = post(EVENTS, {"event": "invoice.paid", "payload": {"b": 1, "a": [None]}})

    assert response.status_code == 202
    jobs = response.json()["job_ids"]
    deliveries = Delivery.objects.all()
    assert sorted(str(delivery.endpoint_id) for delivery in deliveries) == sorted(wanted)
    assert sorted(jobs) == sorted(delivery.job_id for delivery in deliveries)
    assert Event.objects.get().payload == '{"a":[null],"b":1}'
    assert waiting() == 2
    records = [facilities.records.read(job) for job in jobs]
    assert {(record.queue, record.state, record.owner) for record in records} == {
        ("webhook", "queued", Event.objects.get().owner_key)
    }


@pytest.mark.django_db(transaction=True)
def test_an_event_that_nobody_wants_is_accepted_and_sends_nothing(post, facilities):
    response = post(EVENTS, {"event": "invoice.paid", "payload": {}})

    assert (response.status_code, response.json()) == (202, {"job_ids": []})
    assert waiting() == 0


def test_a_repeated_request_registers_its_endpoint_once(db):
    def register(*, repeated: bool) -> tuple[Endpoint, str]:
        with request_jobs(RequestJobs(has_key=True, claim="one claim", repeated=repeated)):
            return services.create_endpoint("user:1", URL, ["a"])

    assert register(repeated=False) == register(repeated=True)
    assert Endpoint.objects.count() == 1
