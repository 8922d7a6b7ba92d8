"""The passport of a job: origin, attempts, arguments, children, and the acts that it offers."""

import json
import re
import uuid

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from apps.mail.models import SentMail, Template
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.history.models import AttemptRow
from switchyard.jobs.passport.timeline import acts_on, timeline_of
from switchyard.jobs.presentation import passport_of
from switchyard.jobs.queries import find_job, find_untracked, running_jobs
from switchyard.jobs.services import submit
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

READER = ("view_job", "view_arguments")
OPERATOR = (*READER, "cancel_job", "run_job")
JOB = str(uuid.UUID(int=7))


def page_of(job_id: str, *permissions: str) -> str:
    response = staff(*permissions).get(reverse("switchyard-job", args=[job_id]))
    assert response.status_code == 200
    return str(response.content, "utf-8")


@pytest.fixture
def retried(transactional_db):
    """A job that failed, was retried after 4 s and succeeded, with a child."""
    now = now_ms()
    row = job_row(
        attempts=2, enqueued_at=now - 10_000, started_at=now - 3_000, finished_at=now - 1_000, failed_at=now - 7_000,
        arguments=json.dumps({"a": 1, "b": 2}), request_id="7c1f-09", user="mia", tags=["monthly"],
        release="2026.11.3", worker="default.web-1.4711.0a1b2c3d.2.7",
    )  # fmt: skip
    AttemptRow.objects.create(
        job_id=row.job_id, generation=0, attempt=1, state="retrying", lane="default", started_at=now - 9_000,
        finished_at=now - 7_000, error_type="Timeout", error_message="storage <b>", logs="12:00 put failed",
    )  # fmt: skip
    job_row(parent=row.job_id, actor="probe_write")
    return row


def test_a_passport_tells_origin_and_end_of_a_job_and_arguments_only_with_the_right(retried):
    page = page_of(retried.job_id, *READER)

    for text in ("mia", "7c1f-09", "monthly", "2026.11.3", "default on web-1 (pid 4711), child 2", "probe_write"):
        assert text in page
    assert "Timeout" in page and "storage &lt;b&gt;" in page and "12:00 put failed" in page
    assert "<dt>a</dt>" in page
    assert "<dt>a</dt>" not in page_of(retried.job_id, "view_job")
    job_id = submit(probe_actors.keep_secret, kwargs={"to": "mia@example.org", "pages": 3})

    page = page_of(job_id, *READER)

    assert "mia@example.org" not in page
    assert "[redacted]" in page and "<dt>pages</dt>" in page


def again(client: Client, first: str, **fields: str) -> tuple[int, str]:
    """Post the form; return status and text of the answer."""
    response = client.post(reverse("switchyard-job-again", args=[first]), fields)
    return response.status_code, str(response.content, "utf-8") or response["Location"]


def test_a_job_runs_again_with_its_first_arguments_and_leaves_an_audit_row(retried):
    new_id = str(uuid.uuid4())
    client = staff(*OPERATOR)

    answers = [again(client, retried.job_id, arguments='{"a": 1, "b": 2}', job_id=new_id, reason="lost") for _ in "12"]

    assert [status for status, _ in answers] == [302, 302]
    assert answers[0][1].endswith(f"{new_id}/")
    message = find_untracked(new_id)
    assert (message.kwargs, message.options["tags"]) == ({"a": 1, "b": 2}, ["monthly"])
    entry = AuditEntry.objects.filter(act="job.run_again").latest("id")
    assert (entry.target, entry.reason, entry.detail["job"], entry.count) == (retried.job_id, "lost", new_id, 1)


def test_hidden_arguments_are_sent_as_they_were_unless_they_are_edited(transactional_db):
    first = submit(probe_actors.keep_secret, owner="user:1", kwargs={"to": "mia@example.org", "pages": 3})
    same, edited = str(uuid.uuid4()), str(uuid.uuid4())
    client = staff(*OPERATOR)

    again(client, first, arguments='{"to": "[redacted]", "pages": 4}', job_id=same)
    again(client, first, arguments='{"to": "bo@example.org", "pages": 3}', job_id=edited)

    sent = {job_id: find_untracked(job_id) for job_id in (same, edited)}
    assert sent[same].kwargs == {"to": "mia@example.org", "pages": 4}  # type: ignore[union-attr]
    assert sent[edited].kwargs == {"to": "bo@example.org", "pages": 3}  # type: ignore[union-attr]
    assert sent[same].options["owner"] == "user:1"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("[1]", "as an object"),
        ("{", "no JSON"),
        ('{"a": 1}', "missing a required argument"),
        ('{"a": 1, "b": "two"}', "expects int"),
        ('{"a": 1, "b": "[redacted]"}', "its first value is not kept"),
    ],
)
def test_arguments_that_cannot_be_sent_are_refused(retried, arguments, wrong):
    new_id = str(uuid.uuid4())

    status, text = again(staff(*OPERATOR), retried.job_id, arguments=arguments, job_id=new_id)

    assert status == 422
    assert wrong in text
    assert find_job(new_id) is None


def test_running_again_needs_the_right_and_editing_that_to_view_arguments(retried):
    new_id = str(uuid.uuid4())

    assert again(staff(*READER), retried.job_id, arguments="{}", job_id=new_id)[0] == 403
    assert again(staff("view_job", "run_job"), retried.job_id, arguments='{"a": 9}', job_id=new_id)[0] == 302
    assert find_untracked(new_id).kwargs == {"a": 1, "b": 2}


def test_a_large_job_is_not_run_again_without_its_arguments(transactional_db, run_worker):
    job_id = submit(probe_actors.write, kwargs={"text": "no" * 3_000})
    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) and job.ended)
    new_id = str(uuid.uuid4())

    status, text = again(staff("view_job", "run_job"), job_id, job_id=new_id)

    assert status == 422
    assert "write them all anew" in text
    assert find_job(new_id) is None


def test_the_passport_as_json_hides_arguments_from_who_may_not_view_them(retried):
    address = reverse("switchyard-job", args=[retried.job_id])

    reader, viewer = (staff(*rights).get(address, {"format": "json"}).json() for rights in (READER, ("view_job",)))

    assert reader["arguments"] == {"a": 1, "b": 2} and viewer["arguments"] is None
    assert (reader["id"], reader["state"], reader["origin"]["user"]) == (retried.job_id, "succeeded", "mia")
    assert [each["state"] for each in reader["runs"]][-1] == "succeeded"
    assert reader["enqueued_at"].endswith("Z")
    assert f"{address}?format=json" in page_of(retried.job_id, *READER)


def run_now_of(client: Client, job_id: str) -> tuple[int, list[str]]:
    """Press "Run now"; return the status and the messages."""
    response = client.post(reverse("switchyard-job-run-now", args=[job_id]))
    return response.status_code, [str(each) for each in get_messages(response.wsgi_request)]


def test_a_scheduled_job_is_run_now_from_its_passport_with_one_row(transactional_db):
    job_id = submit(probe_actors.add, kwargs={"a": 1, "b": 2}, delay_ms=3_600_000)
    address = reverse("switchyard-job-run-now", args=[job_id])

    assert address in page_of(job_id, *OPERATOR) and address not in page_of(job_id, *READER)
    assert staff(*READER).post(address).status_code == 403
    answers = [run_now_of(staff(*OPERATOR), job_id) for _ in "12"]

    assert answers == [(302, ["The job starts as soon as a slot is free."])] * 2
    assert address not in page_of(job_id, *OPERATOR)
    rows = AuditEntry.objects.order_by("id").values_list("act", "target", "count", "outcome")
    assert list(rows) == [("job.run_now", job_id, 1, "done")] * 2


def test_what_happened_is_told_in_the_order_of_time(retried):
    with act("job.run_now", who=Who("a.lind", "page"), target=retried.job_id, reason="the partner is back") as entry:
        entry.count = 1
    AuditEntry.objects.update(at=datetime_of((retried.started_at or 0) - 500))
    job = passport_of(retried.job_id)

    events = timeline_of(job, acts_on(job.job))

    assert [(event.mark, event.what + event.note) for event in events] == [
        ("open", "Enqueued"),
        ("open", "Attempt 1 started after 1.0 s"),
        ("bad", "Failed after 2.0 s"),
        ("act", "Run a scheduled job now by a.lind"),
        ("open", "Attempt 2 started after 4.0 s"),
        ("ok", "Succeeded after 2.0 s"),
    ]
    assert [bool(event.day) for event in events[1:]].count(True) <= 1  # at midnight
    page = page_of(retried.job_id, *READER, "view_auditentry")
    assert "the partner is back" in page and "Retried." in page
    assert "a.lind" not in page_of(retried.job_id, *READER)


def page_of_mail(client: Client, *, job_id: str = JOB, to: str = "grace@example.com") -> str:
    row = SentMail.objects.create(key=f"{job_id}:welcome", job_id=job_id, template=Template.WELCOME, to=to)
    answer = client.get(reverse("admin:mail_sentmail_change", args=[row.pk]))
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.django_db
@pytest.mark.usefixtures("facilities")
def test_the_job_of_a_row_is_linked_and_an_address_of_an_attacker_is_no_markup(admin_client):
    assert f'href="{reverse("switchyard-job", args=[JOB])}"' in page_of_mail(admin_client)
    page = page_of_mail(admin_client, job_id="<b>j</b>", to="<b>x</b>@x.example")
    assert "<b>" not in page and "&lt;b&gt;x&lt;/b&gt;@x.example" in page


@pytest.fixture
def reader(transactional_db):
    """A logged-in staff user who may view jobs."""
    return staff("view_job", name="reader")


def family_of(reader: Client, job_id: str) -> str:
    """Return the words of a job's part about its parent and children."""
    page = reader.get(reverse("switchyard-job-live", args=[job_id])).content.decode()
    part = page[page.index('aria-labelledby="family"') :]
    return " ".join(re.sub(r"<[^>]+>", " ", part[part.index(">") + 1 : part.index("</section>")]).split())


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_running_child_is_shown_once_with_ended_ones(reader, run_worker, failed_before):
    parent = job_row(actor="probe_write").job_id
    job_row(parent=parent, actor="probe_fail", state="dead")
    running = probe_actors.steps.send_with_options(kwargs={"total": 3}, parent=parent).message_id
    stranger = probe_actors.steps.send(3).message_id
    if failed_before:
        job_row(job_id=running, parent=parent, actor="probe_steps", state="retrying")

    with run_worker("default"):
        wait_for(lambda: running_jobs(parent=parent))
        found = family_of(reader, parent)
        probe_actors.go_on.set()

    assert re.fullmatch(
        rf"Parent and children running probe_steps {running[:8]} for [\d.]+ m?s dead probe_fail \w{{8}} 2.0 s "
        r"Children appear here when they start\. All its children, those that wait too",
        found,
    )
    assert stranger[:8] not in found


def test_a_job_is_cancelled_from_its_page(transactional_db):
    job_id = submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})
    client, cancel = staff("view_job", "cancel_job"), reverse("switchyard-job-cancel", args=[job_id])

    offered = cancel in client.get(reverse("switchyard-job", args=[job_id])).content.decode()
    page = client.post(cancel, follow=True).content.decode()

    assert offered
    assert "The job was cancelled and will not start." in page
    assert cancel not in page
    assert find_job(job_id).state == "cancelled"
