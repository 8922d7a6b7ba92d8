"""``manage.py switchyard actors``: list, show and send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from tests.factories.commands import json_of, output_of

pytestmark = pytest.mark.django_db


def weigh(wagon: int, tare_kg: float = 0.5) -> None:
    """Weigh a wagon."""


@pytest.fixture
def actor(facilities: Facilities) -> Iterator[Any]:
    """An actor of this project's own broker."""
    broker = dramatiq.get_broker()
    yield dramatiq.actor(weigh, broker=broker, queue_name="billing", max_retries=3)
    del broker.actors["weigh"]


def test_the_list_names_every_actor(actor: Any) -> None:
    rows = {row["name"]: row for row in json_of("actors", "list")}
    table = output_of("actors", "list")

    [option] = [each for each in rows["weigh"]["options"] if each["name"] == "max_retries"]
    assert rows["weigh"]["queue"] == "billing" and (option["value"], option["text"]) == (3, "3")
    assert any(line.split()[:4] == ["weigh", "billing", "billing", "max_retries=3"] for line in table.splitlines())


def test_one_actor_is_shown(actor: Any) -> None:
    shown = json_of("actors", "show", "weigh")
    lines = output_of("actors", "show", "weigh")

    assert shown["signature"] == "weigh(wagon: int, tare_kg: float = 0.5) -> None"
    assert [each["required"] for each in shown["parameters"]] == [True, False]
    assert shown["facts"]["last day"]["outcomes"] == {} and shown["history"]["failures"] == []
    assert lines.startswith(shown["signature"]) and "Weigh a wagon." in lines and "number of retries" in lines


def test_one_is_sent_with_its_tags_and_audited(actor: Any, facilities: Facilities) -> None:
    job_id = json_of("actors", "send", "weigh", "--args", "[7]", "--tag", "heavy")["id"]
    late = output_of("actors", "send", "weigh", "--kwargs", '{"wagon": 8}', "--delay", "60000").strip()

    message = facilities.transport.find_message("billing", job_id)
    assert message is not None and (message.args, message.options["tags"]) == ((7,), ["heavy"])
    assert facilities.transport.stats("billing").live.scheduled == 1
    entry = AuditEntry.objects.first()
    assert entry is not None and (entry.act, entry.via, entry.detail["job"]) == ("job.send", "command", late)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("weihg",), r"did you mean weigh\?"),
        (("weigh",), "missing a required argument: 'wagon'"),
        (("weigh", "--args", '["7"]'), "wagon: expects int; this is a text"),
        (("weigh", "--args", "7"), "--args: write a JSON list"),
        (("weigh", "--args", "[7"), "--args: no JSON from character 3 on"),
        (("weigh", "--kwargs", "[]"), "--kwargs: write a JSON object"),
        (("weigh", "--args", "[7]", "--delay", "-1"), "write milliseconds"),
        (("weigh", "--args", "[7]", "--tag", "x" * 65), "write at most 10 texts"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    actor: Any, facilities: Facilities, words: tuple[str, ...], why: str
) -> None:
    with pytest.raises(CommandError, match=why):
        call_command("switchyard", "actors", "send", *words)

    assert facilities.transport.stats("billing").live.waiting == 0
