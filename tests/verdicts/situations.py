"""Situations that the overview names: how each is made, its sentence, its seconds and its button.

Each is made by means that know nothing of how the overview judges.
"""

from dataclasses import dataclass

from tests.verdicts import causes

SOON_S, BEAT_S = 10.0, 20.0


@dataclass(frozen=True)
class Situation:
    """One row of the page of verdicts.

    Args:
        title: The situation, as on the page.
        sentence, button: Patterns of what is said; an empty button: there is none.
        within_s: From the cause, or from the first late job.
        first: It is the headline of its group.
        then: Pattern of the text beside the button.
    """

    title: str
    make: causes.Make
    sentence: str
    button: str
    within_s: float = SOON_S
    first: bool = True
    then: str = ""


PROMISE = r"behind its promise, because"
# Situations of one group are made one after the other and stand together.
GROUPS: dict[str, tuple[Situation, ...]] = {
    "slow jobs in three queues, a pool quieted": (
        Situation(
            "40 slow jobs before quick ones on one queue", causes.sends("export_invoices", "default", 4_000, count=64),
            rf"^default is .* {PROMISE} 8 × export_invoices hold all 8 slots.*; \d+ jobs wait, the oldest for",
            r"(Show who holds the 8 slots of default|Move \d+ waiting export_invoices to another queue…)", first=False,
        ),
        Situation(
            "a slow actor on a fast queue", causes.sends("slow_report", "urgent", 1_500, count=80),
            rf"^urgent is .* {PROMISE} 4 × slow_report hold all 4 slots, the longest for",
            r"Move \d+ waiting slow_report to another queue…|Pause slow_report…",
            then=r"slow_report runs too long for a queue that promises a start in 80 ms", first=False,
        ),
        Situation(
            "jobs that start in time and end late", causes.sends("long_export", "reports", 15_000, count=2),
            r"^reports ends its jobs late: the oldest is .* behind the promise to end",
            r"Show who holds the 4 slots of reports", first=False,
        ),
        Situation(
            "a pool that a person quieted", causes.quieted,
            r"^hooks starts nothing, because \S+ quieted its only supervisor .* ago \(bank API is away\); 10 jobs wait",
            r"Let 1 supervisor of hooks take work again…", then=r"It fetches again within 2 s once it may",
        ),
    ),
    "a little late": (Situation(
        "a queue of 80 ms that is kept a little late", causes.a_little_late, rf"^urgent is .* {PROMISE}",
        r"(Show who holds the 4 slots of urgent|Move .*)",
    ),),
    "held back": (
        Situation(
            "messages in a queue that was removed", causes.undeclared,
            r"^2 messages are in the queue renamed, which this release does not declare", "", within_s=BEAT_S,
        ),
        Situation(
            "a paused queue", causes.paused,
            r"^hooks starts nothing, because ada paused it .*ago until .* UTC \(bank API is away\); 20 jobs wait",
            r"Resume hooks and start 20 jobs…", first=False, then=r"It resumes by itself at",
        ),
        Situation(
            "a purge that can be undone", causes.purged,
            r"^ada purged 7 jobs of urgent \(sent twice\); they can be put back for",
            r"Put back 7 jobs of urgent…", first=False,
        ),
        Situation(
            "a rate limit holds messages back", causes.limited,
            r"^\d+ welcome wait for their turn, the last for \d min .*: its rate limit, 10/m, holds them back",
            r"Show \d+ scheduled welcome", first=False,
        ),
        Situation(
            "bytes that are no message", causes.quarantined, r"urgent: 1 unreadable message is quarantined",
            r"Show 1 unreadable message", first=False,
        ),
        Situation(
            "jobs that no worker knows", causes.parked,
            r"urgent: 3 messages wait for a worker that can run them; they call from_the_future",
            r"Show 3 scheduled from_the_future", first=False,
        ),
        Situation(
            "a job that ends its worker", causes.sends("crash_worker", "default", count=1),
            r"^The job \S+ of crash_worker ended its worker again and again, and was given up as poison",
            r"Look at the poison job of crash_worker", within_s=BEAT_S, first=False,
        ),
    ),
    "failing": (
        Situation(
            "an endpoint answers 500", causes.endpoint_down,
            r"^127\.0\.0\.1(:\d+)? is down for deliver_webhook.*: \d+ of \d+ jobs failed in the last 5 min",
            r"(Show \d+ failed jobs? of deliver_webhook|Triage \d+ dead letters? of deliver_webhook)",
        ),
        Situation(
            "half of an actor's jobs fail", causes.half_failing,
            r"^Half of vat_report's jobs failed with PermanentFailure: 20 of 40 in the last 5 min",
            r"Triage 20 dead letters of vat_report", first=False,
        ),
        Situation(
            "a critical alert that nobody acknowledged", causes.nothing, r"critical alerts? (is|are) not acknowledged",
            r"Acknowledge \d critical alerts?…", first=False,
        ),
        Situation(
            "dead letters that nobody triaged", causes.letters_of_before, r"^\d+ more dead letters wait to be triaged",
            r"Triage \d+ dead letters", first=False,
        ),
        Situation(
            "failed jobs that have a value in common", causes.one_customer_refused,
            r"^5 % of charge's jobs failed with CardRefused: 10 of 200 in the last 5 min.*; only customer_id 7: all of",
            r"Triage 10 dead letters of charge", first=False,
        ),
    ),
    "retry storm": (Situation(
        "more than 100 jobs wait for a retry", causes.retry_storm,
        r"^1\d\d failed jobs of default wait for a retry", r"Show 1\d\d retrying jobs of default", first=False,
        then=r"Remove the cause and they finish by themselves",
    ),),
    "mail server silent": (Situation(
        "what actors of two queues call does not answer", causes.mail_server_silent,
        r"^What (newsletter and reset_mail|reset_mail and newsletter) call does not answer: all of their \d+ jobs "
        r"in .* failed with MailNotSent; (urgent and default|default and urgent) are late by it\.",
        r"Show the failed jobs of (newsletter|reset_mail)",
        then=r"^(?!.*(more slots|another queue))Look at what .* call: mend it",
    ),),
    "fan-out": (Situation(
        "an actor that sends itself", causes.fans_out,
        rf"^default is .* {PROMISE} fan_out sends itself: \d+ of the newest 100 that wait.*; \d+ jobs wait",
        r"Pause fan_out…", then=r"^(?!.*more slots).*pause fan_out, then cancel what waits of it",
    ),),
    "one customer floods": (Situation(
        "most of what waits has one value of an argument", causes.one_customer_floods,
        rf"^default is .* {PROMISE} \d × sync_customer .*; [\d,]+ jobs wait, \d+ of the next 100 are "
        r"customer_id=7, the oldest for .*; empty in about .*", r"Pause sync_customer for customer_id=7…",
        then=r"^(?!.*more slots)Pause sync_customer for customer_id=7",
    ),),
    "silent": (
        Situation(
            "a pool's supervisor is stopped (SIGSTOP)", causes.supervisor_stopped,
            r"^hooks starts nothing, because no pool serves it: its supervisor .* has been stopped for .*; 10 jobs",
            r"Show every worker", within_s=BEAT_S, then=r"Run `kill -CONT \d+`: what waits starts at once",
        ),
        Situation(
            "a stopped supervisor, before its report lapses", causes.nothing,
            r"^hooks is .* behind its promise, because its pool has not reported for .* and starts nothing",
            r"Show who holds the 4 slots of hooks", first=False,
        ),
        Situation(
            "the scheduler stands still", causes.scheduler_stopped, r"^No scheduler leads: no schedule starts",
            r"Show \d+ schedules?", within_s=BEAT_S, first=False,
        ),
        Situation(
            "the history writer stands still", causes.history_stopped, r"^Of the history: no history writer leads", "",
            within_s=BEAT_S, first=False,
        ),
        Situation(
            "a worker's host is gone", causes.host_gone,
            r"^The host web-2 reports no more since .*: urgent runs on other hosts only", r"Show every worker",
            within_s=BEAT_S, first=False,
        ),
    ),
    "child silent": (Situation(
        "a job that keeps its process from answering", causes.silent_child,
        r"^Child \d+ of default has answered nothing for \d+ s; "
        r"it runs parse_address, in hold, tests/ways\.py:\d+", r"Show child \d+ of default",
        then=r"Show stacks, on the page of workers, names its line",
    ),),
    "ended": (Situation(
        "a fault that has ended",
        causes.half_failing,
        # Of "failing", in a run of all, another 20 of 40.
        r"^[24]0 (of [48]0 )?jobs of vat_report (failed|gave up) with PermanentFailure in the last .*; none since",
        r"Triage [24]0 dead letters of vat_report",
        within_s=60.0,
        first=False,
    ),),
    "schedules": (Situation(
        "a schedule is late while a scheduler leads", causes.scheduler_hangs,
        r"^sync_rates was due .* ago and was not sent", r"Show the schedule sync_rates", within_s=BEAT_S, first=False,
    ),),
    "schedule paused": (Situation(
        "a paused schedule", causes.schedule_paused,
        r"^The schedule sync_rates is paused without an end[;,] (it has missed no tick yet|and has missed \d)",
        r"Show the schedule sync_rates", within_s=BEAT_S, first=False,
    ),),
    "clock": (Situation(
        "a host's clock is 61 s ahead", causes.clock_ahead,
        r"^Of the clocks: the clock of web-3 is (59|6\d) s ahead of the broker's", r"Show every worker", first=False,
    ),),
    "uneven host": (Situation(
        "one host's children are killed again and again", causes.uneven_host,
        r"^The pool urgent on web-4 \(pid \d+\) has replaced children within the last hour: 3 × SIGKILL",
        r"Show every worker", first=False,
    ),),
    "disk full": (Situation(
        "the disk of the state folder is full", causes.disk_full, r"^Of the disk: 4 MB of 67 MB free", "", first=False,
    ),),
    "locked": (Situation(
        "another process holds the database's write lock", causes.locked,
        r"^The database is locked, by pid \d+ \(.*python.*\): nothing can be written", r"Show every worker",
        then=r"^(?!.*(?<!; )more slots in)Let pid \d+ end its transaction",
    ),),
    "database gone": (Situation(
        "the database is away", causes.database_gone, r"^The database: the SQLite file does not exist",
        r"Check the database again",
    ),),
    "no room": (Situation(
        "the broker's memory is full", causes.no_room,
        r"^Nothing starts and new jobs are refused, because the broker accepts no work: its memory is full",
        r"Check the broker again",
    ),),
    "evicting": (Situation(
        "the broker is configured as a cache", causes.evicting, r"^The broker is not safe: maxmemory-policy is",
        r"Check the broker again",
    ),),
    "replica": (Situation(
        "the broker became a replica", causes.replica,
        r"^Nothing starts and new jobs are refused, because the broker accepts no work: it is a replica",
        r"Check the broker again",
    ),),
    "overwritten": (Situation(
        "another program writes to the broker's keys", causes.overwritten,
        r"^The broker is not safe: something else wrote to 1 key of the broker: \S+bodies holds what it never does",
        r"Check the broker again",
    ),),
    "broker stopped": (Situation(
        "the broker is stopped (SIGSTOP)", causes.broker_stopped,
        r"^No job can be sent or seen from here, because the broker (does not answer|has not answered for)",
        r"Check the broker again",
    ),),
    "broker away": (Situation(
        "the broker is away", causes.broker_killed,
        r"^No job can be sent or seen from here, because the broker does not answer", r"Check the broker again",
    ),),
}  # fmt: skip
POSTGRES: tuple[Situation, ...] = (
    Situation(
        "a table of PostgreSQL is locked", causes.table_locked,
        r"^The database is locked, by pid \d+ \(a shell, .*\): \d+ quer(y waits|ies wait) for the lock, the longest",
        r"Show every worker", then=r"^(?!.*(?<!; )more slots in)End that transaction: `psql",
    ),
    Situation(
        "another program holds the connections of PostgreSQL", causes.connections_taken,
        r"^The database: the server has no connection left \(max_connections\); \d+ (is|are) ours, \d+ (is|are) not "
        r"\(most of importer\), counted .* ago\.", "", then=r"^As a superuser, find whose they are",
    ),
    Situation(
        "PostgreSQL is stopped", causes.postgres_stopped, r"^Of the database: the database does not answer",
        r"Check the database again",
    ),
    Situation(
        "PostgreSQL stands still (SIGSTOP)", causes.postgres_stands_still,
        r"^Of the database: the database (does not answer|has not answered after)", r"Check the database again",
        within_s=BEAT_S,
    ),
)  # fmt: skip
SITUATIONS = [situation for group in (*GROUPS.values(), POSTGRES) for situation in group]
# Situations that take long to make or to end, or whose finding other tests have, run with ``bin/test --long``.
LONG = (
    *("a little late", "retry storm", "fan-out", "ended", "schedule paused", "clock", "uneven host", "disk full"),
    *("broker stopped", "evicting", "replica"),
)
