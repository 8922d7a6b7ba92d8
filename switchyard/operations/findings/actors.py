"""Actors whose jobs fail: how many, since when, with which cause, what they share, and the host that is down."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Max, Min
from django.utils import timezone

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.stores.job_record import holder_of
from switchyard.console.formatting import ago, counted, duration
from switchyard.dead_letters.models import DeadLetter
from switchyard.history.models import AttemptRow, JobRow
from switchyard.history.queries import stored_arguments
from switchyard.jobs.pauses import LARGEST_NUMBER
from switchyard.operations.findings.finding import Button, Finding, FindingGroup, jobs_button

# Share of an actor's failures from which they are of one kind.
MOST: Final = 0.8


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One kind of errors.

    Args:
        pattern: Found in the exception's name and message.
        because: End of a sentence after "because"; "" for a host that is down.
        then: What to do about it, a sentence.
    """

    pattern: re.Pattern[str]
    because: str
    then: str


def _kind(pattern: str, because: str, then: str) -> ErrorKind:
    return ErrorKind(re.compile(pattern, re.IGNORECASE), because, then)


# Status of an answer, as urllib3, requests, httpx and this project write it.
_STATUS: Final = r"(?:answered|HTTP(?: Error)?|status(?: code)?:?|code|error '|^\w+: )\s*\(?"
KINDS: Final = (
    _kind(r"certificate has expired", "a certificate has expired",
          "Renew the certificate of the server that it calls."),
    _kind(r"certificate.verify.failed|certificate is not trusted", "a certificate is not trusted",
          "Compare the server's certificate and its name with the authorities that the workers trust."),
    _kind(r"NameResolution|gaierror|name resolution|name or service not known|getaddrinfo|name has no address",
          "a host's name is not found", "Look the name up on a worker's host: `getent hosts NAME`. The DNS, or "
          "the name in the settings, is wrong."),
    _kind(r"could not (extend|write) (file|block|to)|database or disk is full", "the database's disk is full",
          "Run `df -h` on the database's host, and free space there."),
    _kind(r"database (table )?is locked|lock timeout|deadlock detected", "what it writes was locked",
          "Look for what holds a transaction open: `manage.py switchyard doctor` names it while it lasts."),
    _kind(r"read-only transaction|readonly database", "the database takes no writes",
          "It is a standby, or was made read-only: let DATABASE_URL name the primary."),
    _kind(r"permission denied for (table|sequence|schema)", "the database refuses its user a right",
          "As the owner of the tables, `GRANT` it to the user of DATABASE_URL."),
    _kind(r"errno 28\b|no space left|quota exceeded", "a disk of its workers is full",
          "Run `df -h` on the worker's host, `/tmp` too, and free space there."),
    _kind(r"errno 24\b|too many open files", "its processes have too many files open",
          "Look for files or connections that its process opens and never closes."),
    _kind(r"errno 12\b|MemoryError|cannot allocate memory", "its workers get no more memory",
          "Compare what the job loads at once with `memory_limit_bytes` of its pool, and the memory of its host."),
    _kind(r"no such (table|column)|Undefined(Table|Column)|(relation|column|table) \S+ (does not|doesn't) exist",
          "the database lacks a table or a column", "A migration is missing, or a newer release's was run, or workers "
          "use another database: compare `manage.py showmigrations` with their release and settings."),
    _kind(r"TypeError.*(required .*argument|unexpected keyword argument|takes .* argument)|ArgumentMismatch",
          "its arguments do not fit its signature", "Senders and workers have different releases: give a new argument "
          "a default, deploy that, then requeue."),
    _kind(rf"{_STATUS}(401|403|407)\b|unauthorized|\b53[05] 5\.7|authentication (failed|required)|login failed",
          "its login or its rights are refused", "Check key, token or password that the workers use; a retry does not "
          "help."),
    _kind(r"(smtp|mail).*\(4[25]\d\b", "the mail server puts it off",
          "Its answer tells why: a quota, a full disk of its own, greylisting. Retries go on by themselves."),
    _kind(rf"{_STATUS}429\b|too many requests", "it calls too often", "Give it a `rate_limit` below what it may."),
    _kind(rf"{_STATUS}(404|410)\b", "nothing is at the address that it calls", "Correct the address in the settings."),
    _kind(rf"{_STATUS}4\d\d\b", "what it sends is refused", "Compare what it sends with what the server expects."),
)  # fmt: skip


_DOWN: Final = re.compile(
    rf"{_STATUS}5\d\d\b|refused|reset|unreachable|no route|time[d ]?-?out|deadline|disconnected|closed|aborted"
    "|not done after|not reached|no answer|ConnectError|ConnectionError|max retries",
    re.IGNORECASE,
)


def is_down(errors: Sequence[str]) -> bool:
    """Return whether most of some errors say that what is called gives no answer, or that it has a fault of its own."""
    return sum(_DOWN.search(error) is not None for error in errors) >= MOST * len(errors)


def kind_of(errors: Iterable[str]) -> ErrorKind | None:
    """Return the kind that most of some errors are of; ``None`` where none stands out."""
    found: Counter[ErrorKind | None] = Counter()
    for error, count in Counter(errors).items():
        found[next((kind for kind in KINDS if kind.pattern.search(error)), None)] += count
    kind, count = next(iter(found.most_common(1)), (None, 0))
    return kind if count >= MOST * found.total() else None


GROUP = FindingGroup("actors")
WINDOW_MS: Final = 5 * 60_000
RECENT: Final = timedelta(minutes=10)
# A fault without a failure for so long is told in the past; sooner where every job of it has succeeded since, or where
# so many others succeeded that several of them would have failed.
ENDED_MS, MENDED_MS, MISSING = 45_000, 10_000, 5
FEWEST, LEAST_SHARE = 5, 0.1
# Enough where the failures have something in common.
LEAST_COMMON_SHARE: Final = 0.05
ONE_HOST: Final = 0.8
# Share of some jobs that is called all of them.
NEARLY_ALL: Final = 0.9
# Actors whose failed and other jobs are compared, how many of both, and values that are named.
MOST_COMPARED, COMPARED_FAILED, COMPARED, NAMED_VALUES = 5, 100, 300, 3
MOST_ROWS: Final = 2_000
# Errors of one actor that are told, those of the newest failures.
MOST_ERRORS: Final = 3
# Of an error, which may be the long answer of a foreign server.
SEARCHED: Final = 500
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})"
# ``host: fact; remedy``, as outgoing requests of this project fail; and the forms of urllib3, requests and httpx.
_HOSTS = (
    re.compile(rf"(?<![\w.-])(?P<host>(?:{_LABEL}\.)+{_LABEL}(?::\d+)?|localhost(?::\d+)?): (?P<fact>[^;\n]{{1,80}})"),
    re.compile(r"host='(?P<host>[^']{1,253})'(?:, port=(?!80\b|443\b)(?P<port>\d+))?"),
    re.compile(r"https?://(?:[^/@\s]*@)?(?P<host>[^/\s'\"?#)]{1,253})"),
)


@dataclass(frozen=True, slots=True)
class FailingActor:
    """Failures of an actor within the window, with one exception or because of one host.

    Args:
        failed: Jobs with an attempt that failed, retried ones too; ``jobs`` all that ran.
        jobs_since: Those that ran since the first of them, where nearly all of these failed; 0 elsewhere. ``during``
            those that ended between the first of them and the last.
        host: Host that most failures name, or ""; ``fact`` what it did.
        letters: Open dead letters of the largest ``fingerprint``: of the failed jobs, or of the last ten minutes.
        common: Property that the failed jobs have and no other of the actor, as ``customer_id 7, 27``; "" for none.
        kind: Kind of most of the errors, if it is known; ``down``: they say that what is called does not serve.
        mended: Failed jobs that succeeded in a retry, or requeued; ``passed`` others, since the last failure.
    """

    actor: str
    queue: str
    exception: str
    failed: int
    jobs: int
    first_at: datetime
    last_at: datetime
    host: str = ""
    fact: str = ""
    letters: int = 0
    fingerprint: str = ""
    common: str = ""
    jobs_since: int = 0
    during: int = 0
    kind: ErrorKind | None = None
    down: bool = False
    mended: int = 0
    passed: int = 0

    @property
    def ended(self) -> bool:
        """Whether none failed lately."""
        is_mended = self.mended == self.failed and not self.letters
        is_over = is_mended or self.passed * self.failed >= MISSING * max(self.during or self.jobs, 1)
        after_ms = MENDED_MS if is_over else ENDED_MS
        return (timezone.now() - self.last_at) > timedelta(milliseconds=after_ms)


def look() -> Iterator[Finding]:
    """Judge the failures of the last minutes, from the history and the dead letters."""
    yield from _poison()
    for found in failing_actors():
        yield judge(found)


def failing_actors() -> list[FailingActor]:
    """Return the actors with enough failures for a finding, the most failures first."""
    since = now_ms() - WINDOW_MS
    columns = ("actor", "queue", "error_type", "error_message", "failed_at", "pk", "state")
    failed = JobRow.objects.filter(failed_at__gte=since).order_by("-failed_at", "-id")
    rows, letters = list(failed.values_list(*columns)[:MOST_ROWS]), _letters()
    found: list[FailingActor] = []
    for actor in dict.fromkeys([row[0] for row in rows] + list(letters)):
        mine = [row for row in rows if row[0] == actor]
        dead = letters.get(actor, [])
        jobs = JobRow.objects.filter(actor=actor, finished_at__gte=since).count() if len(mine) >= FEWEST else 0
        share = len(mine) / max(jobs, 1) if len(mine) >= FEWEST else 0.0
        compared = share < 1 and (share >= LEAST_COMMON_SHARE or (dead and share > 0)) and len(found) < MOST_COMPARED
        for failures, gave_up in _by_error(mine, dead):
            common = common_of(actor, [row[5] for row in failures], since) if compared and failures else ""
            if common.startswith("process ") and failures[0][2] == "Poison":
                common = ""  # what ends its process runs in one of its own, by then
            alike, jobs_since = _all_since(actor, failures, jobs)
            if share >= LEAST_SHARE or common or dead or jobs_since:
                told = _failing(actor, alike, gave_up, max(jobs, len(mine)), common, jobs_since)
                if told.ended and jobs_since:  # of the past, all are told: it is over for all of them
                    told = _failing(actor, failures, gave_up, max(jobs, len(mine)), common)
                found.append(told)
    return sorted(found, key=lambda one: (one.ended, -one.failed, -one.letters))


def _all_since(actor: str, failures: Sequence[_Row], jobs: int) -> tuple[Sequence[_Row], int]:
    """Return those of some failures since which nearly all of an actor's jobs fail, and how many of these there are.

    All failures, and 0, where it is not so. Failures of an earlier outbreak are no part of a later one.
    """
    if len(failures) < FEWEST or len(failures) >= NEARLY_ALL * jobs:
        return failures, 0
    first, last = (of(row[4] or 0 for row in failures) for of in (min, max))
    # Without those that the history has got since the failures were read. A job stands at its failure, when a retry
    # of it has succeeded, too.
    rows = JobRow.objects.filter(actor=actor, finished_at__gte=first).exclude(failed_at__gt=last)
    ends = rows.order_by("-finished_at", "-id").values_list("finished_at", "failed_at")[:COMPARED]
    newest = sorted(((b or a, b is not None) for a, b in ends), reverse=True)
    count = _outbreak([has_failed for _, has_failed in newest])
    latest = [row for row in failures if count and (row[4] or 0) >= newest[count - 1][0]]
    return (latest, count) if len(latest) >= max(FEWEST, NEARLY_ALL * count) else (failures, 0)


def _outbreak(failed: Sequence[bool]) -> int:
    """Return how many of the newest jobs, the newest first, nearly all failed, back to the failure that began it."""
    sums = enumerate(accumulate(failed), 1)
    return max((number for number, count in sums if failed[number - 1] and count >= NEARLY_ALL * number), default=0)


def _onset(actor: str, failures: Sequence[_Row], first_at: datetime) -> datetime:
    """Return the first failure of some jobs, of whose rows each has its last, after the last success before them."""
    jobs = JobRow.objects.filter(pk__in=[row[5] for row in failures]).values("job_id")
    rows = JobRow.objects.filter(actor=actor, failed_at=None, finished_at__lt=int(first_at.timestamp() * 1_000))
    since = rows.aggregate(at=Max("finished_at"))["at"] or 0
    failed = AttemptRow.objects.filter(job_id__in=jobs, finished_at__gt=since).exclude(error_type="")
    onset = failed.aggregate(at=Min("finished_at"))["at"]
    return first_at if onset is None else min(first_at, datetime_of(onset))


_Row = tuple[str, str, str, str, "int | None", int, str]
_Letter = tuple[str, str, str, str, str, datetime]


def _letters() -> dict[str, list[_Letter]]:
    rows = DeadLetter.objects.filter(is_open=1, died_at__gt=timezone.now() - RECENT).exclude(reason="poison")
    rows = rows.order_by("-died_at")
    found: dict[str, list[_Letter]] = {}
    for row in rows.values_list("actor", "queue", "exception", "error", "fingerprint", "died_at")[:MOST_ROWS]:
        found.setdefault(row[0], []).append(row)
    return found


def _by_error(rows: Sequence[_Row], dead: Sequence[_Letter]) -> Iterator[tuple[Sequence[_Row], Sequence[_Letter]]]:
    """Yield failures of an actor by exception, those of the newest first; together where a host causes them all."""
    counts = Counter(row[2] for row in rows)
    gave_up = Counter(letter[2] for letter in dead)
    names = [name for name in dict.fromkeys([*counts, *gave_up]) if counts[name] >= FEWEST or gave_up[name]]
    if not names or blamed([(row[2], row[3]) for row in rows])[0]:
        yield rows, dead
        return
    for name in names[:MOST_ERRORS]:
        yield [row for row in rows if row[2] == name], [letter for letter in dead if letter[2] == name]


def _failing(
    actor: str, rows: Sequence[_Row], dead: Sequence[_Letter], jobs: int, common: str, jobs_since: int = 0
) -> FailingActor:
    if many := len(rows) >= FEWEST:  # those that gave up are among the jobs that failed
        since = datetime_of(now_ms() - WINDOW_MS)
        dead = [letter for letter in dead if letter[5] >= since]
    # The history may be a moment behind; fewer failures than are told for themselves are not counted beside letters.
    failed = max(len(rows), len(dead)) if many or not dead else 0
    moments = [datetime_of(row[4]) for row in rows if row[4] is not None] + [letter[5] for letter in dead]
    first, last = (int(at.timestamp() * 1_000) for at in (min(moments), max(moments)))
    ran = JobRow.objects.filter(actor=actor)
    exceptions = Counter(row[2] for row in rows) or Counter(letter[2] for letter in dead)
    exception = f"{len(exceptions)} kinds of errors" if len(exceptions) > 1 else (next(iter(exceptions)) or "an error")
    errors = [(row[2], row[3]) for row in rows] or [(letter[2], letter[3]) for letter in dead]
    host, fact, kind, down = blamed(errors)
    fingerprint = Counter(letter[4] for letter in dead).most_common(1)[0][0] if dead else ""
    return FailingActor(
        actor=actor,
        queue=(rows[0] if rows else dead[0])[1],
        exception=exception,
        failed=failed,
        jobs=max(jobs, failed),
        first_at=_onset(actor, rows, min(moments)) if jobs_since else min(moments),
        last_at=max(moments),
        host=host,
        fact=fact,
        letters=sum(letter[4] == fingerprint for letter in dead),
        fingerprint=fingerprint,
        common=common,
        kind=kind,
        down=down,
        mended=sum(row[6] == "succeeded" for row in rows),
        passed=ran.filter(failed_at=None, finished_at__gt=last).count(),
        during=max(ran.filter(finished_at__gte=first, finished_at__lte=last).count(), failed),
        jobs_since=jobs_since and max(jobs_since, failed),
    )


def common_of(actor: str, failed: Sequence[int], since: int) -> str:
    """Return what an actor's failed jobs have in common and none of its others has; "" for nothing.

    The newest that failed, by the keys of their rows, are compared with the newest that ended since and did not fail.
    """
    columns = "job_id", "arguments", "release", "worker", "failed_at"
    failures = list(JobRow.objects.filter(pk__in=failed[:COMPARED_FAILED]).values_list(*columns))
    first_at = min((row[4] or 0 for row in failures), default=0)
    # Later attempts run in the pool of retries, which no other job has seen.
    first = AttemptRow.objects.filter(job_id__in=[row[0] for row in failures], attempt=1)
    began = {id_: (release, worker) for id_, release, worker in first.values_list("job_id", "release", "worker")}
    bad = [_traits(row[1], *began.get(row[0], ("", ""))) for row in failures]
    rows = JobRow.objects.filter(actor=actor, finished_at__gte=since).order_by("-finished_at", "-id")
    # Where others ran says something only of those that ran meanwhile: processes end, and others follow.
    good = [
        {name: value for name, value in _traits(*row[1:4]).items() if name not in _PLACES[1:] or row[5] >= first_at}
        for row in rows.values_list(*columns, "finished_at")[:COMPARED]
        if row[4] is None
    ]
    names = dict.fromkeys(name for traits in bad for name in traits)
    found = [(len(values), name, values) for name in names if (values := _only(name, bad, good))]
    # An argument explains more than where it ran; of several the one with the fewest values, in the order of a call.
    found.sort(key=lambda one: (_PLACES.index(one[1]) if one[1] in _PLACES else -1, one[0]))
    return next((f"{name} {', '.join(values)}" for _, name, values in found), "")


# Properties beside the arguments, the likeliest cause first: a new release runs in new processes.
_PLACES: Final = ("release", "host", "process")


def _traits(arguments: str, release: str, worker: str) -> dict[str, str]:
    holder = holder_of(worker)
    places = dict(zip(_PLACES, (release, holder.host, holder.name), strict=True))
    known = {name: str(value) for name, value in (stored_arguments(arguments) or {}).items() if is_plain(value)}
    return known | {name: value for name, value in places.items() if value}


def is_plain(value: Any) -> bool:
    """Return whether an argument's value may stand in a sentence, which all see that see the room: a whole number.

    A number names a row and says nothing more; a text may be an address or a name of a person.
    """
    return type(value) is int and abs(value) < LARGEST_NUMBER


def _only(name: str, bad: Sequence[Mapping[str, str]], good: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the few values that nearly all failed jobs have and no other job; none where there are no such."""
    values = Counter(traits[name] for traits in bad if name in traits).most_common(NAMED_VALUES)
    others = [traits[name] for traits in good if name in traits]
    named = [value for value, _ in values]
    if len(others) < FEWEST or sum(count for _, count in values) < NEARLY_ALL * len(bad) or {*named} & {*others}:
        return []
    return named


@dataclass(frozen=True, slots=True)
class AllFailing:
    """Newest jobs of an actor, of which nearly all failed.

    Args:
        since: Start of the first of them, in ms since the epoch.
        slow: They failed after a second or more, as those do that wait for an answer.
        host: Host that is down by most failures, or ""; ``fact`` what it did.
        kind: Kind of most of the errors, if it is known.
    """

    failed: int
    jobs: int
    since: int
    exception: str
    slow: bool
    host: str
    fact: str
    kind: ErrorKind | None = None


# Newest jobs that have to fail, fewer where there are no more, but at least as many as the second number.
LATEST, LEAST_LATEST, SLOW_MS = 10, 4, 1_000
ENDED: Final = ("succeeded", "retrying", "dead")


def all_failing(actors: Iterable[str]) -> dict[str, AllFailing]:
    """Return those of some actors of which nearly all of the newest jobs failed, within the last five minutes."""
    found: dict[str, AllFailing] = {}
    columns = ("state", "finished_at", "run_ms", "error_type", "error_message")
    for actor in actors:
        rows = JobRow.objects.filter(actor=actor, finished_at__gte=now_ms() - WINDOW_MS, state__in=ENDED)
        newest = list(rows.order_by("-finished_at", "-id").values_list(*columns)[:COMPARED_FAILED])
        has_failed = [row[0] != "succeeded" for row in newest]
        if len(newest) < LEAST_LATEST or sum(has_failed[:LATEST]) < NEARLY_ALL * len(has_failed[:LATEST]):
            continue
        count = _outbreak(has_failed)
        failed = [row for row in newest[:count] if row[0] != "succeeded"]
        [(exception, _)] = Counter(row[3] or "an error" for row in failed).most_common(1)
        slow = median(row[2] or 0 for row in failed) >= SLOW_MS
        host, fact, kind, down = blamed([(row[3], row[4]) for row in failed])
        since = failed[-1][1] - (failed[-1][2] or 0)
        found[actor] = AllFailing(len(failed), count, since, exception, slow, host if down else "", fact, kind)
    return found


def blamed(errors: Sequence[tuple[str, str]]) -> tuple[str, str, ErrorKind | None, bool]:
    """Return the host that most of some errors are about, what it did, their kind, and whether the host is down.

    A host in an error of no known kind, that does not say that it is down, may be the address of a manual.
    """
    texts = [f"{name}: {error[:SEARCHED]}" for name, error in errors]
    kind, down = kind_of(texts), is_down(texts)
    host, fact = host_of(error for _, error in errors) if kind is not None or down else ("", "")
    return host, fact, kind, down and kind is None


def host_of(errors: Iterable[str]) -> tuple[str, str]:
    """Return the host that most of some errors name, and what it did; ("", "") where no host stands out."""
    hosts: Counter[str] = Counter()
    facts: dict[str, str] = {}
    total = 0
    for error, count in Counter(error[:SEARCHED] for error in errors).items():
        total += count
        match = next((match for form in _HOSTS if (match := form.search(error))), None)
        if match is not None:
            found = match.groupdict()
            hosts[host := ":".join(filter(None, (found["host"], found.get("port"))))] += count
            facts.setdefault(host, found.get("fact") or "")
    if not hosts:
        return "", ""
    [(host, count)] = hosts.most_common(1)
    return (host, facts[host]) if count >= FEWEST and count >= ONE_HOST * total else ("", "")


def share_text(failed: int, jobs: int) -> str:
    """Return a share of jobs as the subject of a sentence: ``half of``, ``all``, ``31 % of``."""
    share = failed / max(jobs, 1)
    if failed == jobs or 0.45 <= share <= 0.55:
        return "all of" if failed == jobs else "half of"
    return f"{min(round(share * 100), 99)} % of" if share >= 0.01 else "less than 1 % of"


def judge(found: FailingActor) -> Finding:
    if found.ended:
        return _ended(found)
    gave_up = f", {found.letters:,} gave up" if found.letters else ""
    because = f", because {found.kind.because}" if found.kind is not None else ""
    remove = found.kind.then if found.kind is not None else "Remove the cause: its traceback names the line."
    rest = "Jobs are retried by themselves; what gave up waits in the dead letters until you requeue it."
    then = f"{remove} {rest}"
    if found.host:
        fact = f" ({found.fact})" if found.fact else ""
        those = f"{found.failed:,} of {found.jobs:,}" if found.failed else f"{found.letters:,}"
        code, what = "failing", f"{found.actor} fails at {found.host}{because or fact}"
        if found.down:
            code, what, then = "host_down", f"{found.host} is down for {found.actor}{fact}", rest
        seen = f"{what}: {those} jobs failed in the last 5 min"
    elif found.failed >= FEWEST:
        jobs, fail, when = found.jobs, "failed", "in the last 5 min"
        if found.jobs_since:
            jobs, fail, when = found.jobs_since, "fail", f"since {found.first_at:%H:%M:%S} UTC"
        what = f"{share_text(found.failed, jobs)} {found.actor}'s jobs {fail} with {found.exception}{because}"
        seen = f"{what}: {found.failed:,} of {jobs:,} {when}"
        code = "failing"
    else:
        those, gave_up = counted(found.letters, "job"), ""
        seen = f"{those} of {found.actor} gave up in the last 10 min with {found.exception}{because}"
        then = f"{remove} Then requeue the letters, or discard them."
        code = "gave_up"
    mended = f", {found.mended:,} succeeded later" if found.mended else ""
    common = f"; only {found.common}: all of theirs" if found.common else ""
    return _finding(found, code, f"{seen}{gave_up}{mended}{common}", then)


def _ended(found: FailingActor) -> Finding:
    # Of a few failures it was not counted how many jobs ran beside them.
    few = counted(found.failed or found.letters, "job")
    many = f"{found.failed:,} of {found.jobs:,} jobs" if found.failed >= FEWEST else few
    gave_up = f", {found.letters:,} gave up" if found.letters and found.failed else ""
    mended = f", {found.mended:,} succeeded later" if found.mended else ""
    verb, window = ("failed", 5) if found.failed else ("gave up", 10)
    since = duration((timezone.now() - found.last_at).total_seconds() * 1_000)
    last = f"the last at {found.last_at:%H:%M:%S} UTC{gave_up}{mended}; none since, for {since}"
    seen = f"{many} of {found.actor} {verb} with {found.exception} in the last {window} min, {last}"
    then = "The failures have ended. Requeue the letters, if there are any, once you know the cause."
    return _finding(found, "failed_before", seen, then)


def _finding(found: FailingActor, code: str, seen: str, then: str) -> Finding:
    if found.letters:
        label = f"Triage {counted(found.letters, 'dead letter')} of {found.actor}"
        button = Button(label, "switchyard-letters", query=f"?{urlencode({'fingerprint': found.fingerprint})}")
        step = f"manage.py switchyard deadletters list --group {found.fingerprint}"
    else:
        button, step = failures_list(found.actor, f"Show {found.failed:,} failed jobs of {found.actor}")
    actor, letters, factor = found.actor, found.letters, float(found.failed or found.letters)
    return GROUP.warning(
        code, seen, "", step, found.queue, then=then, button=button, factor=factor, actor=actor, letters=letters
    )


def failures_list(actor: str, label: str) -> tuple[Button, str]:
    """Return the button and the command that lead to an actor's failures of the last minutes."""
    step = f"manage.py switchyard jobs list --failures --actor {actor} --since 5m"
    return jobs_button(label, failures="1", actor=actor, since="5m"), step


def _poison() -> Iterator[Finding]:
    poison = DeadLetter.objects.filter(is_open=1, reason="poison", died_at__gt=timezone.now() - RECENT)
    rows = list(poison.order_by("-died_at").values_list("pk", "message_id", "actor", "queue", "died_at")[:MOST_ROWS])
    for actor in dict.fromkeys(row[2] for row in rows):
        (pk, id_, _, queue, died_at), *others = [row for row in rows if row[2] == actor]
        count = len(others) + 1
        seen = f"the job {id_} of {actor} ended its worker again and again, and was given up as poison {ago(died_at)}"
        then = "It runs no more. The worker is back; look at what the job does before you requeue it."
        if others:
            seen = f"{count:,} jobs of {actor} ended their workers again and again, the last given up {ago(died_at)}"
            then = "They were given up as poison, and others may follow: pause"
            then += f" {actor} if they do. Look at one of them."
        cause = "Its task crashes the process, or uses too much memory"
        step = f"manage.py switchyard deadletters show {id_}"
        button = Button(f"Look at the poison job of {actor}", "switchyard-letter", str(pk))
        yield GROUP.warning("poison", seen, cause, step, queue, then=then, button=button, actor=actor, letters=count)
