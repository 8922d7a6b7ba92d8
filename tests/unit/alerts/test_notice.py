from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from switchyard.alerts.models import Alert
from switchyard.alerts.notice import Notice

ALERT = Alert(
    fingerprint="f00d", kind="dead_letter", severity="critical", title="report gave up: KeyError",
    sample="exhausted after 6 attempts", queue="slow", actor="report",
    first_at=datetime(2026, 11, 20, 2, 51, tzinfo=UTC), last_at=datetime(2026, 11, 20, 2, 54, tzinfo=UTC),
    link="https://yard.example.com/admin/",
)  # fmt: skip
FIRST = Notice("1-0", ALERT, count=1)


def test_first_message_tells_what_where_and_the_link() -> None:
    assert FIRST.headline == "[critical] report gave up: KeyError"
    assert "exhausted after 6 attempts" in FIRST.text
    assert FIRST.text.endswith(
        "Steps: http://127.0.0.1:8000/admin/operations/steps/#dead-letters\n\nhttps://yard.example.com/admin/"
    )


def test_digest_tells_how_many_are_new_and_how_many_there_are() -> None:
    digest = replace(FIRST, count=1_000, reported=1)

    assert digest.headline.endswith("(1,000 times)")
    assert "999 more, 1,000 since 2026-11-20 02:51:00 UTC." in digest.text
    assert (digest.as_json()["count"], digest.as_json()["new"]) == (1_000, 999)


def test_webhook_body_is_plain_json_values() -> None:
    body = FIRST.as_json()

    assert body["type"] == "switchyard.alert.dead_letter"
    assert body["first_at"] == "2026-11-20T02:51:00.000000+00:00"
