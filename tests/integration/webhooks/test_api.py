"""Endpoints and events through the API and in the admin, the receiver of the demo, and a pool of greenlets."""

import io
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from PIL import Image

from apps.webhooks import delivering, publishing, services
from apps.webhooks.delivering import DeliveryFailed
from apps.webhooks.models import Attempt, Delivery, DeliveryState, Endpoint, Event
from switchyard.api.request_jobs import RequestJobs, request_jobs
from switchyard.broker.interface import facilities as facilities_of
from tests.factories.staff import client_of, log_in
from tests.integration.outbound.listener import dripping, listening
from tests.unit.api.conftest import problem
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
ENDPOINTS = "/webhooks/endpoints"
EVENTS = "/webhooks/events"
URL = "https://93.184.216.34/hook?key=1"
ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "apps.webhooks.receiver"]
HANGING = 50
HEALTHY = 40


def waiting() -> int:
    return facilities_of().transport.stats("webhook").live.waiting


def fields(response) -> list[str]:
    return [error["field"] for error in problem(response, 422)["errors"]]


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
    assert fields(post(ENDPOINTS, {"url": URL, "events": events}))[0].startswith("events")
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
    assert (Event.objects.get().payload, waiting()) == ('{"a":[null],"b":1}', 2)
    records = [facilities.records.read(job) for job in jobs]
    assert {(record.queue, record.state, record.owner) for record in records} == {
        ("webhook", "queued", Event.objects.get().owner_key)
    }


@pytest.mark.django_db(transaction=True)
def test_an_event_that_nobody_wants_is_accepted_and_sends_nothing(post, facilities):
    response = post(EVENTS, {"event": "invoice.paid", "payload": {}})

    assert (response.status_code, response.json(), waiting()) == (202, {"job_ids": []}, 0)


def test_a_repeated_request_registers_its_endpoint_once(db):
    def register(*, repeated: bool) -> tuple[Endpoint, str]:
        with request_jobs(RequestJobs(has_key=True, claim="one claim", repeated=repeated)):
            return services.create_endpoint("user:1", URL, ["a"])

    assert register(repeated=False) == register(repeated=True)
    assert Endpoint.objects.count() == 1


def act(client: Client, model: str, action: str, *keys: object):
    url = reverse(f"admin:webhooks_{model}_changelist")
    return client.post(url, {"action": action, "_selected_action": [str(key) for key in keys]}, follow=True)


@pytest.fixture
def failed(receiver, make_delivery, facilities):
    delivery = make_delivery(receiver.url + "broken")
    with pytest.raises(DeliveryFailed):
        delivering.deliver(str(delivery.pk), is_last=True)
    return delivery


def test_every_page_loads_and_shows_no_secret(failed):
    client = log_in()
    pages = [reverse(f"admin:webhooks_{model}_changelist") for model in ("endpoint", "event", "delivery")]
    pages += [
        reverse("admin:webhooks_endpoint_change", args=[failed.endpoint_id]),
        reverse("admin:webhooks_event_change", args=[failed.event_id]),
        reverse("admin:webhooks_delivery_change", args=[failed.pk]),
    ]

    texts = [client.get(page) for page in pages]

    assert [page.status_code for page in texts] == [200] * 6
    assert all(failed.endpoint.secret not in page.content.decode() for page in texts)
    assert failed.endpoint.secret[-4:] in texts[3].content.decode()
    delivery_page = texts[5].content.decode()
    assert failed.webhook_id in delivery_page and "answered 500" in delivery_page
    assert '<div class="readonly">–</div>' in delivery_page


def test_hostile_text_is_shown_as_text(failed):
    failed.attempts.update(response_excerpt="<script>alert(1)</script>", error="<img src=x onerror=alert(2)>")
    Endpoint.objects.update(url="http://127.0.0.1/<svg/onload=alert(3)>")

    page = log_in().get(reverse("admin:webhooks_delivery_change", args=[failed.pk])).content.decode()

    assert "<script>alert(1)" not in page and "<img src=x" not in page and "<svg/onload" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.django_db(transaction=True)
def test_redelivering_enqueues_a_new_job_to_which_the_delivery_leads(failed, facilities):
    page = act(log_in(), "delivery", "redeliver", failed.pk)

    failed.refresh_from_db()
    assert "1 on the way again" in page.content.decode()
    assert (failed.state, facilities.records.read(failed.job_id).state) == (DeliveryState.PENDING, "queued")
    client = client_of(User.objects.get(username="root"))
    shown = client.get(reverse("admin:webhooks_delivery_change", args=[failed.pk])).content.decode()
    assert f'href="{reverse("switchyard-job", args=[failed.job_id])}"' in shown


def test_endpoints_are_disabled_and_enabled(failed):
    client = log_in()

    act(client, "endpoint", "disable", failed.endpoint_id)
    disabled = Endpoint.objects.get()
    act(client, "endpoint", "enable", failed.endpoint_id)

    assert (disabled.active, disabled.disabled_reason) == (False, "disabled by root")
    assert (Endpoint.objects.get().active, Endpoint.objects.get().disabled_reason) == (True, "")


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_says_where_it_is_and_stops_at_once_even_while_a_request_waits():
    with subprocess.Popen([*COMMAND, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        url = ready.removeprefix("ready: ").strip()
        waits = subprocess.Popen(
            [sys.executable, "-c", f"import urllib.request as u; u.urlopen('{url}slow', b'{{}}')"],
            stderr=subprocess.DEVNULL,
        )
        status, _ = ask(url + "healthy", b"{}")
        process.send_signal(signal.SIGTERM)
        code = process.wait(25)
        waits.kill()
        waits.wait(30)

    assert ready.startswith("ready: http://127.0.0.1:")
    assert (status, code) == (200, 0)


def test_each_path_behaves_as_its_name_says_and_one_is_a_picture(receiver):
    url = receiver.url

    assert ask(url + "healthy", b"{}")[0] == 200
    assert [ask(url + "flaky", b"{}", webhook_id="msg_1")[0] for _ in range(4)] == [500, 500, 200, 200]
    assert (ask(url + "flaky", b"{}", webhook_id="msg_2")[0], ask(url + "broken", b"{}")[0]) == (500, 500)
    assert (ask(url + "gone", b"{}")[0], ask(url + "elsewhere", b"{}")[0]) == (410, 404)
    assert ask(url + "healthz")[0] == 200
    log = receiver.log
    assert [entry["status"] for entry in log] == [200, 500, 500, 200, 200, 500, 500, 410, 404]
    assert log[1].keys() == {"id", "path", "status", "signature_ok", "at"}
    assert log[1]["signature_ok"] is None
    status, content = ask(url + "image.jpg")
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert (status, picture.format, picture.size) == (200, "JPEG", (1200, 800))


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v1,***", "v2,abc", "v1,ü", "v1,AAAA " * 50])
def test_a_broken_signature_is_no_crash(receiver, signature):
    receiver.secrets_file.write_text('{"a": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}')
    headers = {"webhook_id": "msg_1", "webhook_timestamp": str(int(time.time())), "webhook_signature": signature}

    assert (ask(receiver.url + "healthy", b"{}", **headers)[0], len(receiver.log)) == (401, 1)


@pytest.mark.django_db(transaction=True)
def test_fifty_endpoints_that_drip_do_not_delay_a_healthy_one(
    receiver, make_delivery, facilities, process_environment, tmp_path
):
    with listening(dripping(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n", every_s=0.5)) as slow:
        allowed = f"127.0.0.1:{slow.port} 127.0.0.1:{receiver.server_address[1]}"
        hanging = [make_delivery(slow.url) for _ in range(HANGING)]
        healthy = [make_delivery(receiver.url + "healthy") for _ in range(HEALTHY)]
        with (tmp_path / "pool.log").open("wb") as log:
            pool = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "runpool", "webhook"],
                env=process_environment | {"SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": allowed},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(lambda: b"ready" in (tmp_path / "pool.log").read_bytes(), 60, what="the pool")
            publishing.redeliver(delivery.pk for delivery in hanging)
            wait_for(lambda: slow.accepted == HANGING, 60, what="every slow delivery to hang")
            publishing.redeliver(delivery.pk for delivery in healthy)
            succeeded = Delivery.objects.filter(state=DeliveryState.SUCCEEDED)
            wait_for(lambda: succeeded.count() == HEALTHY, 60, what="the healthy deliveries")
            none_given_up = not Attempt.objects.filter(delivery__in=hanging).exists()
        finally:
            os.killpg(pool.pid, signal.SIGKILL)
            pool.wait(30)

    durations_ms = sorted(Attempt.objects.values_list("duration_ms", flat=True))
    assert none_given_up
    assert durations_ms[int(HEALTHY * 0.95) - 1] < 8_000, "behind the slow ones they would take their 10 s"
