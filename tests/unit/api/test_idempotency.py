"""The same key and request: the first answer again, the work once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.db.models import Model, QuerySet
from django.http import HttpResponse
from django.test import Client

from switchyard.api import idempotency
from switchyard.api.models import IdempotentRequest
from switchyard.broker.errors import BrokerUnavailable
from tests.unit.api import probe_urls
from tests.unit.api.conftest import MakeToken, Post, problem

ORDER = {"id": 1, "month": "2026-10"}


def age(by: timedelta) -> None:
    """Make every kept request older."""
    for kept in IdempotentRequest.objects.all():
        IdempotentRequest.objects.filter(pk=kept.pk).update(claimed_at=kept.claimed_at - by)


def test_the_first_answer_comes_again_byte_for_byte(post: Post) -> None:
    first = post("/orders", ORDER, key="k1")
    second = post("/orders", ORDER, key="k1")

    assert len(probe_urls.calls) == 1
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second["Content-Type"] == first["Content-Type"]
    assert second["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first


@pytest.mark.parametrize(
    ("path", "body"),
    [("/orders", ORDER | {"id": 2}), ("/orders?x=1", ORDER), ("/fail/409", ORDER), ("/orders", b'{ "id": 1}')],
)
def test_the_key_with_another_request_is_422(post: Post, path: str, body: object) -> None:
    post("/orders", ORDER, key="k1")

    document = problem(post(path, body, key="k1"), 422)

    assert document["type"] == "urn:switchyard:problem:idempotency-key-reused"
    assert len(probe_urls.calls) == 1


def test_keys_belong_to_a_token(post: Post, make_token: MakeToken) -> None:
    post("/orders", ORDER, key="k1")
    other = post("/orders", ORDER, key="k1", Authorization=f"Bearer {make_token()[1]}")

    assert len(probe_urls.calls) == 2
    assert "Idempotency-Replayed" not in other


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_is_an_answer_and_comes_again(post: Post, status: int) -> None:
    first = post(f"/fail/{status}", key="k1")
    second = post(f"/fail/{status}", key="k1")

    assert len(probe_urls.calls) == 1
    assert second.content == first.content
    problem(second, status)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_that_is_not_final_lets_the_request_run_again_at_once(post: Post, status: int) -> None:
    post(f"/fail/{status}", key="k1")
    claimed_at = IdempotentRequest.objects.get().claimed_at
    again = post(f"/fail/{status}", key="k1")

    assert len(probe_urls.calls) == 2
    assert "Idempotency-Replayed" not in again
    assert IdempotentRequest.objects.get().claimed_at == claimed_at, "the key lives no longer for it"


@pytest.mark.parametrize("status", [401, 403, 413, 415])
def test_a_refusal_before_any_work_frees_the_key(post: Post, status: int) -> None:
    post(f"/fail/{status}", key="k1")

    assert not IdempotentRequest.objects.exists()


@pytest.mark.parametrize("path", ["/broken", "/unavailable/broker", "/unavailable/database", "/unavailable/queue"])
def test_after_our_own_failure_the_key_still_belongs_to_its_request(post: Post, path: str) -> None:
    post(path, key="k1")

    problem(post("/orders", ORDER, key="k1"), 422)
    assert IdempotentRequest.objects.get().key == "k1"


def ids_of(post: Post, key: str | None) -> tuple[str | None, str | None]:
    """Return the ids that a run gave a job and a row; the run then fails."""
    post("/jobs", key=key)
    return probe_urls.calls[-1]["job"], probe_urls.calls[-1]["row"]


def test_every_run_under_a_claim_of_a_day_gives_the_same_ids_to_jobs_and_rows(post: Post) -> None:
    first, second, other = ids_of(post, "k1"), ids_of(post, "k1"), ids_of(post, "k2")
    age(timedelta(hours=24, seconds=1))
    later = ids_of(post, "k1")

    assert first == second
    assert len({*first, *other, *later}) == 6
    assert [call["repeated"] for call in probe_urls.calls] == [False, True, False, False]


def test_without_a_key_every_request_is_its_own(post: Post) -> None:
    post("/orders", ORDER)
    post("/orders", ORDER)

    assert len(probe_urls.calls) == 2
    assert not IdempotentRequest.objects.exists()
    assert ids_of(post, None) == (None, None)


def test_a_response_that_cannot_be_stored_is_sent(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    update = QuerySet.update

    def fail(self: QuerySet[Model], **values: object) -> int:
        if self.model is IdempotentRequest:
            raise OperationalError("database is locked")
        return update(self, **values)

    monkeypatch.setattr(QuerySet, "update", fail)

    assert post("/orders", ORDER, key="k1").status_code == 201


@pytest.mark.parametrize(
    ("path", "key", "outcome", "advice"),
    [
        ("/unavailable/broker", "k", "unknown", "again with the same Idempotency-Key, its work is done once"),
        ("/unavailable/broker", None, "unknown", "sent again it may be done twice"),
        ("/unavailable/away", "k", "not_enqueued", "again with the same Idempotency-Key, its work is done once"),
        ("/unavailable/away", None, "not_enqueued", "nothing was enqueued; send the request again"),
        ("/unavailable/full", None, "not_enqueued", "nothing was enqueued; send the request again"),
        ("/unavailable/unsafe", None, "not_enqueued", "nothing was enqueued; send the request again"),
        ("/unavailable/database", None, "not_enqueued", "nothing was enqueued; send the request again"),
    ],
)
def test_a_503_says_what_is_known_and_what_to_do(
    post: Post, path: str, key: str | None, outcome: str, advice: str
) -> None:
    document = problem(post(path, key=key), 503)

    assert document["outcome"] == outcome
    assert advice in document["detail"]


def test_an_outcome_that_was_unknown_stays_unknown(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [BrokerUnavailable("enqueue", "timeout"), BrokerUnavailable("enqueue", "refused", outcome="refused")]
    monkeypatch.setattr(probe_urls, "next_errors", errors)

    assert [problem(post("/jobs", key="k1"), 503)["outcome"] for _ in range(2)] == ["unknown", "unknown"]


def test_a_key_in_flight_is_409_with_retry_after(post: Post) -> None:
    post("/orders", ORDER, key="k1")
    IdempotentRequest.objects.update(status=None)

    response = post("/orders", ORDER, key="k1")

    assert problem(response, 409)["type"] == "urn:switchyard:problem:idempotency-key-in-flight"
    assert int(response["Retry-After"]) > 0
    assert len(probe_urls.calls) == 1


def test_a_key_whose_process_died_lapses_after_a_minute_and_still_belongs_to_its_request(post: Post) -> None:
    post("/orders", ORDER, key="k1")
    IdempotentRequest.objects.update(status=None)
    age(timedelta(seconds=61))

    other, response = post("/orders", ORDER | {"id": 2}, key="k1"), post("/orders", ORDER, key="k1")

    problem(other, 422)
    assert response.status_code == 201
    assert len(probe_urls.calls) == 2
    assert post("/orders", ORDER, key="k1").content == response.content


def test_whoever_was_taken_over_does_not_overwrite_the_answer(post: Post) -> None:
    post("/orders", ORDER, key="k1")
    IdempotentRequest.objects.update(status=None)
    late = IdempotentRequest.objects.get()
    age(timedelta(seconds=61))
    answer = post("/orders", ORDER, key="k1")

    idempotency.settle(late, HttpResponse(b"late", status=201))

    assert post("/orders", ORDER, key="k1").content == answer.content


def test_a_key_is_free_again_after_a_day_and_purged(post: Post) -> None:
    post("/orders", ORDER, key="k1")
    post("/orders", ORDER, key="old")
    age(timedelta(hours=24, seconds=1))

    response = post("/orders", ORDER | {"id": 2}, key="k1")

    assert response.status_code == 201
    assert len(probe_urls.calls) == 3
    age(timedelta(minutes=59))
    assert idempotency.purge() == 1
    assert IdempotentRequest.objects.get().key == "k1"


@pytest.mark.parametrize("key", ["", " ", "a\tb", "x" * 256, "grün"])
def test_an_unusable_key_is_400(post: Post, key: str) -> None:
    problem(post("/orders", ORDER, key=key), 400)
    assert probe_urls.calls == []


def test_a_key_without_a_valid_token_is_401_and_keeps_nothing(post: Post) -> None:
    problem(post("/orders", ORDER, key="k1", Authorization="Bearer sy_wrong"), 401)

    assert not IdempotentRequest.objects.exists()


def test_signed_events_need_no_token_and_take_no_key(probe: Client) -> None:
    for _ in range(2):
        probe.post("/api/v1/probe/signed", headers={"Idempotency-Key": "k1"})

    assert len(probe_urls.calls) == 2


def test_the_same_file_is_the_same_request_whatever_its_boundary(probe: Client, bearer: dict[str, str]) -> None:
    def send(content: bytes, boundary: str) -> HttpResponse:
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
            f"Content-Type: text/plain\r\n\r\n{content.decode()}\r\n--{boundary}--\r\n"
        )
        kind = f"multipart/form-data; boundary={boundary}"
        headers = bearer | {"Idempotency-Key": "k1"}
        return probe.post("/api/v1/probe/files", body.encode(), content_type=kind, headers=headers)

    first, second, other = send(b"hello", "one"), send(b"hello", "two"), send(b"bye", "one")

    assert json.loads(first.content)["content"] == "hello"
    assert second.content == first.content
    problem(other, 422)
    assert len(probe_urls.calls) == 1


def test_large_files_are_read_again_by_the_operation(probe: Client, bearer: dict[str, str]) -> None:
    content = b"x" * (3 * 1024 * 1024)
    headers = bearer | {"Idempotency-Key": "k1"}

    response = probe.post("/api/v1/probe/files", {"file": SimpleUploadedFile("a", content)}, headers=headers)

    assert len(json.loads(response.content)["content"]) == len(content)
