"""Kinds of errors that jobs fail with, told by an exception's name and message: their words, and what mends them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

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
