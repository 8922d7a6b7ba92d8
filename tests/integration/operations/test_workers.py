"""Supervisors are instructed from their page and by command; a silent child is told alike by each of them."""

import io
import json
import re
from collections import defaultdict
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from msgspec.structs import replace

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.pool_reports import (
    INSTRUCTION_TTL_MS,
    ChildStacks,
    Instruction,
    PoolReport,
    SilentChild,
    Stack,
)
from switchyard.commands import workers as command
from switchyard.jobs.queries import families, running_jobs
from switchyard.jobs.services import submit
from switchyard.operations import overview_views
from switchyard.operations.alerting import after_s
from switchyard.operations.findings import facts, pools
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.findings.finding import Finding, ranked
from switchyard.operations.queries import yard_state
from tests.factories.commands import output_of
from tests.factories.pages import text_of
from tests.factories.staff import staff

pytestmark = pytest.mark.django_db(transaction=True)
PAGE = reverse("switchyard-operations-workers")
QUIET, RESUME, STOP = (reverse("switchyard-operations-instruct", args=[verb]) for verb in ("quiet", "resume", "stop"))


@pytest.fixture
def operator(db: None) -> Client:
    return staff("view_operations", "instruct_workers")


@pytest.fixture
def supervisor(facilities: Facilities, slow_pool: PoolReport) -> PoolReport:
    """The slow pool's only supervisor."""
    report = replace(slow_pool, children=[{**child, "quiet": False} for child in slow_pool.children])
    facilities.pools.write(report)
    return report


def chosen(report: PoolReport) -> str:
    return f"{report.member}@{report.started_at}"


def read(facilities: Facilities, report: PoolReport) -> Instruction:
    found = facilities.pools.write(report).instruction
    assert found is not None
    return found


def test_a_ticked_supervisor_is_quieted_after_a_question(operator, facilities, supervisor, valkey):
    listed = operator.get(PAGE).content.decode()
    asked = text_of(operator.get(QUIET, {"member": chosen(supervisor)}))
    assert facilities.pools.write(supervisor).instruction is None, "nothing changes on GET"
    told = text_of(operator.post(QUIET, {"member": chosen(supervisor), "reason": "leaks"}, follow=True))

    assert f'name="member" value="{chosen(supervisor)}"' in listed and f'formaction="{STOP}"' in listed
    assert "Quiet 1 supervisor?" in asked and "The 1 job that runs there ends within its own limits" in asked
    assert "Nothing of slow" in asked and "no other supervisor of slow takes work" in asked
    assert "1 supervisor is told to take no new work" in told
    instruction = read(facilities, supervisor)
    assert (instruction.verb, instruction.started_at, instruction.reason) == ("quiet", supervisor.started_at, "leaks")
    assert 0 < int(valkey.pttl(Keys().pool_instruction(supervisor.member))) <= INSTRUCTION_TTL_MS
    row = AuditEntry.objects.get()
    assert (row.act, row.target, row.reason, row.count) == ("worker.quiet", supervisor.member, "leaks", 1)


def test_all_supervisors_of_a_pool_are_quieted(operator, facilities, supervisor):
    second = replace(supervisor, host="h2", pid=7)
    facilities.pools.write(second)
    page = operator.get(PAGE).content.decode()
    asked = text_of(operator.get(QUIET, {"pool": "slow"}))
    both = [chosen(supervisor), chosen(second)]
    told = text_of(operator.post(QUIET, {"member": both, "reason": "deploy"}, follow=True))

    assert f'href="{QUIET}?pool=slow">Quiet all 2…' in page and f'href="{STOP}?pool=slow">Stop all 2…' in page
    assert f'href="{RESUME}?pool=slow"' not in page, "none is quieted"
    assert page.count('id="pool-slow"') == 1 and "2 supervisors" in page
    assert "Quiet 2 supervisors?" in asked and "no other supervisor of slow takes work" in asked
    assert "2 supervisors are told to take no new work" in told
    rows = AuditEntry.objects.values_list("act", "target", "reason")
    assert set(rows) == {("worker.quiet", each.member, "deploy") for each in (supervisor, second)}


def test_all_supervisors_of_a_host_are_quieted_together(operator, facilities, supervisor, monkeypatch):
    monkeypatch.setattr(command, "PATIENCE_S", 0.0)
    there = [replace(supervisor, host="h2", pid=pid, pool=pool) for pid, pool in ((7, "slow"), (8, "default"))]
    for report in there:
        facilities.pools.write(report)

    page, asked = operator.get(PAGE).content.decode(), text_of(operator.get(QUIET, {"host": "h2"}))
    with pytest.raises(CommandError, match="0 of 2 supervisors obeyed stop"):
        call_command("switchyard", "workers", "stop", "--host", "h2", stdout=io.StringIO())

    assert 'name="host" value="h2"' in page and "Quiet all on h2…</button>" in page
    assert "Quiet 2 supervisors?" in asked and "slow on h2, pid 7" in asked and "default on h2, pid 8" in asked
    assert {read(facilities, report).verb for report in there} == {"stop"}
    assert facilities.pools.write(supervisor).instruction is None, "it is on another host"


def test_pages_say_who_quieted_a_supervisor_and_how_it_takes_work_again(operator, facilities, supervisor):
    by_ada = Instruction("1", "quiet", supervisor.started_at, now_ms() - 65_000, "ada", "leaks")
    facilities.pools.write(replace(supervisor, state="quieted"), by_ada)

    page, overview = operator.get(PAGE), operator.get(reverse("switchyard-operations"))
    queues = staff("view_operations", "pause_queue").get(reverse("switchyard-queues")).content.decode()

    assert "1 pool takes no new work: slow" in text_of(page) or "without a worker" in text_of(page)
    assert "quieted by ada: leaks" in text_of(page)
    assert "slow takes no new work, because ada quieted its only supervisor" in text_of(overview)
    assert f'href="{RESUME}?pool=slow"' in overview.content.decode()
    assert "Let 1 supervisor take work again?" in text_of(operator.get(RESUME, {"pool": "slow"}))
    row = re.search(r">slow</code>.*?</tr>", queues, re.DOTALL)
    assert row is not None and "Quieted" in row[0] and "its pool takes no new work" in row[0], "it is not on time"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"children": []}, "it takes no instructions: no child of it is up yet; on h: kill -TERM 1"),
        ({"state": "draining"}, "it is stopping already"),
        ({"started_at": 5}, "another process of this name has started since"),
    ],
    ids=["no child", "draining", "a successor"],
)
def test_a_supervisor_that_would_not_obey_is_left_out_in_words(operator, facilities, supervisor, changes, why):
    facilities.pools.write(replace(supervisor, **changes))

    page = operator.post(STOP, {"member": chosen(supervisor), "reason": "x"})

    assert why in text_of(page) and "Nothing to do" in text_of(page)
    assert facilities.pools.write(supervisor).instruction is None


def test_without_a_reason_nothing_is_stopped(operator, facilities, supervisor):
    page = operator.post(STOP, {"member": chosen(supervisor)})

    assert page.status_code == 422 and "Write a reason. Nothing was done." in text_of(page)
    assert "started again at once: this is a restart" in text_of(page)
    assert facilities.pools.write(supervisor).instruction is None and not AuditEntry.objects.exists()


BY_HAND = {
    "pool_instruction": (b"\xff", b"{}", b"[1]", b'{"id": 1}'),
    "stacks_asked": (b"\xff\xfe", b"", b"a request", b"x" * 65, "\N{GREEK SMALL LETTER ALPHA}".encode()),
}


@pytest.mark.parametrize(("key", "written"), [(key, each) for key, written in BY_HAND.items() for each in written])
def test_what_somebody_wrote_by_hand_stops_no_supervisor(facilities, supervisor, valkey, key, written):
    valkey.set(getattr(Keys(), key)(supervisor.member), written)

    answer = facilities.pools.write(supervisor)
    assert (answer.instruction, answer.stacks) == (None, "")


def test_command_says_who_disobeys(facilities, supervisor, monkeypatch):
    monkeypatch.setattr(command, "PATIENCE_S", 0.0)
    out = io.StringIO()

    with pytest.raises(CommandError, match="0 of 1 supervisors obeyed quiet"):
        call_command("switchyard", "workers", "quiet", "--pool", "slow", "--reason", "x", "--json", stdout=out)
    with pytest.raises(CommandError, match="no supervisor reports"):
        call_command("switchyard", "workers", "stop", "--member", "slow:nowhere:1", stdout=io.StringIO())

    assert json.loads(out.getvalue())["not_obeyed"] == [supervisor.member]
    assert AuditEntry.objects.get().via == "command"


@pytest.fixture
def looker() -> Client:
    """A logged-in staff user who may see workers and their stacks."""
    return staff("view_operations", "dump_stacks")


def test_page_names_every_supervisor_its_children_and_what_it_runs_since_when(slow_pool, monkeypatch):
    since, worker = now_ms() - 5_000, "slow.h.1.0a1b2c3d.4.1"
    job = Job("11112222-run", "render_report", "slow", "running", attempts=1, started_at=since, worker=worker)
    monkeypatch.setattr(overview_views, "running_or_none", lambda: [job])

    page = staff("view_operations", "view_job", "dump_stacks").get(PAGE).content.decode()
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())

    assert "slow</code> on h, pid 1" in page and page.count("pid 2</th>") == 2 and "Show stacks" in page
    assert f'id="{slow_pool.member}"' in page
    assert re.search(r"slow on h, pid 1 .* up 1 of 2 302 MB .* 1 by memory", text)
    assert re.search(r"runs render_report for [\d.]+ s \( 11112222 \)", text)
    assert re.search(r"render_report .* [\d.]+ s since [\d:]+ UTC .* 11112222", text)
    assert "render_report" not in staff("view_operations").get(PAGE).content.decode()


def test_stacks_are_asked_for_by_a_form_of_ours_alone(slow_pool):
    client = staff("dump_stacks", enforce_csrf_checks=True)
    address = reverse("switchyard-operations-ask-for-stacks", args=[slow_pool.member])

    assert client.post(address).status_code == 403
    assert client.get(address).status_code == 405


def test_request_reaches_the_supervisor_and_its_answer_the_page(looker, facilities, slow_pool):
    asked = looker.post(reverse("switchyard-operations-ask-for-stacks", args=[slow_pool.member]))
    waiting = looker.get(asked["Location"]).content.decode()
    request = facilities.pools.write(slow_pool).stacks
    facilities.pools.answer_stacks(request, [ChildStacks(2, [Stack("thread", ["actors.py:7 <lambda>"])])])

    shown = looker.get(asked["Location"]).content.decode()

    assert 'http-equiv="refresh"' in waiting
    assert request == asked["Location"].rstrip("/").rpartition("/")[2]
    assert facilities.pools.write(slow_pool).stacks == request, "the supervisor may not have had the answer"
    assert "actors.py:7 &lt;lambda&gt;" in shown
    assert 'http-equiv="refresh"' not in shown
    address = reverse("switchyard-operations-stacks", args=[slow_pool.member, "1000-" + "x" * 22])
    page = looker.get(address).content.decode()

    assert "No answer." in page and 'http-equiv="refresh"' not in page


PID = 24_636
FRAMES = ["python3.11/re/__init__.py:176 search", "tests/ways.py:71 hold", "dramatiq/worker.py:5 process_message"]


def report(facilities: Facilities, silent: list[SilentChild]) -> None:
    """Every pool reports that it is up; ``default`` has a child that runs something."""
    now = now_ms()
    child: Any = {"pid": PID, "ready": True, "busy": 1, "done": 0, "rss_bytes": 1}
    for pool in settings.SWITCHYARD.topology.pools:
        only = {"busy": 1, "children": [child], "silent": silent} if pool.name == "default" else {"busy": 0}
        facilities.pools.write(
            PoolReport(pool.name, "h", 1, pool.kind, pool.total_slots, started_at=now, beat_at=now, state="up", **only)
        )


@pytest.fixture
def held(facilities: Facilities) -> list[str]:
    """Ids of three jobs that a child of ``default`` holds; it runs the first, and has answered nothing for 8 s."""

    @dramatiq.actor(actor_name="parse_address", queue_name="default")
    def parse_address() -> None:
        raise AssertionError("nothing runs here")

    ids = [submit(parse_address) for _ in range(3)]
    [family] = families(["default"])
    family.join("default.h.1.0a1b2c3d.1.1/live")
    family.fetch("default.h.1.0a1b2c3d.1.1/live", 3, request=1)
    report(facilities, [SilentChild(PID, 1, 8_123, {ids[0]: now_ms() - 9_000}, [Stack("thread", FRAMES)])])
    return ids


def silences() -> list[Finding]:
    return [one for one in pools.look_at_absence(facts_of(facts.read().state)) if one.code == "child_silent"]


def shown(page: str, *arguments: str) -> str:
    client = staff("view_operations", "view_job")
    return text_of(client.get(reverse(page, args=arguments)))


def test_what_a_silent_child_runs_counts_as_running_on_all_pages_until_the_child_answers(held, facilities):
    [job] = running_jobs()

    assert (job.id, job.actor, job.silent_ms) == (held[0], "parse_address", 8_123)
    assert job.run_ms is not None and job.run_ms >= 9_000
    workers, queue = shown("switchyard-operations-workers"), shown("switchyard-queue", "default")
    runs, waits = shown("switchyard-job", held[0]), shown("switchyard-job", held[1])

    assert "No answer from child 24636 of default" in workers
    assert "pid 24636 silent for 8 s 1" in workers
    assert "Nobody" not in queue and "parse_address holds 1 of 8 slots, its longest job for" in queue
    assert "parse_address running in a process that answers nothing" in runs
    assert "parse_address waiting in a process that answers nothing" in waits
    assert "Child 24636 of default on h holds it, and has answered nothing for 8.1 s." in runs
    report(facilities, [])
    assert running_jobs() == []
    assert "parse_address queued" in shown("switchyard-job", held[0])
    assert "Not known yet: what they run has no record of that." in shown("switchyard-queue", "default")


def test_commands_and_doctor_say_it_too(held):
    printed = output_of("workers", "--pool", "default")
    [found] = silences()

    assert "child 24636: silent for 8 s, 1 busy, 0 done" in printed
    assert found.seen == (
        "child 24636 of default has answered nothing for 8 s; it runs parse_address, in hold, tests/ways.py:71"
    )
    assert (found.severity, found.subject) == ("warning", "default")
    assert after_s(ranked([found])[0]) == 120.0
    assert yard_state().pools["default"].idle == 0, "its other slots start nothing"

    submit(dramatiq.get_broker().actors["parse_address"])
    [found] = silences()
    assert (found.severity, after_s(ranked([found])[0])) == ("error", 30.0), "it has all slots, and work waits"
    assert found.next.startswith("kill -USR1 24636, on h")
    assert held[0] in found.then


def test_children_that_are_silent_one_after_the_other_are_told_between_them(held, facilities, monkeypatch):
    seen_before = {24_635: (now_ms() - 20_000, held[1], "parse_address")}
    monkeypatch.setattr(pools, "SILENT", defaultdict(dict, {"default": seen_before}))
    silences()
    report(facilities, [])

    [found] = silences()

    assert found.seen.startswith("2 children of default have answered nothing, one after the other; the last ran parse")
    assert found.next == f"manage.py switchyard jobs cancel {held[0]}"
    del pools.SILENT["default"][24_635]
    assert silences() == [], "one alone is over when it answers"
