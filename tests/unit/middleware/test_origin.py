"""The origin of a job: request, user, schedule, the job that sent it, and its tags."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import CurrentMessage

from switchyard.jobs.request_origin import HEADER, request_origin
from switchyard.middleware.envelope import LONGEST_VALUE, Envelope, Origin, following, sent_by_schedule
from switchyard.middleware.errors import InvalidOption
from switchyard.middleware.options import Options, refuse_unknown


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker(middleware=[Options(), CurrentMessage(), Origin(), Envelope()])
    refuse_unknown(broker)
    return broker


@pytest.fixture
def actor(broker: StubBroker) -> dramatiq.Actor[[], None]:
    @dramatiq.actor(broker=broker)
    def actor() -> None: ...

    return actor


def test_nothing_is_added_outside_of_requests_schedules_and_jobs(actor: Any) -> None:
    assert set(actor.send().options) == {"enqueued_at"}


def test_the_schedule_that_sends_is_named(actor: Any) -> None:
    with sent_by_schedule("close_day" * 100):
        sent = actor.send()

    assert sent.options["origin"] == {"schedule": ("close_day" * 100)[:LONGEST_VALUE]}
    assert "origin" not in actor.send().options


def test_the_job_that_sends_is_the_parent_and_so_is_the_one_that_a_step_follows(broker: StubBroker, actor: Any) -> None:
    outer = actor.message()
    current = next(entry for entry in broker.middleware if isinstance(entry, CurrentMessage))
    current.before_process_message(broker, outer)
    child = actor.send()
    current.after_process_message(broker, outer)
    with following("0d6f"):
        step = actor.send()

    assert child.options["parent"] == outer.message_id
    assert step.options["parent"] == "0d6f"


def test_a_retry_keeps_what_the_first_send_wrote(broker: StubBroker, actor: Any) -> None:
    first = actor.send()
    with sent_by_schedule("close_day"), following("0d6f"):
        broker.enqueue(first)

    assert set(first.options) == {"enqueued_at"}


def test_tags_of_actor_and_message_are_joined(broker: StubBroker) -> None:
    @dramatiq.actor(broker=broker, tags=("invoices", "monthly"))
    def tagged() -> None: ...

    assert tagged.send().options["tags"] == ["invoices", "monthly"]
    assert tagged.send_with_options(tags=["acme", "monthly"]).options["tags"] == ["acme", "monthly", "invoices"]


@pytest.mark.parametrize("tags", ["invoices", [""], ["x" * 65], [7], ["a\nb"], ["t"] * 11, {"a": 1}])
def test_tags_that_are_no_short_texts_are_refused(actor: Any, broker: StubBroker, tags: Any) -> None:
    with pytest.raises(InvalidOption, match="write at most 10 texts of 1 to 64 characters"):
        actor.send_with_options(tags=tags)
    with pytest.raises(InvalidOption, match="write at most 10 texts"):
        dramatiq.actor(lambda: None, broker=broker, actor_name="tagged", tags=tags)


@pytest.mark.parametrize("origin", ["me", {"request": 1}, {"host": "a"}, {"user": "x" * 151}])
def test_an_origin_of_a_foreign_form_is_refused(actor: Any, origin: Any) -> None:
    with pytest.raises(InvalidOption, match="leave it out"):
        actor.send_with_options(origin=origin)


def handled(actor: Any, **fields: Any) -> tuple[dramatiq.Message[Any], HttpResponse]:
    request: HttpRequest = RequestFactory().get("/", headers=fields.pop("headers", {}))
    sent = []

    def view(request: HttpRequest) -> HttpResponse:
        for name, value in fields.items():
            setattr(request, name, value)
        sent.append(actor.send())
        return HttpResponse()

    response = request_origin(view)(request)
    return sent[0], response


def test_the_request_that_a_proxy_named_and_its_user_are_the_origin(actor: Any) -> None:
    user = SimpleNamespace(is_authenticated=True, get_username=lambda: "mia")

    sent, response = handled(actor, headers={HEADER: "7c1f-09"}, _cached_user=user)

    assert sent.options["origin"] == {"request": "7c1f-09", "user": "mia"}
    assert response[HEADER] == "7c1f-09"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>"])
def test_a_request_without_a_usable_id_gets_one(actor: Any, given: str) -> None:
    sent, response = handled(actor, headers={HEADER: given})

    assert sent.options["origin"] == {"request": response[HEADER]}
    assert response[HEADER] != given


def test_a_request_of_the_api_names_its_token(actor: Any) -> None:
    sent, _ = handled(actor, auth=SimpleNamespace(prefix="ab12", name="nordwind-prod"))

    assert sent.options["origin"]["user"] == "token nordwind-prod"
