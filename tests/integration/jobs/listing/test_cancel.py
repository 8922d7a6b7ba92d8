"""Jobs that are chosen in the list and cancelled together."""

from __future__ import annotations

from collections import Counter

import pytest
from django.contrib.messages import get_messages
from django.urls import reverse

from apps.platform.audit.models import AuditEntry
from apps.platform.jobs.listing.cancel import answer_text
from apps.platform.jobs.services import submit
from broker.interface import Facilities
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.integration.jobs.listing.test_page import LIST, staff

CANCEL = reverse("admin:switchyard_jobs_job_cancel_chosen")


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


def waiting() -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2})


def test_only_unfinished_jobs_can_be_chosen_by_who_may_cancel() -> None:
    live, ended = waiting(), job_row().job_id

    may, may_not = (staff(*rights).get(LIST).content.decode() for rights in (("view_job", "cancel_job"), ("view_job",)))

    assert f'name="job" value="{live}"' in may and f'name="job" value="{ended}"' not in may
    assert CANCEL in may and "Cancel chosen jobs…" in may
    assert 'name="job"' not in may_not and CANCEL not in may_not


def test_the_chosen_are_named_before_they_are_cancelled_each_with_its_row(facilities: Facilities) -> None:
    client, chosen, other = staff("view_job", "cancel_job"), [waiting(), waiting()], waiting()

    asked = client.get(CANCEL, {"job": [*chosen, "no id!"]}).content.decode()
    assert "Cancel 2 chosen jobs?" in asked and all(id_ in asked for id_ in chosen) and other not in asked
    assert facilities.records.states(chosen) == ["queued", "queued"]
    answer = client.post(CANCEL, {"job": chosen, "reason": "duplicates"})

    assert facilities.records.states([*chosen, other]) == ["cancelled", "cancelled", "queued"]
    assert [str(each) for each in get_messages(answer.wsgi_request)] == ["2 jobs were cancelled and will not start."]
    rows = AuditEntry.objects.order_by("id").values_list("act", "target", "reason")
    assert list(rows) == [("job.cancel", id_, "duplicates") for id_ in chosen]


def test_nothing_is_done_without_a_choice_or_the_right(facilities: Facilities) -> None:
    job = waiting()
    operator = staff("view_job", "cancel_job")

    assert "No job was chosen" in operator.get(CANCEL).content.decode()
    assert "No job was chosen" in operator.post(CANCEL).content.decode()
    assert staff("view_job").post(CANCEL, {"job": job}).status_code == 403
    assert facilities.records.states([job]) == ["queued"]


def test_the_answer_counts_what_became_of_the_jobs() -> None:
    text = answer_text(Counter(cancelled=2, asked=1, ended=1, unknown=3))

    assert text == (
        "2 jobs were cancelled and will not start; 1 job runs and stops within 10 seconds; 1 job had ended already; "
        "3 jobs are not known any longer."
    )
