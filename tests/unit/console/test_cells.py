"""Texts of the console: cells that are no formula, addresses, spans, and commands without their database or broker."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import CommandError
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.test.utils import override_script_prefix
from hypothesis import given
from hypothesis import strategies as st

from switchyard.api.models import Token
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import target_url
from switchyard.broker.errors import ActRefused, BrokerRefused, BrokerUnavailable
from switchyard.conf import read, switchyard_settings
from switchyard.console import export, formatting
from switchyard.console.commands import as_command_error, table
from switchyard.console.export import MAX_CHARACTERS, TRIGGERS, export_of, safe_text
from switchyard.console.formatting import duration, parse_until, promise, rough_duration, times
from switchyard.console.links import absolute, path_of
from switchyard.console.lists import ASCENDING, SortColumn, heads_of
from switchyard.console.room_view import ReadOnly

FORMULAS = (
    "=1+1", "+1", "-1", "@SUM(A1)", "\t1", "\r1", "\n1", " \t1", "＝1", "＋1", "－1", "＠x", "  =1", "\u00a0=1",
    "\ufeff=1", "\u200b@x", "\x00=1", "=cmd|' /C calc'!A0", " \u2007\u3000＝1", " " * 5000 + "=1",
)  # fmt: skip
TEXTS = ("", "Ada", "a=b", "1-2", "'=1", "O'Neill", "Łódź", "  Ada", "日本", "100 %", "a;b", "a; b\nc")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        *((formula, f"'{formula}") for formula in FORMULAS),
        *((text, text) for text in TEXTS),
        # A semicolon parts cells as well.
        ("a;=cmd|' /C calc'!A0;b", "a;'=cmd|' /C calc'!A0;b"),
        ("a; \u200b=1", "a;' \u200b=1"),
        ("a\n=1;\r\n@x", "a\n'=1;\r\n'@x"),
        ("\t=1", "'\t'=1"),
        ("=1;=1", "'=1;'=1"),
        (";+1", ";'+1"),
        ('a; "" =1', 'a;\' "" =1'),
        ("a;\"=cmd|' /C calc'!A0;b", "a;'\"=cmd|' /C calc'!A0;b"),
    ],
)
def test_a_formula_gets_a_quote_in_front_and_other_text_stays_as_it_is(text, safe):
    assert safe_text(text) == safe


@given(st.text(alphabet=";=+a\"' "))
def test_a_reader_that_parts_at_semicolons_finds_no_formula(text):
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_NONNUMERIC).writerow(["INV-1", safe_text(text), 1])

    cells = next(csv.reader([line.getvalue()], delimiter=";"))
    assert [cell for cell in cells if cell.strip()[:1] in TRIGGERS and cell.strip()] == []


@given(st.text() | st.text(alphabet=";\t\r\n =+a'"))
def test_no_cell_starts_with_a_trigger_and_only_quotes_are_added(text):
    safe = safe_text(text)

    assert safe[:1] not in TRIGGERS or safe == ""
    assert [cell for cell in re.split(r"[;\t\r\n]", safe) if cell.strip()[:1] in TRIGGERS and cell.strip()] == []
    assert safe.replace("'", "") == text.replace("'", "")


def test_text_is_cut_at_what_a_cell_can_hold():
    cut = safe_text("=" + "x" * 40_000)

    assert len(cut) == MAX_CHARACTERS
    assert cut.startswith("'=x")
    assert cut.endswith("x…")


ROWS: list[dict[str, Any]] = [
    {"id": 1, "tags": ["a", "b"], "error": None},
    {"id": -2, "tags": [], "error": "=1+1", "more": True},
]


def exported(given: str, rows: Callable[[], Iterable[dict[str, Any]]] = lambda: ROWS) -> HttpResponse | None:
    return export_of(RequestFactory().get(f"/jobs/?actor=x&export={given}"), "jobs", rows)


def test_csv_has_every_column_and_no_formula():
    answer = exported("csv")

    assert answer is not None and answer["Content-Disposition"].startswith('attachment; filename="jobs-20')
    first, *rows = csv.reader(io.StringIO(answer.content.decode()))
    assert first == ["id", "tags", "error", "more"]
    assert rows == [["1", '["a", "b"]', "", ""], ["-2", "[]", "'=1+1", "true"]]


@pytest.mark.parametrize("text", ["x;=1+1", " =1+1", "\uff1d1+1", "\n=1+1", "\u200b@x"])
def test_no_cell_is_a_formula_where_a_comma_is_the_decimal_sign(text):
    answer = exported("csv", lambda: [{"error": text}])

    cells = [cell for row in csv.reader(io.StringIO(answer.content.decode()), delimiter=";") for cell in row]
    assert [cell for cell in cells if cell.strip("\u200b ").startswith(("=", "@", "\uff1d"))] == []


def test_json_has_the_rows_as_they_are_and_every_other_address_shows_the_page():
    assert json.loads(exported("json").content) == {"jobs": ROWS, "cut": False}
    assert [exported(given) for given in ("", "xml", "CSV")] == [None] * 3


def test_a_long_list_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(export, "MOST", 1)
    answer = exported("json")

    assert answer is not None and "jobs-first-1-20" in answer["Content-Disposition"]
    assert json.loads(answer.content) == {"jobs": ROWS[:1], "cut": True}


def test_a_list_that_cannot_be_read_whole_is_no_file():
    def rows() -> Iterable[dict[str, Any]]:
        yield ROWS[0]
        raise ActRefused("export", "the broker does not answer")

    answer = exported("csv", rows)

    assert answer is not None and answer.status_code == 503 and "the broker does not answer" in answer.content.decode()


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("https://yard.example/admin/alerts/?q=1", "/admin/alerts/?q=1"),
        ("/admin/alerts/", "/admin/alerts/"),
        ("", ""),
        ("javascript:alert(1)", ""),
        ("data:text/html,<script>", ""),
        ("//evil.example/x.js", "/x.js"),
        ("https://evil.example//other.example/", "/other.example/"),
        ("/\\other.example/", "/other.example/"),
        ("https://[", ""),
    ],
)
def test_path_of_an_address_never_leads_elsewhere(address, path):
    assert path_of(address) == path


@pytest.mark.parametrize(
    ("public", "prefix", "path"),
    [
        ("https://h", "/", "/api/v1/jobs"),
        ("https://h/yard", "/yard/", "/yard/api/v1/jobs"),  # in a request
        ("https://h/yard", "/", "/api/v1/jobs"),  # in a worker, or a thread, that knows no prefix
        ("https://h/yard", "/", "/yard/api/v1/jobs"),  # the sub-path is in the project's own addresses
    ],
)
def test_an_absolute_address_has_the_sub_path_once(settings, public, prefix, path):
    settings.SWITCHYARD = replace(switchyard_settings(), public_url=public)

    with override_script_prefix(prefix):
        assert absolute(path) == f"{public}/api/v1/jobs"


COLUMNS = (SortColumn("name", "Name", ("", "-name"), own=ASCENDING), SortColumn("size", "Size", ("-size", "size")))


def clicks(name: str, count: int) -> list[tuple[str, str]]:
    """Follow a heading's link so often; return each order with the direction that it shows."""
    sort, seen = "", []
    for _ in range(count):
        sort = heads_of(COLUMNS, sort)[name].link.partition("sort=")[2]
        seen.append((sort, heads_of(COLUMNS, sort)[name].direction))
    return seen


def test_clicks_go_through_a_columns_orders_and_back():
    assert clicks("size", 3) == [("-size", "descending"), ("size", "ascending"), ("", "")]
    assert clicks("name", 2) == [("-name", "descending"), ("", "ascending")]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (11, "11 ms"),
        (3_800, "3.8 s"),
        (9_949, "9.9 s"),
        (9_960, "10 s"),
        (41_000, "41 s"),
        (59_600, "1 min 00 s"),
        (62_000, "1 min 02 s"),
        (7_500_000, "2 h 05 min"),
        (86_400_000, "1 day"),
        (300_000_000, "3 days"),
    ],
)
def test_time_spans_read_like_speech(ms, text):
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (80, "start in 80 ms"),
        (1_000, "start in 1 s"),
        (1_500, "start in 1.5 s"),
        (12_345, "start in 12.345 s"),
        (300_000, "start in 5 min"),
        (90_000, "start in 90 s"),
        (7_200_000, "start in 2 h"),
        (None, "no promise"),
    ],
)
def test_promises_keep_their_unit(ms, text):
    assert promise(ms) == text


def test_sizes_ratios_and_spans_of_retries_that_are_never_printed_longer_than_they_are():
    assert (formatting.size(118_000_000), formatting.size(1_270_000_000)) == ("118 MB", "1.27 GB")
    assert (times(3.44), times(41.2), times(1_234)) == ("3.4 ×", "41 ×", "1,234 ×")
    assert formatting.retries_text(12, (6_176_000, 12_352_000)) == "12 retries over 1 h 42 min to 3 h 26 min"
    assert formatting.retries_text(3, (90_500, 90_500)) == "3 retries over 1 min 30 s"


def test_two_times_name_their_day_once():
    first = datetime(2026, 11, 2, 3, 11, 47, tzinfo=UTC)

    assert formatting.between(first, first.replace(second=59)) == "2 Nov 2026 03:11 UTC"
    assert formatting.between(first, first.replace(hour=14)) == "2 Nov 2026 03:11 to 14:11 UTC"
    assert formatting.between(first, first.replace(day=12)) == "2 Nov 2026 03:11 to 12 Nov 2026 03:11 UTC"


@pytest.mark.parametrize(
    ("ms", "down", "up"),
    [
        (80.5, "80 ms", "81 ms"),
        (30_999.5, "30 s", "31 s"),
        (59_999, "59 s", "1 min"),
        (6_176_000, "1 h 42 min", "1 h 43 min"),
        (7_200_000, "2 h", "2 h"),
        (35_999_999, "9 h 59 min", "10 h"),
        (86_399_999, "23 h", "1 day"),
        (131_000_000, "1 day 12 h", "1 day 13 h"),
        (900_000_000, "10 days", "11 days"),
    ],
)
def test_a_span_is_rounded_to_the_cautious_side(ms, down, up):
    assert (rough_duration(ms, up=False), rough_duration(ms, up=True)) == (down, up)


NOW = datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", "2026-11-21T13:00:30+00:00"),
        ("30m", "2026-11-21T13:30:00+00:00"),
        ("30 min", "2026-11-21T13:30:00+00:00"),
        ("2h", "2026-11-21T15:00:00+00:00"),
        ("3d", "2026-11-24T13:00:00+00:00"),
        ("14:00", "2026-11-21T14:00:00+00:00"),
        ("13:00", "2026-11-22T13:00:00+00:00"),
        ("2026-11-21T14:00", "2026-11-21T14:00:00+00:00"),
        ("2026-11-21T16:00+02:00", "2026-11-21T16:00:00+02:00"),
    ],
)
def test_spans_times_of_day_and_iso_times_are_read(text, expected):
    assert parse_until(text, now=NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["", "soon", "0s", "13", "24:00", "366d", "9999999d", "2026-11-21T12:59"])
def test_other_texts_are_refused_with_what_to_write(text):
    with pytest.raises(ActRefused, match="write a span"):
        parse_until(text, now=NOW)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OperationalError("no such table: api_token"), "manage.py migrate"),
        (BrokerRefused("an enqueue", "NOPERM"), "its user may run the command"),
        (BrokerUnavailable("an enqueue", "refused"), "check SWITCHYARD_BROKER_URL"),
    ],
    ids=["database", "refused", "broker"],
)
def test_what_is_away_is_said_with_its_remedy(error, remedy):
    with pytest.raises(CommandError) as caught, as_command_error("tokens"):
        raise error

    assert str(caught.value).startswith("tokens: ")
    assert str(caught.value).count(remedy) == 1


def test_the_setting_that_named_the_broker_is_said_and_other_errors_pass():
    own = read({"BROKER_URL": "redis://v:6390/0"}, {}, debug=True)
    with override_settings(SWITCHYARD=own), pytest.raises(CommandError) as caught, as_command_error("tokens"):
        raise BrokerUnavailable("an enqueue", "Timeout reading from v:6390")

    assert 'check SWITCHYARD["BROKER_URL"] and that the server is up' in str(caught.value)
    with pytest.raises(ZeroDivisionError), as_command_error("tokens"):
        raise ZeroDivisionError


def test_a_table_goes_on_below_where_a_terminal_is_narrow(monkeypatch):
    rows = [("running", "send_mail", "0c3f9b1e", "a\x1b"), ("dead", "add", "5d2a11", "")]
    assert table(("state", "actor", "job", "detail"), rows).splitlines()[1] == "running  send_mail  0c3f9b1e  a\\x1b"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")

    assert table(("state", "actor", "job", "detail"), rows).splitlines()[-2:] == ["dead     add", "    5d2a11    -"]


class Kept(ReadOnly, admin.ModelAdmin):
    pass


class Deletable(ReadOnly, admin.ModelAdmin):
    deletable = True


@pytest.mark.django_db
def test_rows_are_viewed_by_all_and_deletable_ones_deleted_by_those_with_the_permission():
    request = HttpRequest()
    request.user = User.objects.create_superuser("root")
    page = Deletable(Token, admin.site)

    rights = Kept(Token, admin.site).get_model_perms(request)

    assert rights == {"add": False, "change": False, "delete": False, "view": True}
    assert page.has_delete_permission(request)
    request.user = User.objects.create_user("ada", is_staff=True)
    assert not page.has_delete_permission(request)


@pytest.mark.parametrize(
    ("act", "target", "detail", "address"),
    [
        ("queue.pause", "default", {}, "/admin/operations/queues/default/"),
        ("job.cancel", "0f8f", {}, "/admin/switchyard_jobs/job/0f8f/"),
        ("letter.edit", "0f8f", {}, "/admin/switchyard_jobs/job/0f8f/"),
        (
            "letter.requeue",
            "beef",
            {"group": "beef"},
            "/admin/switchyard_dead_letters/deadletter/?fingerprint=beef&state=all",
        ),
        ("letter.discard", "bulk act 7", {}, "/admin/operations/bulk/7/"),
        ("bulk.stop", "bulk act 7", {}, "/admin/operations/bulk/7/"),
        ("settings.change", "x", {}, ""),
    ],
)
def test_what_an_act_names_is_a_link(act, target, detail, address):
    assert target_url(AuditEntry(act=act, target=target, detail=detail)) == address
