"""Deliveries: one attempt against a real receiver, and their life through real workers."""

import dataclasses
import socket
from types import SimpleNamespace

import dramatiq
import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from dramatiq.middleware import CurrentMessage
from standardwebhooks.webhooks import Webhook

from apps.webhooks import delivering, publishing, services
from apps.webhooks.actors import deliver_webhook
from apps.webhooks.delivering import DeliveryFailed, DeliveryRefused, deliver
from apps.webhooks.models import Attempt, Delivery, DeliveryState, Endpoint
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.topology import RetryPolicy
from switchyard.middleware.errors import PermanentFailure, RetryLater
from tests.factories.letters import requeue
from tests.integration.outbound.listener import answering, flooding, listening
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
LANES = ("webhook", "webhook-retry")


def answer_with(status: int, headers: str = "", body: str = ""):
    return answering(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}".encode())


def run(delivery: Delivery, *, is_last: bool = False) -> Delivery:
    deliver(str(delivery.pk), is_last=is_last)
    delivery.refresh_from_db()
    return delivery


def test_a_delivery_is_signed_and_its_attempt_is_written_down(receiver, make_delivery):
    delivery = make_delivery(receiver.url + "healthy")
    receiver.secrets_file.write_text(delivery.endpoint.secret)

    run(delivery)

    (arrived,) = receiver.log
    assert (arrived["id"], arrived["path"], arrived["status"]) == (delivery.webhook_id, "/healthy", 200)
    assert arrived["signature_ok"] is True
    assert (delivery.state, delivery.attempts_count, delivery.last_status_code) == (DeliveryState.SUCCEEDED, 1, 200)
    assert delivery.finished_at == delivery.last_attempt_at
    attempt = delivery.attempts.get()
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, "")
    assert attempt.response_excerpt == '{"status": 200}'
    assert 0 <= attempt.duration_ms < 5_000


def test_a_failure_after_another_run_succeeded_leaves_the_delivery_delivered(receiver, make_delivery):
    delivery = make_delivery(receiver.url + "healthy")
    for state in (DeliveryState.SUCCEEDED, DeliveryState.RETRYING):
        services.record_attempt(delivery.pk, state, duration_ms=1, response=None)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts_count) == (DeliveryState.SUCCEEDED, 2)
    assert delivery.finished_at is not None


def test_every_attempt_sends_the_same_id_and_bytes_and_a_time_of_its_own(make_delivery, allow):
    with listening(answer_with(500)) as listener:
        delivery = make_delivery(allow(listener))
        for _ in range(2):
            with pytest.raises(DeliveryFailed):
                run(delivery)

    first, second = (request.partition(b"\r\n\r\n") for request in listener.requests)
    assert first[2] == second[2]
    for head, _, body in (first, second):
        headers = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:])
        assert (headers["webhook-id"], headers["content-type"]) == (delivery.webhook_id, "application/json")
        raw = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:])
        Webhook(delivery.endpoint.secret).verify(body, raw)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(status, make_delivery, allow):
    with listening(answer_with(status)) as listener:
        delivery = run(make_delivery(allow(listener)))

    assert (delivery.state, delivery.last_status_code) == (DeliveryState.SUCCEEDED, status)


@pytest.mark.parametrize("status", [101, 300, 301, 302, 304, 307, 400, 401, 403, 404, 409, 429, 500, 502, 503, 599])
def test_anything_else_fails_and_is_tried_again(status, make_delivery, allow):
    with listening(answer_with(status)) as listener:
        delivery = make_delivery(allow(listener))
        failure = DeliveryFailed if status >= 500 else DeliveryRefused
        with pytest.raises(failure, match=f"127.0.0.1: answered {status}"):
            run(delivery)
        delivery.refresh_from_db()

    assert (delivery.state, delivery.last_status_code, delivery.finished_at) == (DeliveryState.RETRYING, status, None)
    assert delivery.attempts.get().error.startswith(f"127.0.0.1: answered {status}")


def test_the_last_failure_is_noted_as_given_up(receiver, make_delivery):
    delivery = make_delivery(receiver.url + "broken")

    with pytest.raises(DeliveryFailed):
        run(delivery, is_last=True)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.DEAD
    assert delivery.finished_at is not None


def test_gone_disables_the_endpoint_and_is_final(receiver, make_delivery):
    delivery = make_delivery(receiver.url + "gone")
    later = Delivery.objects.create(event=delivery.event, endpoint=delivery.endpoint, job_id="")

    with pytest.raises(PermanentFailure, match="410 Gone"):
        run(delivery)
    run(later)

    endpoint = Endpoint.objects.get()
    delivery.refresh_from_db()
    assert (endpoint.active, endpoint.disabled_reason[:17]) == (False, "answered 410 Gone")
    assert (delivery.state, later.state, later.attempts_count) == (DeliveryState.DEAD, DeliveryState.SKIPPED, 0)
    assert len(receiver.log) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_that_asks_to_wait_is_obeyed_up_to_an_hour(status, make_delivery, allow):
    waits = []
    for asked in ("7", "86400"):
        with listening(answer_with(status, f"Retry-After: {asked}\r\n")) as listener:
            delivery = make_delivery(allow(listener))
            with pytest.raises(RetryLater) as later:
                run(delivery)
            waits.append(later.value.delay)
            delivery.refresh_from_db()
            assert delivery.state == DeliveryState.RETRYING

    assert waits == [7_000, 3_600_000]


def test_a_500_with_retry_after_is_an_ordinary_failure(make_delivery, allow):
    with listening(answer_with(500, "Retry-After: 7\r\n")) as listener, pytest.raises(DeliveryFailed):
        run(make_delivery(allow(listener)))


def test_a_forbidden_address_is_final_and_nothing_is_sent(make_delivery):
    with listening(answer_with(200)) as listener:
        delivery = make_delivery(listener.url)
        with pytest.raises(PermanentFailure, match="port"):
            run(delivery)

    delivery.refresh_from_db()
    assert (listener.accepted, delivery.state, delivery.last_status_code) == (0, DeliveryState.DEAD, None)
    assert "is not allowed" in delivery.attempts.get().error


def test_a_refused_connection_and_a_missing_answer_are_tried_again(make_delivery, allow):
    with listening(answering(b"")) as listener:
        delivery = make_delivery(allow(listener))
        with pytest.raises(DeliveryFailed, match="without an answer"):
            run(delivery)
    with pytest.raises(DeliveryFailed, match="refused"):
        run(delivery)

    assert list(Attempt.objects.values_list("number", "status_code")) == [(1, None), (2, None)]


def test_a_slow_endpoint_is_left_at_the_deadline(receiver, make_delivery, monkeypatch):
    monkeypatch.setattr(delivering, "DEADLINE_S", 0.3)
    delivery = make_delivery(receiver.url + "slow")

    with pytest.raises(DeliveryFailed, match=r"not done after 0\.3 s"):
        run(delivery)


def test_of_an_endless_answer_four_kibibytes_are_kept(make_delivery, allow):
    with listening(flooding(b"HTTP/1.1 200 OK\r\n\r\n", "€\0".encode())) as listener:
        delivery = run(make_delivery(allow(listener)))

    kept = delivery.attempts.get().response_excerpt
    assert 4_000 < len(kept.encode()) <= 4_096
    assert "\0" not in kept


def test_a_delivery_that_was_deleted_is_final():
    for unknown in ("5f1b1a0e-0000-4000-8000-000000000000", "no id at all", ""):
        with pytest.raises(PermanentFailure, match="does not exist"):
            deliver(unknown, is_last=False)


def test_a_failure_names_neither_path_nor_query_nor_secret(make_delivery, allow):
    with listening(answer_with(500, body="no")) as listener:
        delivery = make_delivery(allow(listener) + "canary?key=canary")
        with pytest.raises(DeliveryFailed) as failed:
            run(delivery)

    stored = delivery.attempts.get().error
    assert "canary" not in str(failed.value) + stored and delivery.endpoint.secret not in str(failed.value) + stored


def test_attempts_are_deleted_after_thirty_days(make_delivery, receiver):
    delivery = run(make_delivery(receiver.url + "healthy"))
    old = timezone.now() - services.ATTEMPTS_KEPT
    Attempt.objects.bulk_create(
        Attempt(delivery=delivery, number=number, duration_ms=1, at=old) for number in range(2, 1_103)
    )

    assert (services.purge_attempts(), delivery.attempts.count()) == (1_101, 1)


def test_the_host_of_an_attempt_is_named_for_its_counts(make_delivery, allow, monkeypatch):
    message = SimpleNamespace()
    monkeypatch.setattr(CurrentMessage, "get_current_message", classmethod(lambda cls: message))

    with listening(answer_with(200)) as listener:
        run(make_delivery(allow(listener)))

    assert message.called_host == "127.0.0.1"


@pytest.fixture
def hurried(yard_broker):
    """A broker on which retries follow at once, with the actor on it."""
    yard = django_settings.SWITCHYARD.topology
    queues = tuple(dataclasses.replace(queue, retry=RetryPolicy(delays_ms=(1, 1, 2, 3, 5))) for queue in yard.queues)
    broker = yard_broker(dataclasses.replace(yard, queues=queues))
    actor = dramatiq.actor(
        deliver_webhook.fn, actor_name=deliver_webhook.actor_name, queue_name=deliver_webhook.queue_name, broker=broker
    )
    return broker, actor


def state_of(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.state


@pytest.mark.django_db(transaction=True)
def test_a_name_that_leads_inside_ends_its_job_as_permanent(make_delivery, hurried, run_worker, monkeypatch):
    broker, actor = hurried
    delivery, ask = make_delivery("https://inside.example/"), socket.getaddrinfo
    led = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **b: led if "inside" in host else ask(host, *a, **b))

    with run_worker(*LANES, broker=broker):
        message = actor.send(delivery_id=str(delivery.pk))
        letter = wait_for(lambda: facilities_of(broker).transport.find_dead_letter("webhook", message.message_id))

    assert (letter.reason, letter.attempts, state_of(delivery)) == ("permanent", 1, DeliveryState.DEAD)


@pytest.mark.django_db(transaction=True)
def test_a_flaky_endpoint_is_reached_at_the_third_attempt(receiver, make_delivery, hurried, run_worker):
    broker, actor = hurried
    delivery = make_delivery(receiver.url + "flaky")

    with run_worker(*LANES, broker=broker):
        actor.send(delivery_id=str(delivery.pk))
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)

    assert [attempt.status_code for attempt in delivery.attempts.order_by("number")] == [500, 500, 200]
    assert {arrived["id"] for arrived in receiver.log} == {delivery.webhook_id}


@pytest.mark.django_db(transaction=True)
def test_a_broken_endpoint_is_given_up_after_six_attempts_and_reached_after_a_requeue(
    receiver, make_delivery, hurried, run_worker
):
    broker, actor = hurried
    transport = facilities_of(broker).transport
    delivery = make_delivery(receiver.url + "broken")

    with run_worker(*LANES, broker=broker):
        message = actor.send(delivery_id=str(delivery.pk))
        letter = wait_for(lambda: transport.find_dead_letter("webhook", message.message_id))
        state = state_of(delivery)
        seen = len(receiver.log)
        Endpoint.objects.update(url=receiver.url + "healthy")
        requeue(transport, "webhook", message.message_id)
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)

    assert (letter.reason, letter.exception, letter.attempts) == ("exhausted", "DeliveryFailed", 6)
    assert (state, seen) == (DeliveryState.DEAD, 6)
    assert [attempt.status_code for attempt in delivery.attempts.order_by("number")] == [500] * 6 + [200]


@pytest.mark.django_db(transaction=True)
def test_a_redelivery_is_a_new_job_with_the_same_webhook_id(receiver, make_delivery, facilities, run_worker):
    delivery = make_delivery(receiver.url + "healthy")
    with run_worker(*LANES):
        first = publishing.redeliver([delivery.pk])
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)
        second = publishing.redeliver([delivery.pk])
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)

    assert first != second
    assert delivery.job_id == second[0]
    assert [arrived["id"] for arrived in receiver.log] == [delivery.webhook_id] * 2
    assert delivery.attempts.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_redelivery_cancels_what_the_old_job_still_planned(receiver, make_delivery, facilities, run_worker):
    delivery = make_delivery(receiver.url + "healthy")
    (old,) = publishing.redeliver([delivery.pk])

    (new,) = publishing.redeliver([delivery.pk])

    assert (facilities.records.read(old).state, facilities.records.read(new).state) == ("cancelled", "queued")
    with run_worker(*LANES):
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)
        wait_for(lambda: facilities.transport.stats("webhook").live.waiting == 0)
    assert len(receiver.log) == 1
