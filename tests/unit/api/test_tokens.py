"""Tokens: made once, kept as a hash, checked on every request, revoked for good."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from switchyard.api.models import Token
from switchyard.api.tokens import create_token, find_token, note_use, revoke_token
from switchyard.audit.services import Who
from tests.factories.callers import api_user
from tests.factories.commands import output_of
from tests.unit.api import probe_urls
from tests.unit.api.conftest import MakeToken, problem

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_a_token_is_found_by_its_plain_form_whose_secret_of_256_bits_is_never_stored(make_token: MakeToken) -> None:
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
def test_anything_else_is_no_token(make_token: MakeToken, change: Callable[[str], str]) -> None:
    _, plain = make_token()

    assert find_token(change(plain)) is None


def test_a_revoked_token_and_one_of_an_inactive_user_are_none(make_token: MakeToken, owner: User) -> None:
    (revoked, plain), (_, other) = make_token(), make_token()

    revoke_token(revoked.prefix, who=Who("ada", "command"))
    found = find_token(plain), find_token(other)
    User.objects.filter(pk=owner.pk).update(is_active=False)

    assert found[0] is None and found[1] is not None
    assert find_token(other) is None


def test_unknown_scopes_are_refused(owner: User) -> None:
    with pytest.raises(ValidationError, match="everything not known"):
        create_token(owner=owner, scopes=["read", "everything"], name="x")


def test_use_is_noted_once_a_minute(make_token: MakeToken, django_assert_num_queries: DjangoAssertNumQueries) -> None:
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


def test_a_request_without_a_token_is_401_and_told_how(probe: Client) -> None:
    response = probe.get("/api/v1/probe/mine")

    assert "no token" in problem(response, 401)["detail"]
    assert response["WWW-Authenticate"] == 'Bearer realm="switchyard"'


@pytest.mark.parametrize("header", ["Bearer sy_x", "Bearer ", "Bearer", "Basic YTpi", "sy_x", "Bearer \xff"])
def test_a_request_with_a_wrong_token_is_401(probe: Client, db: None, header: str) -> None:
    response = probe.get("/api/v1/probe/mine", headers={"Authorization": header})

    problem(response, 401)
    assert 'error="invalid_token"' in response["WWW-Authenticate"]


def test_the_scheme_is_not_case_sensitive(probe: Client, make_token: MakeToken) -> None:
    _, plain = make_token("read")

    assert probe.get("/api/v1/probe/mine", headers={"Authorization": f"bearer {plain}"}).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "path", "method", "status"),
    [
        *((["read"], "mine", "get", 200), (["operate"], "mine", "get", 200), (["submit"], "mine", "get", 403)),
        *((["submit", "read"], "all", "get", 403), (["operate"], "all", "get", 200)),
        (["read", "operate"], "orders", "post", 403),
    ],
)
def test_a_token_may_what_its_scopes_say(
    probe: Client, make_token: MakeToken, scopes: list[str], path: str, method: str, status: int
) -> None:
    _, plain = make_token(*scopes)

    response = getattr(probe, method)(f"/api/v1/probe/{path}", headers={"Authorization": f"Bearer {plain}"})

    assert response.status_code == status
    if status == 403:
        assert "this request needs" in problem(response, 403)["detail"]


def test_a_token_has_an_allowance_on_each_route(
    probe: Client, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_rights_of_a_token_end_with_those_of_its_owner(probe: Client, make_token: MakeToken, way: str) -> None:
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

    assert (before[0] < 300, before[1]) == (True, 200)
    assert (during, listed) == ((403, 200), "submit (not its owner's), read")
    assert statuses() == before


def test_a_command_prints_a_token_that_works(owner: User) -> None:
    token = find_token(output_of("tokens", "create", "--user=ada", "--scopes=submit, read").strip())

    assert token.scopes == ["submit", "read"]


def test_the_command_refuses_scopes_that_are_unknown_or_not_the_owners(owner: User) -> None:
    with pytest.raises(CommandError, match="fly not known; choose from submit, read, operate") as caught:
        call_command("switchyard", "tokens", "create", "--user=ada", "--scopes=read,fly")
    api_user("eve", "view_job")
    with pytest.raises(CommandError, match=r"eve may not operate; give the user switchyard_jobs\.view_job, "):
        call_command("switchyard", "tokens", "create", "--user=eve", "--scopes=read,operate")

    assert caught.value.returncode == 2


def test_tokens_are_a_table_without_secrets_that_drives_no_terminal(make_token: MakeToken) -> None:
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
def test_tokens_revokes_by_prefix_or_whole(make_token: MakeToken, shorten: Callable[[str], str]) -> None:
    _, plain = make_token()

    output_of("tokens", "revoke", shorten(plain))

    assert find_token(plain) is None
