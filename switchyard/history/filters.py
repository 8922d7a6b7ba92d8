"""The filter of lists of jobs: the same names in a page's address, in the API and in commands."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import dramatiq

from switchyard.broker.stores.job_records import STEPS
from switchyard.console.formatting import iso, time_ms
from switchyard.database import storable

LONGEST_VALUE: Final = 200
# Not a name that an argument can have.
TAG: Final = "#tag"


def search_text(value: Any) -> str | None:
    """Return a value as it is compared: text (a digest of a long one), other scalars as JSON; ``None`` for the rest."""
    if value is None or not isinstance(value, str | int | float | bool):
        return None
    text = storable(value) if isinstance(value, str) else json.dumps(value)
    if len(text) <= LONGEST_VALUE:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def searched_names(actor: str) -> tuple[str, ...]:
    """Return the names of arguments that an actor lists in ``search``; none of an actor that is unknown here."""
    declared = dramatiq.get_broker().actors.get(actor)
    return tuple(declared.options.get("search", ())) if declared is not None else ()


def why_none_found(argument: tuple[str, str] | None, actor: str = "") -> str:
    """Return why no ended job can be found by an argument: no actor, or not the one, lists it; empty when one does."""
    if argument is None:
        return ""
    name = argument[0]
    if any(name in searched_names(each) for each in ([actor] if actor else dramatiq.get_broker().actors)):
        return ""
    who = f"{actor} does not list" if actor else "no actor lists"
    return f'{who} {name} in search=("{name}",), so jobs that have ended are not found by it'


LONGEST_TEXT: Final = 255
TEXTS: Final = ("actor", "queue", "owner", "parent", "tag", "error", "fingerprint", "release", "waited", "ran")
TIMES: Final = ("since", "until")
MILLISECONDS: Final = re.compile(r"[0-9]{0,12}-[0-9]{0,12}", re.ASCII)
_FLAGS: Final = {"": False, "0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on jobs, all of which must hold. An empty one holds for every job.

    Args:
        states: States as in job records; empty for all. In the history alone, those that have ended.
        argument: Name and exact value of an argument that the actor lists in ``search``.
        error: The class of the last failure's exception, or a part of its text.
        since, until: Time of the end, or of the failure with ``failures``: ISO 8601, or ``30m``, ``1h``, ``7d`` ago.
            ``until`` itself is left out.
        waited, ran: Milliseconds from enqueue to the last start, and of the last attempt: ``80-320`` for more than 80
            and up to 320, ``80-`` and ``-320`` without an end.
        failures: Jobs with an attempt that failed, also those that were retried.
    """

    states: tuple[str, ...] = ()
    actor: str = ""
    queue: str = ""
    owner: str = ""
    parent: str = ""
    tag: str = ""
    argument: tuple[str, str] | None = None
    error: str = ""
    fingerprint: str = ""
    release: str = ""
    waited: str = ""
    ran: str = ""
    since: str = ""
    until: str = ""
    failures: bool = False

    @classmethod
    def from_query(cls, query: Mapping[str, Any], *, ignore: Iterable[str] = ("after", "limit")) -> Filter:
        """Return the filter in a request's query: ``state`` (repeated, or with commas), ``argument`` as ``name=value``.

        ``ValueError`` where a name or a value is unusable: a bulk act must not hit more than its address says.

        Args:
            query: Texts, or sequences of them, by name; a ``QueryDict`` too.
            ignore: Names that belong to the page.
        """
        given = {name: _values(query, name) for name in query if name not in set(ignore)}
        known = ("state", "argument", "failures", *TEXTS, *TIMES)
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"{unknown[0]}: is not a filter; write one of {', '.join(known)}")
        values: dict[str, Any] = {name: _text(name, _one(name, given)) for name in (*TEXTS, *TIMES)}
        since, until = (time_ms(name, values[name]) for name in TIMES)
        if since and until and since > until:
            raise ValueError(f"since: {values['since']!r} is later than until, {values['until']!r}")
        for name in ("waited", "ran"):
            low, _, high = (span := values[name]).partition("-")
            if span and (span == "-" or not MILLISECONDS.fullmatch(span) or (low and high and int(low) >= int(high))):
                raise ValueError(f"{name}: {span!r:.40} is no range of milliseconds; write 80-320, 80- or -320")
        if (flag := _one("failures", given)) not in _FLAGS:
            raise ValueError(f"failures: {flag!r:.100} is neither 0 nor 1")
        return cls(
            states=_states(given.get("state", ())),
            argument=_argument(_one("argument", given)),
            failures=_FLAGS[flag],
            **values,
        )

    def to_query(self) -> dict[str, str]:
        """Return what :meth:`from_query` reads, without the conditions that are empty."""
        query = {"state": ",".join(self.states)} | {name: getattr(self, name) for name in (*TEXTS, *TIMES)}
        if self.argument is not None:
            query["argument"] = "=".join(self.argument)
        query["failures"] = "1" if self.failures else ""
        return {name: value for name, value in query.items() if value}

    def fixed(self) -> Filter:
        """Return the filter with the times of today in place of ``1h`` ago, for an act that takes a while."""
        since, until = ("" if at is None else iso(at, "milliseconds") for at in (self.since_ms, self.until_ms))
        return replace(self, since=since, until=until)

    @property
    def since_ms(self) -> int | None:
        """``since`` in ms since the epoch."""
        return time_ms("since", self.since)

    @property
    def until_ms(self) -> int | None:
        """``until`` in ms since the epoch."""
        return time_ms("until", self.until)

    def span_ms(self, name: str) -> tuple[int | None, int | None]:
        """Return the bounds of ``waited`` or ``ran`` in ms: longer than the first, up to the second."""
        low, _, high = str(getattr(self, name)).partition("-")
        return int(low) if low else None, int(high) if high else None

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return any(getattr(self, field.name) != field.default for field in fields(self))


def _values(query: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = query.getlist(name) if hasattr(query, "getlist") else query[name]
    if found is None or isinstance(found, str | bool | int):
        found = () if found is None or found is False else ("1" if found is True else str(found),)
    if not isinstance(found, Sequence) or not all(isinstance(value, str) for value in found):
        raise ValueError(f"{name}: {found!r:.100} is not text")
    return tuple(value for value in found if value != "")


def _one(name: str, given: Mapping[str, tuple[str, ...]]) -> str:
    found = given.get(name, ())
    if len(found) > 1:
        raise ValueError(f"{name}: is given {len(found)} times; give it once, only state may be repeated")
    return found[0] if found else ""


def _text(name: str, value: str) -> str:
    if len(value) > LONGEST_TEXT or not value.isprintable():
        raise ValueError(f"{name}: {value!r:.100} is too long or not printable; at most {LONGEST_TEXT} characters")
    return value


def _states(given: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(state for value in given for state in value.split(",") if state))
    for state in found:
        if state not in STEPS:
            raise ValueError(f"state: {state!r:.100} is not a state; write one of {', '.join(STEPS)}")
    return found


def _argument(value: str) -> tuple[str, str] | None:
    if not value:
        return None
    name, equals, wanted = _text("argument", value).partition("=")
    if not name or not equals:
        raise ValueError(f"argument: {value!r:.100} has no name and value; write argument=customer_id=42")
    return name, wanted
