"""Every URL of the project × every role: the expected answer, no change by a GET or a refusal, a row for every act."""

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import dramatiq
import pytest
import redis
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from django.utils import timezone

from switchyard.alerts.models import Silence
from switchyard.api.models import SCOPES, covered_scopes
from switchyard.api.tokens import create_token
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import OPERATOR, READ_ONLY
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.queries import find
from switchyard.jobs.services import submit
from switchyard.schedules.models import StoredSchedule
from tests.factories.alerts import make_alert
from tests.factories.callers import api_user
from tests.factories.letters import keep, letter
from tests.factories.staff import client_of
from tests.integration.project.url_table import ROLES, ROUTES, Row, model_rows

pytestmark = pytest.mark.django_db
SCHEDULE, STORED = "purge_delivery_attempts", "nightly export"
EXPORT = {"dataset": "invoices", "format": "csv"}
FINGERPRINT = "f00dfacef00dface"
OPEN_TO_STAFF = {
    *("/admin/", "/admin/jsi18n/", "/admin/password_change/", "/admin/password_change/done/"),
    *("/admin/operations/keys/", "/admin/operations/theme/", "/admin/operations/steps/"),
    "/admin/operations/find/?q=nothing+has+this+name",
}


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Return every route below a resolver, as Django writes it."""
    for found in resolver.url_patterns:
        route = prefix + str(found.pattern)
        if isinstance(found, URLPattern):
            yield _short(route)
        else:
            yield from routes(found, route)


def _short(route: str) -> str:
    """Leave out the labels of all apps, which the admin lists in one route."""
    return re.sub(r"\^?\(\?P<app_label>.*\)/\$$", "<app_label>/", route)


TABLE = {**model_rows(), **ROUTES}
REQUESTS = [(route, row) for route, rows in sorted(TABLE.items()) for row in rows]


def named(value: Any) -> str:
    return f"{value.method} {value.path}" if isinstance(value, Row) else str(value)


def test_every_url_has_a_row_and_every_row_a_url():
    add = "add each to ROUTES, or its model to MODELS, in url_table.py with its answers for each role"
    assert set(routes(get_resolver())) == TABLE.keys(), add


def test_no_page_takes_a_form_of_another_site():
    pages = {row.path for rows in TABLE.values() for row in rows if row.path.startswith("/admin/")}
    views = {path: resolve(path.partition("?")[0]).func for path in pages}

    assert [path for path, view in views.items() if getattr(view, "csrf_exempt", False)] == []


def made_clients() -> dict[str, Client]:
    """Return one client a role: a session, and a token with the scopes that the user's rights cover."""
    made = {role: Client() for role in ROLES}
    for role, group in (("read-only", READ_ONLY), ("operator", OPERATOR), ("admin", "")):
        user = User.objects.create_user(role, is_staff=True, is_superuser=not group)
        if group:
            user.groups.add(Group.objects.get(name=group))
        made[role].force_login(user)
        bear(made[role], user, covered_scopes(user))
    bear(made["other token"], api_user("other"), ["submit", "read"])
    assert set(SCOPES) == {"submit", "read", "operate"}
    return made


def bear(client: Client, user: User, scopes: list[str]) -> None:
    token, plain = create_token(owner=user, scopes=scopes, name="test")
    token.last_used_at = timezone.now() + timedelta(hours=1)  # it is noted once a minute
    token.save()
    client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {plain}"


@pytest.fixture(autouse=True)
def kept_connection(monkeypatch):
    """Streams leave this test's database connection open."""

    async def leave_open() -> None: ...

    for place in ("api", "live"):
        monkeypatch.setattr(f"switchyard.jobs.{place}.free_database", leave_open)


def make_sample() -> SimpleNamespace:
    """Make one of each thing, the job of a user without any role; return what the paths name."""
    owner = User.objects.create_user("owner", is_staff=True)
    token, _ = create_token(owner=owner, scopes=["read"], name="owner's")
    actor = dramatiq.get_broker().get_actor(SCHEDULE)
    keep(letter(id="letter", actor=SCHEDULE, fingerprint=FINGERPRINT))
    now = timezone.now()
    StoredSchedule.objects.create(name=STORED, actor="export_dataset", cron="0 2 * * *", kwargs=EXPORT)
    silence = Silence.objects.create(fingerprint="other", until=now + timedelta(hours=1), reason="x", created_by="x")
    return SimpleNamespace(
        job=submit(actor, owner=token.owner_key, delay_ms=600_000, kwargs={}),
        letter=find("letter").pk,
        alert=make_alert(fingerprint=FINGERPRINT, title="mail gave up", sample="why").pk,
        silence=silence.pk,
        token=token.pk,
        user=owner.pk,
        group=Group.objects.get(name=READ_ONLY).pk,
        bulk=BulkAct.objects.create(kind="letter.requeue", filter={}, total=1, created_at=now, touched_at=now).pk,
        worker=report("up"),
        quieted=report("quieted"),
        queue="default",
        schedule=SCHEDULE,
        stored=STORED,
        fingerprint=FINGERPRINT,
        member="unknown",
    )


@pytest.fixture(scope="module")
def sent_at_once():
    """Sends that wait for no commit: the transactions around the requests are the tests' own."""
    with patch.object(dramatiq.get_broker(), "postpone", None):
        yield


@pytest.fixture(scope="module")
def filled(django_db_setup, django_db_blocker, valkey_url, sent_at_once):
    """The yard with one of each thing, in a transaction around those of the tests; ``state`` has the broker's keys."""
    with django_db_blocker.unblock(), contextlib.closing(connect(valkey_url)) as valkey, transaction.atomic():
        valkey.flushdb()
        clients, sample = made_clients(), make_sample()
        cookies = {
            role: {name: each.value for name, each in client.cookies.items()} for role, client in clients.items()
        }
        yield SimpleNamespace(sample=sample, clients=clients, cookies=cookies, state=broker_state(valkey))
        transaction.set_rollback(True)


def report(state: str) -> str:
    """Write the report of a supervisor, and return its name with its start, as the page of workers gives it."""
    written = PoolReport(
        pool="slow", host=state, pid=1, kind="threads", slots=1, busy=0, started_at=1, beat_at=now_ms(), state=state,
        children=[{"pid": 2, "ready": True, "busy": 0, "done": 0, "rss_bytes": 1, "quiet": state == "quieted"}],
    )  # fmt: skip
    found = facilities_of()
    found.pools.write(written)
    found.records.calls.command("PERSIST", Keys().pool_report(written.member))  # it lasts for all rows of the table
    return f"{written.member}@1"


def broker_state(valkey: redis.Redis) -> dict[bytes, bytes]:
    # But the headline, which a look at the overview keeps for 10 s.
    keys = [key for key in valkey.scan_iter(count=1_000) if key != Keys().headline().encode()]
    with valkey.pipeline(transaction=False) as calls:
        for key in keys:
            calls.dump(key)
        return {key: dump for key, dump in zip(keys, calls.execute(), strict=True) if dump is not None}


def restore(valkey: redis.Redis, state: dict[bytes, bytes]) -> None:
    with valkey.pipeline(transaction=False) as calls:
        calls.flushdb()
        for key, dump in state.items():
            calls.restore(key, 0, dump)
        calls.execute()


def changed_rows() -> int:
    """Return the rows that this test's transaction has changed so far."""
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        return int(connection.connection.total_changes)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize(("route", "row"), REQUESTS, ids=named)
def test_answer_of_each_role(route, row, filled, facilities, valkey):
    sample, keys = vars(filled.sample), filled.state
    restore(valkey, keys)
    path = row.path.format(**sample)
    request: dict[str, Any] = {"data": {name: text.format(**sample) for name, text in row.data.items()}}
    if path.startswith("/api/") and row.method != "GET":
        request["content_type"] = "application/json"
    answers, problems = [], []
    assert _short(resolve(path.partition("?")[0]).route) == route, f"{path} belongs to another row"
    for role in ROLES:
        with transaction.atomic():
            rows, before = changed_rows(), _newest_act()

            client = filled.clients[role]
            client.cookies = SimpleCookie(filled.cookies[role])
            answer = getattr(client, row.method.lower())(path, **request)

            answers.append(answer.status_code)
            rows, now = changed_rows() - rows, broker_state(valkey)
            acts = [(entry.act, entry.who) for entry in AuditEntry.objects.filter(pk__gt=before)]
            if row.act and role in row.done_by:
                if sorted(acts) != sorted((name, role) for name in row.act.split()):
                    problems.append(f"{role}: the audit log has {acts}, not {row.act}")
            elif row.method == "GET" or answer.status_code >= 400 or _is_login(answer):
                differ = {key for key in now.keys() | keys.keys() if now.get(key) != keys.get(key)}
                if rows or differ:
                    problems.append(f"{role}: {rows} rows and the keys {differ} changed")
            transaction.set_rollback(True)
        if now != keys:
            restore(valkey, keys)
    assert (tuple(answers), problems) == (row.answers, []), dict(zip(ROLES, answers, strict=True))


def test_staff_without_any_right_see_and_do_nothing(filled, facilities):
    clerk = client_of(User.objects.create_user("clerk", is_staff=True))

    seen = set()
    for row in (row for rows in TABLE.values() for row in rows if row.path.startswith("/admin/")):
        data = {name: text.format(**vars(filled.sample)) for name, text in row.data.items()}
        answer = getattr(clerk, row.method.lower())(row.path.format(**vars(filled.sample)), data)
        if answer.status_code == 200 or (row.method == "POST" and answer.status_code < 400):
            seen.add(row.path)

    assert seen == OPEN_TO_STAFF
    assert not AuditEntry.objects.filter(who="clerk").exists()


def test_who_may_only_look_is_offered_no_action_on_rows(db):
    request = RequestFactory().get("/")
    request.user = User.objects.create_user("viewer", is_staff=True)
    request.user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))

    offered = {model._meta.label: list(page.get_actions(request)) for model, page in admin.site._registry.items()}

    assert {label: actions for label, actions in offered.items() if actions} == {}


def _newest_act() -> int:
    newest = AuditEntry.objects.first()
    return 0 if newest is None else newest.pk


def _is_login(answer: Any) -> bool:
    return answer.status_code == 302 and "/login/" in answer.headers.get("Location", "")
