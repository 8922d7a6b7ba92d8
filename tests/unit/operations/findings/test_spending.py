"""Dependencies, databases and actors are judged by what attempts spend and call, and by the words of their errors."""

import time
from unittest.mock import Mock

import pytest
from django.db import OperationalError, ProgrammingError

from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.broker.stores.yard_facts import SENT, SUCCEEDED, Counts
from switchyard.operations.findings import spending
from switchyard.operations.findings.actors import MOST_ROWS, host_of, kind_of
from switchyard.operations.findings.database import database_away
from switchyard.operations.findings.finding import FindingGroup
from switchyard.operations.findings.pools import MemoryReplacements
from switchyard.operations.past import Usual

USUAL = Usual("at this hour", mean_ms=100.0, sql_ms=20.0, processor_ms=10.0)
MIB = 2**20


def ran(jobs: int, run_ms: int, **spent: int) -> dict[int, int]:
    """Return counts of jobs that each ran for so long."""
    codes = {"sql": yard_facts.SQL_MS, "processor": yard_facts.PROCESSOR_MS, "grown": yard_facts.GROWN_BYTES}
    return {
        SUCCEEDED: jobs,
        yard_facts.RUN_MS: jobs * run_ms,
        **{codes[name]: jobs * each for name, each in spent.items()},
    }


@pytest.fixture(autouse=True)
def dependencies(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    known = {"call_bank": "bank", "refund": "bank"}
    monkeypatch.setattr(spending, "dependency_of", lambda actor: known.get(actor, ""))
    return known


def calls(*buckets: tuple[int, int]) -> list[Counts]:
    return [
        {SUCCEEDED: answered, yard_facts.RETRIED: failed} if answered or failed else {} for answered, failed in buckets
    ]


@pytest.mark.parametrize(
    ("buckets", "said"),
    [
        (calls((0, 3), (1, 3), (0, 3)), "9 of 10 calls of call_bank and 1 other actor failed within 30 s"),
        (calls((4, 0), (4, 0), (0, 0), (0, 2), (0, 2), (0, 2)), "6 of 6 calls"),
        (calls((0, 1), (0, 0), (0, 0), (0, 1), (0, 1), (0, 0), (0, 1), (0, 1), (0, 0)), "5 of 5 calls"),
        (calls((0, 0), (0, 2), (0, 2)), ""),  # of so few it is chance
        (calls((8, 2), (8, 2), (8, 2)), ""),  # a fifth is flaky
        (calls((0, 4), (0, 4), (3, 0)), ""),  # it is back
        (calls(), ""),
    ],
)
def test_a_dependency_of_which_most_calls_fail_is_down(buckets, said):
    found = list(spending.down("bank", {"call_bank": "default", "mail": "urgent", "refund": "hooks"}, buckets))

    assert [each.name for each in found] == ["actors.dependency_down"] * bool(said)
    for each in found:
        assert each.seen.startswith("bank is down: ") and said in each.seen
        assert (each.subject, each.also, each.actor) == ("default", ("hooks",), "call_bank")


@pytest.mark.parametrize(
    ("counts", "bound"),
    [
        (ran(6, 900, sql=800), True),
        (ran(6, 180, sql=90), False),  # no share that stands out
        (ran(4, 900, sql=800), False),
        (ran(6, 900, sql=70), False),  # slower for another cause
        (ran(6, 49, sql=45), False),
        ({}, False),
    ],
)
def test_an_actor_is_bound_by_the_database_where_nearly_all_of_its_time_goes_there(counts, bound):
    assert spending.in_database(USUAL, counts) is bound
    assert not spending.in_database(Usual("at this hour"), counts), "nothing is usual of it"


def test_a_database_that_holds_up_two_actors_is_said_once(monkeypatch):
    actors = {name: Mock(queue_name=queue, options={}) for name, queue in (("export", "slow"), ("vat", "default"))}
    monkeypatch.setattr(spending.dramatiq, "get_broker", lambda: Mock(actors=actors))
    bucket = {"a:vat": ran(6, 900, sql=800), "a:export": ran(8, 9_000, sql=8_000)}
    usual = {"a:vat": USUAL, "a:export": USUAL}

    [found] = spending.look([(0, bucket)], usual)
    alone = list(spending.look([(0, {"a:vat": bucket["a:vat"]})], usual))

    assert (found.name, found.subject, found.also) == ("actors.database_bound", "slow", ("default",))
    assert found.seen == (
        "the database holds up export and 1 other actor: export is in SQL for 8.0 s of 9.0 s a job, "
        "usually 20 ms at this hour"
    )
    assert alone == []


@pytest.mark.parametrize(
    ("actor", "counts", "word", "says"),
    [
        ("vat", ran(5, 900, sql=700), spending.DATABASE_SLOW, ", most of it in SQL"),
        ("vat", ran(5, 900, processor=700), "", ", most of it on a processor"),
        ("vat", ran(5, 900), "", ""),
        ("call_bank", ran(5, 900), spending.DEPENDENCY_SLOW, "; it calls bank"),
        ("call_bank", ran(5, 900, sql=700), spending.DATABASE_SLOW, ", most of it in SQL"),
        ("call_bank", {}, spending.DEPENDENCY_SLOW, "; it calls bank"),  # none has ended yet
    ],
)
def test_what_takes_longer_is_named_where_it_is_known(actor, counts, word, says):
    assert spending.goes_to(actor, USUAL, counts)[:2] == (word, says)


@pytest.mark.parametrize(
    ("grown", "leaks"),
    [
        ([2 * MIB] * 60, True),
        ([0] * 12 + [2 * MIB] * 48, False),  # not in each part
        ([30 * MIB] * 12 + [1] * 48, False),  # what a process loads once
        ([MIB] * 60, False),  # 60 MiB
        ([2 * MIB] * 30, False),  # for 5 min
    ],
)
def test_an_actor_leaks_whose_processes_grow_all_the_time(grown, leaks):
    found = list(
        spending.leaking({"export": "slow"}, {"export": spending.grew([ran(1, 100, grown=each) for each in grown])})
    )

    assert [each.seen for each in found] == [
        "export leaks about 2.1 MB a job: its processes grew by 126 MB in 10 min, within 60 jobs"
    ] * leaks


@pytest.mark.parametrize(
    ("restarts", "grown", "leaks"),
    [
        ([{}, {"recycled_memory": 1, "recycled": 9}, {"recycled_memory": 1, "memory": 1}], [400, 0, 200], True),
        ([{"recycled_memory": 40, "memory": 2}, {"recycled_memory": 41, "memory": 2}], [400, 0, 200], False),  # one
        ([{}, {"recycled_memory": 2}], [0, 400, 0], False),  # what a process loads once
        ([{}, {"recycled_memory": 2}], [20, 20, 20], False),
        ([{}, {"recycled_memory": 2}], [400, 0, 0, 200, 0], False),  # one job of many takes too much at once
    ],
)
def test_an_actor_leaks_that_grew_two_processes_of_a_pool_which_replaced_two_for_their_memory(
    monkeypatch, restarts, grown, leaks
):
    seen = MemoryReplacements()
    monkeypatch.setattr(spending, "REPLACED", seen)
    broker = Mock(actors={"export": Mock(queue_name="slow", options={})})
    monkeypatch.setattr(spending.dramatiq, "get_broker", lambda: broker)
    for seconds, counts in enumerate(restarts):
        report = PoolReport("slow", "h", 7, "processes", 2, 0, 0, 0, "up", restarts=counts)
        seen.note([report], 900_000 + seconds * 2_000)

    found = list(
        spending.look([(at, {"a:export": ran(1, 100, grown=each * 1_000_000)}) for at, each in enumerate(grown)], {})
    )

    said = "export leaks about 200 MB a job: its processes grew by 600 MB in 10 min, within 3 jobs"
    assert [each.seen for each in found] == [said] * leaks
    assert all(each.actor == "export" for each in found)


def test_replacements_are_told_of_a_pool_whose_supervisor_has_just_begun_and_no_longer_than_ten_minutes():
    seen = MemoryReplacements()
    report = PoolReport("slow", "h", 7, "processes", 2, 0, 600_000, 0, "up", restarts={"memory": 2})

    seen.note([report], 900_000)
    told = seen.queues()
    seen.note([report], 1_600_000)

    assert (told, seen.queues()) == ({"slow"}, set())


def test_actors_that_run_in_processes_that_grow_are_told_as_one_leak():
    actors = {"sync": "default", "cart": "default", "catalog": "default", "export": "slow", "vat": "default"}
    grown = dict.fromkeys(("export", "vat"), (0, 0, 0)) | {"sync": (9_000_000, 6, 450_000)}
    grown |= {"cart": (374_000_000, 1_097, 36_000), "catalog": (377_000_000, 267, 27_000)}

    [found] = spending.leaking(actors, grown)

    assert found.seen == (
        "catalog, cart or sync leaks: processes that ran them grew by 760 MB in 10 min, within 267 jobs of catalog"
    )


def test_an_actor_that_is_sent_more_than_its_limit_starts_is_told(monkeypatch):
    options = {"rate_limit": "6/m"}
    broker = Mock(actors={"push": Mock(options=options), "mail": Mock(options={})})
    monkeypatch.setattr(spending.dramatiq, "get_broker", lambda: broker)
    floods: list[Counts] = [{SENT: 20, SUCCEEDED: 1, yard_facts.DEFERRED: 20}] * 12
    floods = [*[{SENT: 1, SUCCEEDED: 1}] * 4, *floods[:8], {SENT: 3}]
    burst: list[Counts] = [{SENT: 2_000, yard_facts.DEFERRED: 1_999}, *[{SUCCEEDED: 1, yard_facts.DEFERRED: 2}] * 12]

    [found] = spending.outrun("push", "default", floods)

    assert found.seen == (
        "push is sent 120 times a minute, and its limit lets 6 start: what waits of it grows by 114 a minute"
    )
    assert not [*spending.outrun("push", "default", burst), *spending.outrun("mail", "default", floods)]


def test_an_actor_that_sends_itself_without_an_end_is_told(monkeypatch):
    itself: list[bool] = [True]
    monkeypatch.setattr(spending, "sends_itself", lambda *_: itself[0])
    steady: list[Counts] = [{SENT: 1_350, SUCCEEDED: 1_350}] * 13
    usual = Usual("at this hour", sent_a_minute=20.0)

    [found] = spending.loops("poll", "default", usual, steady)

    assert found.seen == "jobs of poll send poll again and again: 8,100 a minute, usually 20 at this hour"
    assert found.button is not None and found.button.label == "Pause poll…"
    assert not [*spending.loops("poll", "default", usual, [{SENT: 20_000}, *[{SENT: 20}] * 12])]
    assert not [*spending.loops("poll", "default", Usual("at this hour", sent_a_minute=8_000.0), steady)]
    itself[0] = False
    assert not [*spending.loops("poll", "default", usual, steady)]


SERVER = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "code", "seen", "step"),
    [
        ('FATAL:  password authentication failed for user "yard"', "refused", "user or password", "Correct user"),
        ('FATAL:  role "yard" does not exist', "refused", "user or password", "Correct user"),
        ('FATAL:  database "nodb" does not exist', "refused", "has no database of that name", "createdb"),
        ('FATAL:  too many connections for role "yard"', "refused", "CONNECTION LIMIT", "ALTER ROLE name CONNECTION"),
        ('FATAL:  too many connections for database "yard"', "refused", "CONNECTION LIMIT", "or ALTER DATABASE"),
        ("FATAL:  sorry, too many clients already", "refused", "max_connections", "Raise max_connections"),
        ("FATAL:  remaining connection slots are reserved for", "refused", "max_connections", "Raise max_connections"),
        ("FATAL:  no more connections allowed (max_client_conn)", "refused", "max_client_conn", "pgbouncer.ini"),
        ("FATAL:  no such database: nodb", "refused", "the bouncer knows no database", "[databases] in pgbouncer.ini"),
        ("FATAL:  server login has been failing, try again later", "away", "the server behind it", "bouncer's host"),
        ("FATAL:  query_wait_timeout", "away", "does not reach the server behind it", "On the bouncer's host"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "yard"', "refused", "pg_hba.conf", "pg_reload_conf()"),
        ("FATAL:  unsupported startup parameter: options", "bounced", "refuses our options", "DATABASE_BOUNCED=1"),
        ("Connection refused\n\tIs the server running on that host?", "away", "nothing listens there", "server runs"),
    ],
)
def test_each_error_has_its_remedy(text, code, seen, step):
    found = database_away(FindingGroup("database"), OperationalError(SERVER + text))

    assert found.code == code and found.severity == "error"
    assert seen in found.seen and step in found.next
    assert "127.0.0.1" not in found.seen + found.next


@pytest.mark.parametrize(
    ("error", "code", "seen", "step"),
    [
        (ProgrammingError("permission denied for table switchyard_job"), "refused",
         "the server refuses our user a right", "GRANT"),
        (OperationalError("canceling statement due to statement timeout"), "refused",
         "the server ended a statement of ours after its statement_timeout", "statement_timeout"),
    ],
)  # fmt: skip
def test_a_right_that_is_missing_is_no_missing_table_and_a_statement_that_was_ended_no_server_that_is_away(
    error, code, seen, step
):
    missing = database_away(FindingGroup("database"), ProgrammingError('relation "jobs" does not exist'))
    found = database_away(FindingGroup("database"), error)

    assert (missing.code, missing.next) == ("unmigrated", "manage.py migrate")
    assert (found.code, found.seen) == (code, seen) and step in found.next


@pytest.mark.parametrize(
    ("error", "because"),
    [
        ('could not extend file "base/5/16437": No space left on device\nHINT: Check', "the database's disk is full"),
        ("database or disk is full", "the database's disk is full"),
        ("[Errno 28] No space left on device: '/media/a.pdf'", "a disk of its workers is full"),
        ("cannot execute INSERT in a read-only transaction", "the database takes no writes"),
        ("attempt to write a readonly database", "the database takes no writes"),
        ("mail server: did not take the mail (452 4.2.2); it is tried again", "the mail server puts it off"),
        ("SMTPDataError: (450, b'4.2.0 Greylisted')", "the mail server puts it off"),
        ("permission denied for table mail_sentmail", "the database refuses its user a right"),
        ("[Errno 13] Permission denied: '/media/a.pdf'", None),
    ],
)
def test_what_a_server_refuses_is_told_by_its_cause(error, because):
    kind = kind_of([f"OperationalError: {error}"] * 5)

    assert (kind and kind.because) == because


@pytest.mark.parametrize(
    ("error", "host", "fact"),
    [
        ("a.example.com:8443: refused the connection; try again", "a.example.com:8443", "refused the connection"),
        ("HTTPSConnectionPool(host='api.example.com', port=443)", "api.example.com", ""),
        ("500 for url: https://ada:secret@pay.example.com/v1", "pay.example.com", ""),
        ("division by zero", "", ""),
    ],
)
def test_the_host_is_that_which_most_errors_name(error, host, fact):
    assert host_of([error] * 5) == (host, fact)


@pytest.mark.parametrize("text", ["a." * 1_000, ("a" * 60 + ".") * 40, "http://" * 300, "a.b: " * 400])
def test_long_answers_of_a_foreign_server_cost_little(text):
    began_s = time.process_time()

    host_of(f"{number} {text}" for number in range(MOST_ROWS))

    assert time.process_time() - began_s < 2
