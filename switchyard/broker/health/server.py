"""Facts of a Redis or Valkey server, findings about those that would lose work, its clock, and the id of its keyspace.

The id is a marker by which workers detect that the server lost its data, or that it is another server. The first
process of a yard that starts on an empty server writes the marker; no process writes it again by itself. A process that
has seen the marker and then finds none, or another one, records that in the keyspace and stops. An operator accepts the
keyspace.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from switchyard.addon import addons
from switchyard.broker.errors import CHECK_THE_ADDRESS, BrokerError, BrokerRefused, BrokerUnavailable
from switchyard.broker.keys import Keys, QueueKeys
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import texts_of
from switchyard.broker.redis.scripts import script
from switchyard.broker.redis.server_errors import reason

Severity = Literal["error", "warning"]

SAFE_POLICY: Final = "noeviction"
OLDEST: Final = {"Redis": (7, 0), "Valkey": (8, 0)}
NEARLY_FULL: Final = 0.9
# Keys that a finding names.
SHOWN: Final = 3
SETTINGS: Final = ("maxmemory-policy", "appendonly", "save")


@dataclass(frozen=True, slots=True)
class ServerFinding:
    """A defect of the server's configuration or state.

    Args:
        code: Short name, such as ``evicting`` or ``nothing_kept``.
        severity: ``error`` when work is or will be lost or refused.
        seen: The fact, as half a sentence. Contains no secret, and no address but that of a node or sentinel.
        remedy: The next step, in one line.
        partial: It stops some queues, while the others go on.
    """

    code: str
    severity: Severity
    seen: str
    remedy: str
    partial: bool = False


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts that a server reports. ``None``: not reported.

    Args:
        append_only: It keeps an append-only file.
        snapshots: When it writes snapshots, as its ``save`` setting; "" for never.
        role: ``master`` or ``slave``.
        max_bytes: Memory it may use; 0 for any.
        disk_refuses: It could not write to its disk, and refuses work for that.
        hidden: Its own words when it does not tell this user everything; "" when it does.
        unfit: Findings of add-ons about it.
    """

    name: str
    version: tuple[int, ...] | None
    policy: str | None
    append_only: bool | None
    snapshots: str | None
    role: str | None
    loading: bool
    used_bytes: int
    max_bytes: int
    disk_refuses: bool
    hidden: str
    uptime_s: int | None = None
    unfit: tuple[ServerFinding, ...] = ()


def read_facts(calls: RedisCalls, *, budget_s: float | None = None) -> ServerFacts:
    """Read a server's facts, within ``budget_s``; ``BrokerUnavailable`` when it does not answer.

    Its settings are asked for only where ``INFO`` does not say enough: the yard's users may not read them.
    """
    [info] = calls.pipeline([("INFO",)], raise_errors=False, budget_s=budget_s)
    if isinstance(info, BrokerUnavailable) or (isinstance(info, bytes) and b"\naof_enabled:1" in info):
        return facts_of(info, [])
    [config] = calls.pipeline([("CONFIG", "GET", *SETTINGS)], raise_errors=False, budget_s=budget_s)
    return facts_of(info, config)


def facts_of(info: bytes | BrokerError, config: Sequence[bytes] | BrokerError) -> ServerFacts:
    """Return the facts in the answers to ``INFO`` and ``CONFIG GET``. Either may be refused to a user.

    Raises:
        BrokerUnavailable: the server answers neither, for example while it loads its data.
    """
    for answer in (info, config):
        if isinstance(answer, BrokerUnavailable):
            raise answer
    hidden = "; ".join(answer.cause[:80] for answer in (info, config) if isinstance(answer, BrokerRefused))
    found = _info(info) if isinstance(info, bytes) else {}
    settings = texts_of(config) if not isinstance(config, BrokerError) else {}
    append_only = found.get("aof_enabled") or {"yes": "1", "no": "0"}.get(settings.get("appendonly", ""))
    return ServerFacts(
        name="Valkey" if "valkey_version" in found else "Redis",
        version=_version(found.get("valkey_version", found.get("redis_version"))),
        policy=found.get("maxmemory_policy", settings.get("maxmemory-policy")),
        append_only=None if append_only is None else append_only == "1",
        snapshots=settings.get("save"),
        role=found.get("role"),
        loading=found.get("loading") == "1",
        used_bytes=int(found.get("used_memory", 0)),
        max_bytes=int(found.get("maxmemory", 0)),
        disk_refuses=found.get("aof_last_write_status", "ok") != "ok",
        hidden=hidden,
        uptime_s=int(found["uptime_in_seconds"]) if "uptime_in_seconds" in found else None,
        unfit=tuple(item for addon in addons() if (judged := addon.load("judge")) for item in judged(found)),
    )


def judge(facts: ServerFacts, *, production: bool) -> list[ServerFinding]:
    """Return what is wrong with a server, worst first. One outside of production may do without persistence."""
    found = [*_unfit(facts), *_busy(facts), *(_forgetful(facts) if production else ())]
    if facts.hidden and (facts.policy is None or facts.append_only is None):
        seen = f"the server refuses to show its settings ({facts.hidden}); eviction and persistence cannot be verified"
        remedy = f"Allow this user `+info`, or make sure of `maxmemory-policy {SAFE_POLICY}` and `appendonly yes`."
        found.append(ServerFinding("unverified", "warning", seen, remedy))
    return sorted(found, key=lambda finding: finding.severity)


def away(error: BrokerError) -> ServerFinding:
    """Return the finding for a server that does not answer. Never its own words: they hold its address."""
    remedy = error.remedy or CHECK_THE_ADDRESS
    why = reason(error.__cause__ or error)
    fact = "refuses the login" if error.kind == "AuthenticationError" else f"does not answer ({why})"
    seen = f"the server {fact}; eviction and persistence were not checked"
    return ServerFinding("away", "warning", seen, f"{remedy[0].upper()}{remedy[1:]}.")


def wrong_types(
    calls: RedisCalls, families: Iterable[QueueKeys], *, also: Sequence[tuple[Word, ...]] = ()
) -> list[ServerFinding]:
    """Return the finding for keys of some families that are of another type than theirs; none for none.

    ``also`` are commands that are sent before it in the same pipeline; their answers are not read.
    """
    expected = [pair for keys in families for pair in keys.kinds()]
    answers = calls.pipeline([*also, *(("TYPE", key) for key, _ in expected)], raise_errors=False)
    wrong = [
        key
        for (key, kind), answer in zip(expected, answers[len(also) :], strict=True)
        if isinstance(answer, bytes) and answer not in (b"none", kind.encode())
    ]
    return foreign(wrong, "error")


def foreign(wrong: Sequence[str], severity: Severity) -> list[ServerFinding]:
    """Return the finding for keys that hold what the yard did not write; none for none."""
    if not wrong:
        return []
    one = len(wrong) == 1
    keys = f"{len(wrong)} {'key' if one else 'keys'} of the broker: {', '.join(wrong[:SHOWN])}"
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    seen = f"something else wrote to {keys}{more} {'holds what it never does' if one else 'hold what they never do'}"
    remedy = "Give Switchyard a server or a database of its own; look at these keys, then delete or rename them."
    return [ServerFinding("wrong_type", severity, seen, remedy)]


def _unfit(facts: ServerFacts) -> Iterator[ServerFinding]:
    if facts.policy not in (None, SAFE_POLICY):
        seen = f"maxmemory-policy is {facts.policy!r}; when memory is full the server would delete waiting messages"
        remedy = (
            f"Set `maxmemory-policy {SAFE_POLICY}` in the server's configuration, or run "
            f"`CONFIG SET maxmemory-policy {SAFE_POLICY}`. Use another server for caches."
        )
        yield ServerFinding("evicting", "error", seen, remedy)
    if facts.version is not None and facts.version < OLDEST[facts.name]:
        version = f"{facts.name} {'.'.join(map(str, facts.version))}"
        seen = f"the server is {version}, whose scripts cannot work off a full server"
        remedy = f"Run Redis {OLDEST['Redis'][0]} or Valkey {OLDEST['Valkey'][0]}, or newer."
        yield ServerFinding("too_old", "error", seen, remedy)
    if facts.role == "slave":
        remedy = "Point SWITCHYARD_BROKER_URL at the primary, or finish the failover."
        yield ServerFinding("replica", "error", "the server is a replica, which only reads", remedy)
    yield from facts.unfit


def _busy(facts: ServerFacts) -> Iterator[ServerFinding]:
    if facts.disk_refuses:
        seen = "the server cannot write to its append-only file and takes no work"
        yield ServerFinding("disk", "error", seen, "Free its disk and look into its log; work then goes on by itself.")
    if facts.loading:
        seen = "the server is still reading its data from disk and answers nothing else"
        yield ServerFinding("loading", "warning", seen, "Wait: work goes on by itself when it is done.")
    if facts.max_bytes and facts.used_bytes >= NEARLY_FULL * facts.max_bytes:
        used = f"{facts.used_bytes:,} of {facts.max_bytes:,} bytes"
        share = int(100 * facts.used_bytes / facts.max_bytes)
        full = "when it is full, new work is refused" if share < 100 else "it is full, and new work is refused"
        seen = f"the server uses {share} % of its memory ({used}); {full}"
        remedy = "Raise `maxmemory`, or let the pools catch up; leave maxmemory-policy alone, any other deletes jobs."
        yield ServerFinding("nearly_full", "warning", seen, remedy)


def _forgetful(facts: ServerFacts) -> Iterator[ServerFinding]:
    remedy = "Set `appendonly yes` and `appendfsync everysec` in the server's configuration."
    if facts.append_only is False and facts.snapshots:
        seen = f"appendonly is off: a restart of the server keeps snapshots only (save {facts.snapshots!r})"
        yield ServerFinding("snapshots_only", "warning", f"{seen} and loses the minutes since the last one", remedy)
    elif facts.append_only is False:
        told = "nothing" if facts.snapshots == "" else "nothing, unless it writes snapshots, which it does not tell"
        yield ServerFinding(
            "nothing_kept", "error", f"appendonly is off, so a restart of the server keeps {told}", remedy
        )


def _info(answer: bytes) -> dict[str, str]:
    lines = str(answer, "utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _version(text: Any) -> tuple[int, ...] | None:
    # A patched build may say "7.2.4-rc1".
    found = re.match(r"\d+(?:\.\d+)*", str(text)) if text is not None else None
    return tuple(map(int, found[0].split("."))) if found else None


State = Literal["ours", "missing", "another", "unmarked"]

ACCEPT = "manage.py switchyard broker accept"
MAKE, ACCEPT_HERE = (script(name, folder="") for name in ("generation_make", "generation_accept"))


class KeyspaceId:
    """One process's memory of the keyspace it works in.

    Args:
        queues: Of the yard: their keys show whether a keyspace is in use.
        marks: Names of the marker and of the missed ids; by default those that are shared by all queues.
    """

    def __init__(
        self, calls: RedisCalls, keys: Keys, queues: Iterable[str], *, marks: tuple[str, str] | None = None
    ) -> None:
        self.seen = ""
        self.state: State = "unmarked"
        self._marks = marks or (keys.generation(), keys.generations_missed())
        self._used_by = [key for queue in queues for key in keys.queue(queue).all_keys()]
        self._calls = calls

    def prepare(self) -> str:
        """Mark a keyspace that holds nothing of ours; return its id, or "" when it has none and is in use.

        Raises:
            BrokerUnavailable: the server did not answer, or is a replica, which only reads.
        """
        id_ = self._calls.call(MAKE, [*self._marks, *self._used_by], [uuid.uuid4().hex])
        self.seen = str(id_, "ascii") if id_ else ""
        return self.seen

    def is_missed(self) -> bool:
        """Return whether a process expected another keyspace here."""
        return bool(self._calls.command("EXISTS", self._marks[1]))

    def accept(self) -> str:
        """Write a new marker, so that all processes resume; return the new keyspace id."""
        id_ = uuid.uuid4().hex
        self._calls.call(ACCEPT_HERE, self._marks, [id_])
        self.seen = id_
        return id_

    def commands(self) -> list[tuple[Word, ...]]:
        """Return the commands whose answers :meth:`look` reads."""
        return [("HGETALL", self._marks[0]), ("SMEMBERS", self._marks[1])]

    def look(self, answers: Sequence[Any]) -> State:
        """Compare the keyspace with the one that this process saw first; without an answer it is as it was."""
        if any(isinstance(answer, Exception) for answer in answers):
            return self.state
        marker, missed = texts_of(answers[0]), answers[1]
        id_ = marker.get("id", "")
        if not self.seen:
            self.seen = id_
        if id_ and id_ != self.seen and self.seen in marker.get("instead_of", "").split():
            self.seen = id_  # a person accepted it in place of ours
        if self.seen:
            self.state = "ours" if id_ == self.seen else "another" if id_ else "missing"
        else:
            self.state = "missing" if missed else "unmarked"
        return self.state

    def failure(self, answers: Sequence[Any]) -> Exception | None:
        """Return the error among the answers that :meth:`look` could not read, where nothing else reports it."""
        return next((answer for answer in answers if isinstance(answer, Exception)), None)

    def where_lost(self) -> str:
        """Return the servers whose keyspace is not the one that was there, as half a sentence; "" for the only one."""
        return ""

    def miss_commands(self) -> list[tuple[Word, ...]]:
        """Return the commands that record that the keyspace this process had seen is not here."""
        return [("SADD", self._marks[1], self.seen)] if self.seen else []


def finding(state: State, where: str = "") -> list[ServerFinding]:
    """Return the findings of a state, and who lost it. Processes report an unmarked one at their start."""
    if state == "missing":
        seen = "the broker's keyspace was emptied, or this is another database: the marker that was there is gone"
    elif state == "another":
        seen = "the broker's keyspace is not the one that was there: it has another marker"
    else:
        return []
    remedy = (
        f"Find out what became of it (FLUSHDB, a failover to an empty server, a wrong database number); restore it, or "
        f"run `{ACCEPT}` to go on with what is there. Until then workers fetch nothing."
    )
    return [ServerFinding("keyspace", "error", f"{seen}; {where}" if where else seen, remedy)]
