"""Tokens: kept as a hash, checked, revoked, made in the admin; and idempotency keys, whose work is done once."""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.admin import site
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import reverse

from switchyard.api import idempotency
from switchyard.api.models import SCOPES, IdempotentRequest, Token, covered_scopes
from switchyard.api.tokens import create_token, find_token, note_use, revoke_token
from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerUnavailable
from tests.factories.callers import api_user
from tests.factories.commands import output_of
from tests.factories.staff import client_of
from tests.unit.api import probe_urls
from tests.unit.api.conftest import Post, problem

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LIST = "admin:switchyard_api_token_changelist"


def test_a_token_is_found_by_its_plain_form_whose_secret_of_256_bits_is_never_stored(make_token):
    token, plain = make_token("submit")
    secret = plain.split("_", 2)[2]

    assert find_token(plain) == token
    assert plain.startswith(f"sy_{token.prefix}_")
    assert len(secret) == 43  # 32 bytes in base64 without padding
    assert secret not in json.dumps(list(Token.objects.values()), default=str)


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain[:-1] + ("A" if plain[-1] != "A" else "B"),
        lambda plain: plain + "A",
        lambda plain: plain.replace("sy_", "xy_", 1),
        lambda plain: "sy_000000000000_" + plain.split("_", 2)[2],
        lambda plain: plain.split("_", 2)[2],
        lambda plain: "",
        lambda plain: plain + "\0",
        lambda plain: "sy_" + "é" * 12 + "_" + "x" * 43,
    ],
)
def test_anything_else_is_no_token(make_token, change):
    _, plain = make_token()

    assert find_token(change(plain)) is None


def test_a_revoked_token_and_one_of_an_inactive_user_are_none(make_token, owner):
    (revoked, plain), (_, other) = make_token(), make_token()

    revoke_token(revoked.prefix, who=Who("ada", "command"))
    found = find_token(plain), find_token(other)
    User.objects.filter(pk=owner.pk).update(is_active=False)

    assert found[0] is None and found[1] is not None
    assert find_token(other) is None


def test_unknown_scopes_are_refused(owner):
    with pytest.raises(ValidationError, match="everything not known"):
        create_token(owner=owner, scopes=["read", "everything"], name="x")


def test_use_is_noted_once_a_minute(make_token, django_assert_num_queries):
    token, _ = make_token()

    with time_machine.travel(NOON, tick=False) as now:
        note_use(token)
        token.refresh_from_db()
        assert token.last_used_at == NOON
        now.shift(timedelta(seconds=59))
        with django_assert_num_queries(0):
            note_use(token)
        now.shift(timedelta(seconds=2))
        note_use(token)
        token.refresh_from_db()

    assert token.last_used_at == NOON + timedelta(seconds=61)


def test_a_request_without_a_token_is_401_and_told_how(probe):
    response = probe.get("/api/v1/probe/mine")

    assert "no token" in problem(response, 401)["detail"]
    assert response["WWW-Authenticate"] == 'Bearer realm="switchyard"'


@pytest.mark.parametrize("header", ["Bearer sy_x", "Bearer ", "Bearer", "Basic YTpi", "sy_x", "Bearer \xff"])
def test_a_request_with_a_wrong_token_is_401(probe, db, header):
    response = probe.get("/api/v1/probe/mine", headers={"Authorization": header})

    problem(response, 401)
    assert 'error="invalid_token"' in response["WWW-Authenticate"]


def test_the_scheme_is_not_case_sensitive(probe, make_token):
    _, plain = make_token("read")

    assert probe.get("/api/v1/probe/mine", headers={"Authorization": f"bearer {plain}"}).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "path", "method", "status"),
    [
        (["read"], "mine", "get", 200),
        (["operate"], "mine", "get", 200),
        (["submit"], "mine", "get", 403),
        (["submit", "read"], "all", "get", 403),
        (["operate"], "all", "get", 200),
        (["read", "operate"], "orders", "post", 403),
    ],
)
def test_a_token_may_what_its_scopes_say(probe, make_token, scopes, path, method, status):
    _, plain = make_token(*scopes)

    response = getattr(probe, method)(f"/api/v1/probe/{path}", headers={"Authorization": f"Bearer {plain}"})

    assert response.status_code == status
    if status == 403:
        assert "this request needs" in problem(response, 403)["detail"]


def test_a_token_has_an_allowance_on_each_route(probe, make_token, monkeypatch):
    """Reading and repeating a request are not counted, and a refused key is free."""
    first, second = ({"Authorization": f"Bearer {make_token()[1]}"} for _ in range(2))
    monkeypatch.setattr(probe_urls.submit_scope, "a_minute", 2)
    monkeypatch.setattr(time, "monotonic", lambda: 90.0)

    def sent(number: int, headers: dict[str, str], key: str, route: str = "orders") -> HttpResponse:
        body, headers = {"id": number, "month": "2026-10"}, {**headers, "Idempotency-Key": key}
        return probe.post(f"/api/v1/probe/{route}", body, "application/json", headers=headers)

    before = [sent(number, first, f"{min(number, 2)}").status_code for number in (1, 2, 2)]
    refused, another = sent(3, first, "3"), sent(3, second, "3")
    other_route = sent(1, first, "4", "fail/404").status_code
    reads = {probe.get("/api/v1/probe/mine", headers=first).status_code for _ in range(3)}
    monkeypatch.setattr(time, "monotonic", lambda: 120.0)

    assert (before, another.status_code, reads) == ([201] * 3, 201, {200})
    assert problem(refused, 429) and refused["Retry-After"] == "30"
    assert other_route == 404 and sent(4, first, "3").status_code == 201


@pytest.mark.parametrize("way", ["user", "group"])
def test_rights_of_a_token_end_with_those_of_its_owner(probe, make_token, way):
    user, submit = api_user("eve", "view_job"), Permission.objects.get(codename="submit_work")
    given = user.user_permissions if way == "user" else Group.objects.create(name="senders").permissions
    user.groups.set(Group.objects.filter(name="senders"))
    given.add(submit)
    token, plain = make_token("submit", "read", user=User.objects.get(pk=user.pk))

    def statuses() -> tuple[int, int]:
        headers = {"Authorization": f"Bearer {plain}"}
        sent = probe.post("/api/v1/probe/orders", {"id": 1, "month": "2026-10"}, "application/json", headers=headers)
        return sent.status_code, probe.get("/api/v1/probe/mine", headers=headers).status_code

    before, _ = statuses(), given.remove(submit)
    during, listed = statuses(), Token.objects.get(pk=token.pk).shown_scopes
    given.add(submit)

    assert (before[0] < 300, before[1], during, listed) == (True, 200, (403, 200), "submit (not its owner's), read")
    assert statuses() == before


def test_a_command_prints_a_token_that_works_and_refuses_scopes_that_are_unknown_or_not_the_owners(owner):
    token = find_token(output_of("tokens", "create", "--user=ada", "--scopes=submit, read").strip())

    assert token.scopes == ["submit", "read"]

    with pytest.raises(CommandError, match="fly not known; choose from submit, read, operate") as caught:
        call_command("switchyard", "tokens", "create", "--user=ada", "--scopes=read,fly")
    api_user("eve", "view_job")
    with pytest.raises(CommandError, match=r"eve may not operate; give the user switchyard_jobs\.view_job, "):
        call_command("switchyard", "tokens", "create", "--user=eve", "--scopes=read,operate")

    assert caught.value.returncode == 2


def test_tokens_are_a_table_without_secrets_that_drives_no_terminal(make_token):
    token, plain = make_token()
    token.name = "[red]evil\x1b[31m"
    token.save()

    table, document = output_of("tokens", "list"), output_of("tokens", "list", "--json")

    head, line = table.splitlines()
    assert head.split()[:4] == ["prefix", "state", "owner", "scopes"]
    assert "never" in line and r"[red]evil\x1b[31m" in line and "\x1b" not in line
    assert token.prefix in table and token.prefix in document
    assert plain.split("_", 2)[2] not in table + document and token.secret_hash not in table + document


@pytest.mark.parametrize("shorten", [lambda plain: plain, lambda plain: plain.split("_")[1]])
def test_tokens_revokes_by_prefix_or_whole(make_token, shorten):
    _, plain = make_token()

    output_of("tokens", "revoke", shorten(plain))

    assert find_token(plain) is None


def test_a_token_is_made_and_its_plain_form_shown_once(admin_client, owner):
    form = {"name": "ci", "owner": owner.pk, "scopes": ["submit", "read"]}

    page = admin_client.post(reverse("admin:switchyard_api_token_add"), form, follow=True).content.decode()
    again = admin_client.get(reverse(LIST)).content.decode()

    shown = re.findall(r"sy_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", page)
    assert len(shown) == 1
    token = find_token(shown[0])
    assert (token.name, token.owner, token.scopes) == ("ci", owner, ["submit", "read"])
    assert shown[0] not in again


def test_a_new_token_is_in_no_cookie_and_no_cache(admin_client, owner):
    form = {"name": "<b>ci", "owner": owner.pk, "scopes": ["read"], "_continue": "1"}

    answer = admin_client.post(reverse("admin:switchyard_api_token_add"), form)

    prefix = Token.objects.get().prefix
    assert f"sy_{prefix}_" in answer.content.decode() and f"sy_{prefix}_" not in answer.cookies.output()
    assert "no-store" in answer["Cache-Control"] and b"<b>ci" not in answer.content


@pytest.mark.parametrize("scopes", [[], ["everything"]])
def test_a_token_without_known_scopes_is_not_made(admin_client, owner, scopes):
    form = {"name": "ci", "owner": owner.pk, "scopes": scopes}

    assert admin_client.post(reverse("admin:switchyard_api_token_add"), form).status_code == 200
    assert not Token.objects.exists()


def test_once_made_only_the_name_changes(admin_client, make_token):
    token, plain = make_token("read")
    forged = {"scopes": ["operate"], "owner": User.objects.create_user("eve").pk}

    for form in ({"name": "renamed by its form"}, {"name": "renamed", **forged}):
        admin_client.post(reverse("admin:switchyard_api_token_change", args=[token.pk]), form)
        assert Token.objects.get().name == form["name"]

    token.refresh_from_db()
    assert (token.name, token.scopes, token.owner.username, find_token(plain)) == ("renamed", ["read"], "ada", token)


def test_pages_show_no_secret_and_no_hash(admin_client, make_token):
    token, plain = make_token()

    for address in (reverse(LIST), reverse("admin:switchyard_api_token_change", args=[token.pk])):
        page = admin_client.get(address).content.decode()
        assert f"sy_{token.prefix}_…" in page and plain not in page and token.secret_hash not in page


def test_tokens_are_revoked(admin_client, make_token):
    token, plain = make_token()

    admin_client.post(reverse(LIST), {"action": "revoke", "_selected_action": [token.pk]})

    assert find_token(plain) is None


OPERATE = ("view_job", "cancel_job")


def staff(*permissions: str) -> User:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("add_token", "view_token", *permissions)))
    return user


def make_as(user: User, *scopes: str, owner: User | None = None) -> Token | None:
    client = client_of(user)
    form = {"name": "ci", "owner": (owner or user).pk, "scopes": scopes}
    client.post(reverse("admin:switchyard_api_token_add"), form)
    return Token.objects.order_by("-pk").first()


@pytest.mark.parametrize(
    ("permissions", "scope", "may"),
    [
        ((), "read", True),
        ((), "submit", False),
        ((), "operate", False),
        (("submit_work",), "submit", True),
        (("submit_work",), "operate", False),
        (("view_job",), "operate", False),
        (("cancel_job",), "operate", False),
        (OPERATE, "operate", True),
        (OPERATE, "submit", False),
        (("submit_work", *OPERATE), "submit", True),
        (("change_token", "delete_token"), "operate", False),
    ],
)
@pytest.mark.django_db
def test_a_user_gives_a_token_the_scopes_of_their_permissions(permissions, scope, may):
    assert (make_as(staff(*permissions), scope) is not None) is may


def test_a_user_makes_tokens_for_themselves_and_a_superuser_every_token_for_everybody(owner):
    user = staff()

    own, any_ = make_as(user, "read", owner=owner), make_as(User.objects.create_superuser("root"), *SCOPES, owner=owner)

    assert (own.owner, any_.owner, set(any_.scopes)) == (user, owner, set(SCOPES))


def post_as(user: User) -> HttpRequest:
    request = RequestFactory().post("/")
    request.user = user
    return request


@pytest.mark.django_db
def test_a_superusers_form_at_the_same_time_widens_no_other():
    page = site.get_model_admin(Token)
    narrow = page.get_form(post_as(staff()))
    page.get_form(post_as(User.objects.create_superuser("root")))({})

    assert "scopes" in narrow({"name": "ci", "scopes": ["operate"]}).errors


@pytest.mark.django_db
def test_an_uncovered_scope_is_refused_when_the_token_is_saved():
    page, request = site.get_model_admin(Token), post_as(staff())
    token = Token(name="ci", scopes=["read", "operate"])

    with pytest.raises(PermissionDenied, match="permissions do not cover"):
        page.save_model(request, token, page.get_form(request)({}), change=False)

    assert not Token.objects.exists()


@pytest.mark.django_db
def test_an_inactive_user_covers_nothing():
    user = staff("submit_work", *OPERATE)
    user.is_active = False

    assert covered_scopes(user) == ["read"]


ORDER = {"id": 1, "month": "2026-10"}


def age(by: timedelta) -> None:
    """Make every kept request older."""
    for kept in IdempotentRequest.objects.all():
        IdempotentRequest.objects.filter(pk=kept.pk).update(claimed_at=kept.claimed_at - by)


def test_the_first_answer_comes_again_byte_for_byte(post):
    first = post("/orders", ORDER, key="k1")
    second = post("/orders", ORDER, key="k1")

    assert (len(probe_urls.calls), second.status_code, second.content) == (1, first.status_code, first.content)
    assert (second["Content-Type"], second["Idempotency-Replayed"]) == (first["Content-Type"], "true")
    assert "Idempotency-Replayed" not in first


@pytest.mark.parametrize(
    ("path", "body"),
    [("/orders", ORDER | {"id": 2}), ("/orders?x=1", ORDER), ("/fail/409", ORDER), ("/orders", b'{ "id": 1}')],
)
def test_the_key_with_another_request_is_422(post, path, body):
    post("/orders", ORDER, key="k1")

    assert problem(post(path, body, key="k1"), 422)["type"] == "urn:switchyard:problem:idempotency-key-reused"
    assert len(probe_urls.calls) == 1


def test_keys_belong_to_a_token(post, make_token):
    post("/orders", ORDER, key="k1")
    other = post("/orders", ORDER, key="k1", Authorization=f"Bearer {make_token()[1]}")

    assert len(probe_urls.calls) == 2
    assert "Idempotency-Replayed" not in other


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_is_an_answer_and_comes_again(post, status):
    first = post(f"/fail/{status}", key="k1")
    second = post(f"/fail/{status}", key="k1")

    assert (len(probe_urls.calls), second.content) == (1, first.content)
    problem(second, status)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_that_is_not_final_lets_the_request_run_again_at_once(post, status):
    post(f"/fail/{status}", key="k1")
    claimed_at = IdempotentRequest.objects.get().claimed_at
    again = post(f"/fail/{status}", key="k1")

    assert len(probe_urls.calls) == 2
    assert "Idempotency-Replayed" not in again
    assert IdempotentRequest.objects.get().claimed_at == claimed_at, "the key lives no longer for it"


@pytest.mark.parametrize("status", [401, 403, 413, 415])
def test_a_refusal_before_any_work_frees_the_key(post, status):
    post(f"/fail/{status}", key="k1")

    assert not IdempotentRequest.objects.exists()


@pytest.mark.parametrize("path", ["/broken", "/unavailable/broker", "/unavailable/database", "/unavailable/queue"])
def test_after_our_own_failure_the_key_still_belongs_to_its_request(post, path):
    post(path, key="k1")

    problem(post("/orders", ORDER, key="k1"), 422)
    assert IdempotentRequest.objects.get().key == "k1"


def ids_of(post: Post, key: str | None) -> tuple[str | None, str | None]:
    """Return the ids that a run gave a job and a row; the run then fails."""
    post("/jobs", key=key)
    return probe_urls.calls[-1]["job"], probe_urls.calls[-1]["row"]


def test_every_run_under_a_claim_of_a_day_gives_the_same_ids_to_jobs_and_rows(post):
    first, second, other = ids_of(post, "k1"), ids_of(post, "k1"), ids_of(post, "k2")
    age(timedelta(hours=24, seconds=1))
    later = ids_of(post, "k1")

    assert (first, len({*first, *other, *later})) == (second, 6)
    assert [call["repeated"] for call in probe_urls.calls] == [False, True, False, False]


def test_without_a_key_every_request_is_its_own(post):
    post("/orders", ORDER)
    post("/orders", ORDER)

    assert len(probe_urls.calls) == 2
    assert not IdempotentRequest.objects.exists()
    assert ids_of(post, None) == (None, None)


def test_a_response_that_cannot_be_stored_is_sent(post, monkeypatch):
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
def test_a_503_says_what_is_known_and_what_to_do(post, path, key, outcome, advice):
    document = problem(post(path, key=key), 503)

    assert document["outcome"] == outcome
    assert advice in document["detail"]


def test_an_outcome_that_was_unknown_stays_unknown(post, monkeypatch):
    errors = [BrokerUnavailable("enqueue", "timeout"), BrokerUnavailable("enqueue", "refused", outcome="refused")]
    monkeypatch.setattr(probe_urls, "next_errors", errors)

    assert [problem(post("/jobs", key="k1"), 503)["outcome"] for _ in range(2)] == ["unknown", "unknown"]


def test_a_key_in_flight_is_409_with_retry_after(post):
    post("/orders", ORDER, key="k1")
    IdempotentRequest.objects.update(status=None)

    response = post("/orders", ORDER, key="k1")

    assert problem(response, 409)["type"] == "urn:switchyard:problem:idempotency-key-in-flight"
    assert int(response["Retry-After"]) > 0
    assert len(probe_urls.calls) == 1


def test_a_key_whose_process_died_lapses_after_a_minute_and_still_belongs_to_its_request(post):
    post("/orders", ORDER, key="k1")
    IdempotentRequest.objects.update(status=None)
    age(timedelta(seconds=61))

    other, response = post("/orders", ORDER | {"id": 2}, key="k1"), post("/orders", ORDER, key="k1")

    problem(other, 422)
    assert (response.status_code, len(probe_urls.calls)) == (201, 2)
    assert post("/orders", ORDER, key="k1").content == response.content


def test_whoever_was_taken_over_does_not_overwrite_the_answer(post):
    post("/orders", ORDER, key="k1")
    IdempotentRequest.objects.update(status=None)
    late = IdempotentRequest.objects.get()
    age(timedelta(seconds=61))
    answer = post("/orders", ORDER, key="k1")

    idempotency.settle(late, HttpResponse(b"late", status=201))

    assert post("/orders", ORDER, key="k1").content == answer.content


def test_a_key_is_free_again_after_a_day_and_purged(post):
    post("/orders", ORDER, key="k1")
    post("/orders", ORDER, key="old")
    age(timedelta(hours=24, seconds=1))

    assert (post("/orders", ORDER | {"id": 2}, key="k1").status_code, len(probe_urls.calls)) == (201, 3)
    age(timedelta(minutes=59))
    assert (idempotency.purge(), IdempotentRequest.objects.get().key) == (1, "k1")


@pytest.mark.parametrize("key", ["", " ", "a\tb", "x" * 256, "grün"])
def test_an_unusable_key_is_400(post, key):
    problem(post("/orders", ORDER, key=key), 400)
    assert probe_urls.calls == []


def test_a_key_without_a_valid_token_is_401_and_keeps_nothing(post):
    problem(post("/orders", ORDER, key="k1", Authorization="Bearer sy_wrong"), 401)

    assert not IdempotentRequest.objects.exists()


def test_signed_events_need_no_token_and_take_no_key(probe):
    for _ in range(2):
        probe.post("/api/v1/probe/signed", headers={"Idempotency-Key": "k1"})

    assert len(probe_urls.calls) == 2


def test_the_same_file_is_the_same_request_whatever_its_boundary(probe, bearer):
    def send(content: bytes, boundary: str) -> HttpResponse:
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
            f"Content-Type: text/plain\r\n\r\n{content.decode()}\r\n--{boundary}--\r\n"
        )
        kind = f"multipart/form-data; boundary={boundary}"
        headers = bearer | {"Idempotency-Key": "k1"}
        return probe.post("/api/v1/probe/files", body.encode(), content_type=kind, headers=headers)

    first, second, other = send(b"hello", "one"), send(b"hello", "two"), send(b"bye", "one")

    assert (json.loads(first.content)["content"], second.content) == ("hello", first.content)
    problem(other, 422)
    assert len(probe_urls.calls) == 1


def test_large_files_are_read_again_by_the_operation(probe, bearer):
    content = b"x" * (3 * 1024 * 1024)
    headers = bearer | {"Idempotency-Key": "k1"}

    response = probe.post("/api/v1/probe/files", {"file": SimpleUploadedFile("a", content)}, headers=headers)

    assert len(json.loads(response.content)["content"]) == len(content)
