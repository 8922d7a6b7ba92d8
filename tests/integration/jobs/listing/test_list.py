"""The list of jobs from broker and history in pages that miss and repeat none; its page, filters and acts."""

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.admin.scheduled import state_counts
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.bulk import runner
from switchyard.bulk.models import BulkAct
from switchyard.history.filters import Filter
from switchyard.history.models import SearchValue
from switchyard.jobs.listing import pages as scheduled
from switchyard.jobs.listing.pages import JobsPage, find_jobs
from switchyard.jobs.presentation import arguments_of
from switchyard.jobs.queries import families
from switchyard.jobs.services import request_cancel, submit
from tests.factories.staff import staff
from tests.integration.bulk.conftest import finished
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

SCHEDULED = Filter(states=("scheduled",))
MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def database(transactional_db): ...


def waiting() -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2})


def ids(page: JobsPage) -> list[str]:
    return [line.id for line in page.jobs]


def found(**conditions: object) -> list[str]:
    return ids(find_jobs(Filter(**conditions)))  # type: ignore[arg-type]


def test_pages_hold_waiting_and_ended_jobs_newest_first_each_once():
    now = now_ms()
    ended = [job_row(finished_at=now + shift * 60_000).job_id for shift in (-3, 2, -2, 1, -1)]
    waiting = [submit(probe_actors.add, kwargs={"a": number, "b": 0}) for number in range(4)]

    pages = pages_of(Filter())

    listed = [line for page in pages for line in page.jobs]
    assert sorted(line.id for line in listed) == sorted([*ended, *waiting])
    assert [line.at for line in listed] == sorted((line.at for line in listed), reverse=True)
    assert [len(page.jobs) for page in pages] == [2, 2, 2, 2, 1]
    assert {line.state for line in listed if not line.ended} == {"queued"}


def test_filters_find_waiting_jobs(facilities):
    add = submit(probe_actors.add, owner="user:1", kwargs={"a": 42, "b": 2})
    later = submit(probe_actors.write, delay_ms=60_000, kwargs={"text": "acme"})
    tagged = probe_actors.add.send_with_options(args=(1, 2), tags=["monthly"]).message_id

    assert found(actor="probe_write") == [later]
    assert found(owner="user:1") == [add]
    assert found(tag="monthly") == [tagged]
    assert found(states=("scheduled",)) == [later]
    assert set(found(states=("queued", "dead"))) == {add, tagged}
    assert found(argument=("a", "42")) == [add]
    assert found(argument=("text", "acme")) == [later]
    assert found(argument=("text", "4")) == found(queue="urgent") == found(failures=True) == []
    assert found(since="1h", actor="probe_write") == [later]
    assert found(until="1h", actor="probe_write") == []


def test_the_children_of_a_job_are_found_wherever_they_are():
    parent = job_row().job_id
    ended = job_row(parent=parent).job_id
    queued = probe_actors.add.send_with_options(args=(1, 2), parent=parent).message_id
    later = probe_actors.add.send_with_options(args=(1, 2), parent=parent, delay=60_000).message_id
    waiting()

    assert set(found(parent=parent)) == {ended, queued, later}
    assert found(parent=parent, states=("scheduled",)) == [later]
    assert found(parent=ended) == []


def test_filters_find_ended_jobs():
    plain = job_row(owner="user:2").job_id
    failed = job_row(state="dead", error_type="ValueError", error_message="no", failed_at=now_ms() - 1_000).job_id
    retried = job_row(error_type="Timeout", failed_at=now_ms() - 2_000, attempts=2).job_id
    SearchValue.objects.create(name="customer_id", value="42", job_id=plain, finished_at=now_ms() - 1_000)

    assert found(owner="user:2") == [plain]
    assert found(states=("dead",)) == [failed]
    assert found(failures=True, since="1h") == [failed, retried]
    assert found(argument=("customer_id", "42")) == [plain]
    assert found(states=("running",)) == []


def test_a_job_that_runs_again_is_listed_once_as_it_stands(run_worker):
    job_id = submit(probe_actors.steps, kwargs={"total": 2})
    job_row(job_id=job_id, state="dead")

    with run_worker("default"):
        wait_for(lambda: [line.state for line in find_jobs(Filter()).jobs] == ["running"])
        (line,) = find_jobs(Filter(states=("running",))).jobs
        probe_actors.go_on.set()

    assert line.id == job_id
    assert arguments_of(line) == {"total": 2}
    assert line.run_ms is not None


def test_of_a_deep_queue_the_first_are_looked_through_and_it_is_named(monkeypatch):
    monkeypatch.setattr(
        "switchyard.broker.admin.browse.look_through.__kwdefaults__", {"places": ("waiting",), "most": 3}
    )
    sent = [submit(probe_actors.add, kwargs={"a": number, "b": 0}) for number in range(5)]

    page = find_jobs(Filter(states=("queued",)))

    assert set(ids(page)) == set(sent[:3])
    assert page.cut == ("default",)


def test_what_was_cancelled_waits_no_longer():
    job_id = waiting()
    request_cancel(job_id)

    assert found(states=("queued",)) == []
    assert [line.state for line in find_jobs(Filter()).jobs] == ["cancelled"]


def pages_of(wanted: Filter, limit: int = 2) -> list[JobsPage]:
    after, pages = "", []
    while True:
        pages.append(page := find_jobs(wanted, after=after, limit=limit))
        if not (after := page.after):
            return pages


def send(minutes: int, *, actor: str = "add", owner: str = "") -> str:
    kwargs = {"a": minutes, "b": 0} if actor == "add" else {"text": str(minutes)}
    return submit(getattr(probe_actors, actor), owner=owner, delay_ms=minutes * MINUTE_MS, kwargs=kwargs)


def test_the_next_to_be_due_is_first_over_all_queues_and_each_is_listed_once():
    minutes = [50, 3, 90, 20, 7]
    sent = {send(at): at for at in minutes}
    other = dramatiq.get_broker().actors["probe_add"]
    message = other.message_with_options(args=(1, 2)).copy(queue_name="urgent")
    sent[dramatiq.get_broker().enqueue(message, delay=10 * MINUTE_MS).message_id] = 10
    waiting()
    request_cancel(send(1))

    pages = pages_of(SCHEDULED)

    assert [sent[id_] for page in pages for id_ in ids(page)] == sorted(sent.values())
    assert [len(page.jobs) for page in pages] == [2, 2, 2]
    assert state_counts(families(), facilities().records)["scheduled"] == len(sent)
    assert [ids(page) for page in pages_of(Filter(states=("scheduled",), queue="urgent"))] == [[message.message_id]]


def test_a_filter_looks_through_a_bounded_number_and_the_next_page_goes_on(monkeypatch):
    monkeypatch.setattr(scheduled, "LOOKED_THROUGH", 4)
    monkeypatch.setattr(scheduled, "AT_ONCE", 2)
    for minute in range(1, 8):
        send(minute)
    mine = [send(minute, owner="user:1") for minute in (9, 10)]

    pages = pages_of(Filter(states=("scheduled",), owner="user:1"))

    assert pages[0].jobs == ()
    assert [id_ for page in pages for id_ in ids(page)] == mine


KINDS = "job.cancel_chosen", "job.run_chosen_again"
CANCEL, AGAIN = (reverse("switchyard-bulk-begin", args=[kind]) for kind in KINDS)
LIST = "/admin/switchyard_jobs/job/"


def test_waiting_and_ended_jobs_are_in_one_list():
    live, ended = waiting(), job_row().job_id

    page = staff("view_job").get(LIST).content.decode()

    assert live in page and ended in page
    assert "the first 10,000 of each queue are looked through" in page


def test_filters_are_in_the_address_and_in_the_link_to_older_jobs():
    for _ in range(51):
        job_row(actor="probe_write")
    job_row(actor="probe_add")

    page = staff("view_job").get(LIST, {"actor": "probe_write", "state": ""})

    assert page.context["page"].after
    assert "?actor=probe_write&amp;after=" in page.content.decode()
    older = staff("view_job").get(LIST + page.context["older"])
    assert [line.actor for line in older.context["page"].jobs] == ["probe_write"]
    assert "Newest" in older.content.decode()


@pytest.mark.parametrize(
    ("query", "text"),
    [({"state": "lost"}, "state: &#x27;lost&#x27; is not a state"), ({"colour": "x"}, "colour: is not a filter"),
     ({"after": "x"}, "is not a place in a list"), ({"since": "soon"}, "is not a time")],
)  # fmt: skip
def test_an_address_that_is_wrong_says_what_is(query, text):
    page = staff("view_job").get(LIST, query)

    assert page.status_code == 400
    assert text in page.content.decode()


def test_what_matches_is_cancelled_from_the_list_after_a_question():
    waiting()
    client = staff("view_job", "cancel_job")
    link = "/admin/operations/bulk/begin/job.cancel/?actor=probe_add"

    assert link in client.get(LIST, {"actor": "probe_add"}).content.decode()
    assert client.get(link).status_code == 200
    assert "job.cancel/?" not in client.get(LIST).content.decode()
    assert "job.cancel/?" not in client.get(LIST, {"state": "dead"}).content.decode()
    assert link not in staff("view_job").get(LIST, {"actor": "probe_add"}).content.decode()


def test_hidden_arguments_cannot_be_found_out():
    submit(probe_actors.keep_secret, kwargs={"to": "mia", "pages": 3})
    client = staff("view_job", "view_arguments", "cancel_job")
    begin = "/admin/operations/bulk/begin/job.cancel/"

    for value in ("mia", "[redacted]"):
        assert client.get(LIST, {"argument": f"to={value}"}).context["page"].jobs == ()
        assert client.get(begin, {"argument": f"to={value}"}).context["planned"].total == 0
    assert client.get(begin, {"argument": "pages=3"}).context["planned"].total == 1
    operator = staff("view_job", "cancel_job")
    for address, query in ((LIST, {}), (f"{LIST}live/", {"shown_at": "0"}), (begin, {})):
        assert operator.get(address, {"argument": "pages=3", **query}).status_code == 403, address


def begin(client: Client, address: str, jobs: list[str]) -> BulkAct:
    """Start an act as the form does, and do it."""
    query = "&".join(f"job={id_}" for id_ in jobs)
    client.post(f"{address}?{query}", {"count": str(len(jobs)), "reason": "duplicates", "form_id": "form"})
    return finished(BulkAct.objects.get())


def test_jobs_can_be_ticked_by_who_may_do_something_to_them():
    live, ended = waiting(), job_row().job_id

    rights = (("cancel_job",), ("run_job",), ())
    cancels, runs, reads = (staff("view_job", *each).get(LIST).content.decode() for each in rights)

    assert [f'name="job" value="{id_}"' in cancels for id_ in (live, ended)] == [True, False]
    assert [f'name="job" value="{id_}"' in runs for id_ in (live, ended)] == [False, True]
    assert [CANCEL in cancels, AGAIN in cancels, CANCEL in runs, AGAIN in runs] == [True, False, False, True]
    assert 'name="job"' not in reads and CANCEL not in reads and AGAIN not in reads


def test_the_ticked_are_named_before_they_are_cancelled_and_no_others(facilities):
    client, chosen, other = staff("view_job", "cancel_job"), [waiting(), waiting()], waiting()

    asked = client.get(CANCEL, {"job": [*chosen, "no id!"]}).content.decode()
    assert "Cancel 2 jobs?" in asked and all(id_ in asked for id_ in chosen) and other not in asked
    assert facilities.records.states(chosen) == ["queued", "queued"]
    act = begin(client, CANCEL, chosen)

    assert facilities.records.states([*chosen, other]) == ["cancelled", "cancelled", "queued"]
    assert (act.state, act.total, act.done, act.skips) == ("done", 2, 2, {})
    row = AuditEntry.objects.get(act="job.cancel")
    assert (row.count, row.reason, row.detail["filter"]) == (2, "duplicates", {"job": ",".join(chosen)})


def test_nothing_is_done_without_a_choice_or_the_right(facilities):
    job = waiting()

    assert "none was chosen" in staff("view_job", "cancel_job").get(CANCEL).content.decode()
    assert "Nothing matches" in staff("view_job", "run_job").get(AGAIN, {"job": job}).content.decode()
    assert staff("view_job").post(f"{CANCEL}?job={job}", {"count": "1", "reason": "x"}).status_code == 403
    assert facilities.records.states([job]) == ["queued"]


def test_ended_jobs_run_again_once_and_others_say_why(facilities, monkeypatch):
    monkeypatch.setattr(runner, "MOST", 2)
    ended = [job_row(arguments='{"a": 1, "b": 2}').job_id for _ in "12"]
    cut, live = job_row(arguments='{"a": 1').job_id, waiting()

    act = begin(staff("view_job", "run_job"), AGAIN, [*ended, cut, live])

    assert (act.state, act.total, act.done) == ("done", 3, 2)
    assert act.skips == {"its arguments are not kept whole, or its actor is unknown": 1, "has not ended": 1}
    assert facilities.transport.stats("default").live.waiting == 3
