"""No page shows an argument to a user who may see and do everything but view arguments."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from switchyard.audit.services import Who, act
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.queries import find
from switchyard.jobs import pauses
from switchyard.jobs.services import submit
from switchyard.schedules.models import StoredSchedule
from tests.factories.letters import keep, letter
from tests.factories.staff import client_of
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.integration.project.url_table import ROUTES, model_rows

pytestmark = pytest.mark.django_db
SECRET = "Tr0ub4dor"
JOBS = "/admin/switchyard_jobs/job/"
OTHERS = [
    *(f"/admin/operations/{page}" for page in ("audit/?export=csv", "audit/?export=json", "actors/probe_fail/")),
    *(f"/admin/operations/{page}" for page in ("", "live/", "queues/default/", "queues/default/live/")),
    f"{JOBS}?state=scheduled",
    f"{JOBS}?state=queued",
    f"{JOBS}?state=dead",
    f"{JOBS}?argument=reason={SECRET}",
]


@pytest.fixture
def eve(db: None) -> Client:
    user = User.objects.create_user("eve", is_staff=True)
    rights = Permission.objects.filter(content_type__app_label__startswith="switchyard_")
    user.user_permissions.set(rights.exclude(codename="view_arguments"))
    return client_of(user)


@pytest.fixture
def jobs(facilities: Facilities) -> list[str]:
    """A waiting, a scheduled, a dead and an ended job, each with the argument."""
    sent = submit(probe_actors.fail, kwargs={"reason": SECRET})
    later = submit(probe_actors.fail, delay_ms=600_000, kwargs={"reason": SECRET})
    made = letter(id="letter", actor="probe_fail")
    made.message["kwargs"] = {"reason": SECRET}
    keep(made)
    return [sent, later, made.id, job_row(state="dead", arguments=f'{{"reason": "{SECRET}"}}').job_id]


def test_no_address_shows_an_argument_without_the_right(jobs: list[str], eve: Client) -> None:
    broker, now = dramatiq.get_broker(), timezone.now()
    entry = Quarantine.entry("default", f'{{"args":["{SECRET}"]}}'.encode(), "no actor", message_id="odd")
    broker.client.lpush(broker.keys.queue("default").quarantine, entry)
    kwargs = {"dataset": SECRET, "format": "csv"}
    StoredSchedule.objects.create(name="nightly", actor="export_dataset", cron="0 2 * * *", kwargs=kwargs)
    chosen = {"argument": f"reason={SECRET}"}
    bulk = BulkAct.objects.create(kind="job.cancel", filter=chosen, total=1, created_at=now, touched_at=now)
    who = Who("ada", "page")
    pauses.pause(pauses.chosen(probe_actors.fail, f"reason={SECRET} of bob"), who=who)
    pauses.resume(pauses.chosen(probe_actors.fail, f"reason={SECRET} of bob"), who=who)
    pauses.pause(pauses.chosen(probe_actors.fail, f"reason={SECRET}"), who=who)
    for name, of_old, detail in (
        ("job.edit", "", {"changes": {"reason": {"from": SECRET, "to": "x"}}}),
        ("actor.pause", f'probe_fail with reason="{SECRET}"', {}),
        ("circuit.open", f'probe_fail with reason="{SECRET}"', {}),
        ("bulk.start", "", {"filter": chosen}),
    ):
        with act(name, who=who, target=of_old or jobs[0], detail=detail):
            pass
    names: dict[str, Any] = dict.fromkeys(
        ("alert", "silence", "token", "user", "group", "worker", "quieted", "member"), "1"
    )
    names |= {
        "queue": "default", "schedule": "purge_delivery_attempts", "stored": "nightly",
        "fingerprint": "f00dfacef00dface",
    }  # fmt: skip
    rows = [row for found in (*model_rows().values(), *ROUTES.values()) for row in found if row.method == "GET"]
    names |= {"letter": find("letter").pk, "bulk": bulk.pk}
    paths = {row.path.format(**names, job=job) for row in rows for job in jobs if "events" not in row.path}

    answers = {
        path: eve.get(path) for path in [*sorted(paths), *(f"{JOBS}{job}/?format=json" for job in jobs), *OTHERS]
    }

    shown = {path: answer for path, answer in answers.items() if answer.status_code == 200 and not answer.streaming}
    assert [path for path, answer in shown.items() if SECRET in answer.content.decode()] == []
    assert len(shown) > 60
