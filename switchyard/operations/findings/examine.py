"""Execution of all checks, one group after the other, within ten seconds even when servers do not answer."""

import contextlib
import math
import re
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
from django.db import DatabaseError, connections
from redis.exceptions import NoPermissionError

from switchyard.addon import addon_for
from switchyard.broker.errors import BrokerError
from switchyard.broker.redis.addresses import is_sentinel_url
from switchyard.broker.redis.sentinel import NoMasterNamed, parse, server_url
from switchyard.broker.redis.server_errors import reason
from switchyard.conf import switchyard_settings
from switchyard.console.formatting import duration
from switchyard.operations.findings import actors, configuration, database, disk, own_past, pools, queues, records
from switchyard.operations.findings import facts as snapshot
from switchyard.operations.findings.finding import CHECK_BROKER, CHECK_DATABASE, Finding, FindingGroup
from switchyard.operations.findings.lateness import look as look_at_lateness
from switchyard.operations.findings.servers import GROUP as BROKER
from switchyard.operations.findings.servers import look_at_addons, look_at_own_keys, look_at_sentinels, look_at_servers
from switchyard.operations.findings.spending import said_once
from switchyard.operations.timeouts import NoAnswer, TimedCall

# Groups of the checks that ask a server for nothing but its state.
SERVERS = ("broker", "database")
# Errors that a busy server or machine may cause once.
PASSING = ("away", "hangs", "locked")
NODE = re.compile(r"node (\S+):(\d+): ")
# Part of the answer of a server that serves nobody -> the fact, its cause, and the step.
ANSWERS = {
    "max number of clients": ("the server takes no more connections (maxclients)",
        "Another program leaves connections open",
        "On the server's host, `ss -tnp` names whose they are; end those that should not be, or raise maxclients"),
    "BUSY ": ("the server runs a script that does not end", "The script of another program, or of a person",
        "valkey-cli SCRIPT KILL; work goes on by itself"),
}  # fmt: skip
# Options of the broker's address, and those of valkey-cli with the same file.
TLS_FILES = {"ssl_ca_certs": "--cacert", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def run_checks(group: FindingGroup, look: Callable[[], Iterable[Finding]], deadline_s: float) -> list[Finding]:
    """Return the findings of a group of checks, or one finding with the reason why they failed, or have no answer.

    A check that hangs is abandoned in its own thread.
    """
    call = TimedCall(f"doctor {group.name}", lambda: found_by(look))
    try:
        return findings_of(group, lambda: call.result(deadline_s))
    except NoAnswer:
        return [hangs(group, deadline_s)]


def found_by(look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what a check finds, and close the connections to the database of its thread."""
    try:
        return [copyable(found) for found in look()]
    finally:
        connections.close_all()


def findings_of(group: FindingGroup, answer: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of an answer, or one finding with the reason why it failed; raise its ``NoAnswer``."""
    try:
        return list(answer())
    except NoAnswer:
        raise
    except (BrokerError, redis.RedisError) as error:
        return [_by_its_own_check(broker_away(group, error), "broker")]
    except DatabaseError as error:
        return [_by_its_own_check(database.database_away(group, error), "database")]
    except Exception as error:  # noqa: BLE001  a defect in one check must not hide the findings of the others
        seen = f"the checks broke with {type(error).__name__}: {str(error)[:120]}"
        return [group.error("broken", seen, "A defect of the doctor", "Report it with this line")]


def _by_its_own_check(found: Finding, server: str) -> Finding:
    """Return a finding of a server's own check; for another group, that it was not checked: once is no evidence."""
    if found.group == server or found.code not in PASSING:
        return found
    return FindingGroup(found.group).skipped(f"of the {server}, {found.seen}")


def copyable(found: Finding) -> Finding:
    """Return a finding whose ``valkey-cli`` command can be copied: with the server's address, never its password."""
    if "valkey-cli" not in found.next:
        return found
    own = switchyard_settings()
    url, login = own.broker_url, _login(own.broker_url)
    if url.startswith("unix:"):
        address = f"-s {urlsplit(url).path}"
    elif node := NODE.match(found.seen):  # a setting is that node's alone
        address = f"-h {node[1]} -p {node[2]}"
    elif options := _hook("options"):
        address = options(url, found.next)
    elif is_sentinel_url(url) or url.startswith("rediss:") or "--user" in login or own.server_variable[-1] == "]":
        # valkey-cli knows no sentinels, -u takes neither files nor another user, and a shell has variables alone.
        address = _host_and_port(url)
    else:
        address, login = f'-u "${own.server_variable}"', ""
    words = " ".join(part for part in (_program(), address, login) if part)
    return replace(found, next=found.next.replace("valkey-cli", words))


def _hook(name: str) -> Any:
    """Return a hook of the add-on that the broker's address is for, where it has one."""
    addon = addon_for(switchyard_settings().broker_url.partition("://")[0])
    return addon.load(name) if addon is not None else None


def _program() -> str:
    """Return ``redis-cli`` where this host has only Redis's tools; both take the same options."""
    return "redis-cli" if shutil.which("redis-cli") and not shutil.which("valkey-cli") else "valkey-cli"


def _host_and_port(url: str) -> str:
    """Return the options for a server, of sentinels their master, or one that the reader must fill in."""
    try:
        parts = urlsplit(server_url(url))
    except redis.RedisError:
        return "-h MASTER -p PORT"
    return f"-h {parts.hostname} -p {parts.port or 6379}"


def _login(url: str) -> str:
    """Return the options for TLS and for a login. The yard's own users may not change settings: another is named."""
    parts = urlsplit(url)
    options = []
    if parts.scheme.startswith("rediss"):
        files = dict(parse_qsl(parts.query))
        options = ["--tls", *(f"{TLS_FILES[key]} {shlex.quote(files[key])}" for key in TLS_FILES if key in files)]
    if parts.username and parts.username != "default":
        options.append("--user ADMIN")
    if parts.username or parts.password:
        options.append("--askpass")
    return " ".join(options)


def broker_away(group: FindingGroup, error: Exception) -> Finding:
    """Return the finding for a broker that did not answer, without the error's text, which contains the address."""
    if (explain := _hook("explain")) and (found := explain(group, error, _program())):
        explained: Finding = found
        return explained
    named = switchyard_settings().server_variable
    client_error = (error.__cause__ or error) if isinstance(error, BrokerError) else error
    if isinstance(client_error, redis.AuthenticationError) or "WRONGPASS" in str(error) or "NOAUTH" in str(error):
        seen, cause = "the server refuses our user or password", "The password was changed on one side only"
        return group.error("refused", seen, cause, f"Correct user and password in {named}")
    if isinstance(client_error, NoPermissionError):
        seen = "not checked: the broker's server refuses this to our user (NOPERM)"
        cause = "Each user has the rights of its role; only switchyard-room may look at everything"
        step = "manage.py switchyard doctor, with switchyard-room as the user of the broker's address"
        return group.warning("not_permitted", seen, cause, step)
    if "DB index is out of range" in str(client_error):
        seen, cause = "the server has no database of the address's number", "It has fewer: its setting `databases`"
        return group.error("refused", seen, cause, f"Correct the number at the end of {named}")
    closed = isinstance(client_error, redis.ConnectionError) and not isinstance(client_error, NoMasterNamed)
    said = f"{client_error}{_greeting() if closed else ''}"
    for answer, (seen, cause, step) in ANSWERS.items():
        if answer in said:
            return group.error("refused", seen, cause, step)
    if isinstance(client_error, redis.TimeoutError):
        seen = "the server does not answer within a second, and accepts connections"
        cause = "It is stopped, swaps, or runs a long command"
        return group.error("hangs", seen, cause, "Check its process and its log; do not kill it yet")
    if is_sentinel_url(switchyard_settings().broker_url):
        return _master_away(group, client_error, named)
    absence = switchyard_settings().absence
    seen = f"the server does not answer{f': {absence.fact}' if absence.fact else f' ({reason(client_error)})'}"
    cause = "Nothing listens on the socket there" if absence.fact else "It is down, or the address is wrong"
    step = f"{absence.remedy[0].upper()}{absence.remedy[1:]}; then `manage.py switchyard broker`"
    return group.error("away", seen, cause, step)


def _greeting() -> str:
    """Return what the broker's server says to a connection before it is asked, as it closes it; "" where it does not.

    A client that writes at once may find the connection reset and lose these words.
    """
    try:
        parts = urlsplit(server_url(switchyard_settings().broker_url))
        with socket.create_connection((str(parts.hostname), parts.port or 6379), 0.3) as peer:
            return peer.recv(200).decode(errors="replace")
    except (OSError, redis.RedisError, ValueError):  # an address may name several servers
        return ""


def _master_away(group: FindingGroup, error: BaseException, named: str) -> Finding:
    """Return the finding for a master that the sentinels of the variable ``named`` name, or should name."""
    if isinstance(error, NoMasterNamed):
        seen, cause = "no sentinel names the master", "They are down, or refuse us: the finding about them says which"
        step = f"Check sentinels and master's name in {named}; ask a sentinel for `SENTINEL MASTERS`"
    else:
        seen = f"the master that the sentinels name does not answer ({reason(error)})"
        cause = "It is down, and the sentinels have not replaced it yet, or cannot"
        name = parse(switchyard_settings().broker_url).master
        step = f"manage.py switchyard doctor, again in a minute; then ask a sentinel for `SENTINEL CKQUORUM {name}`"
    return group.error("away", seen, cause, step)


def hangs(group: FindingGroup, unanswered_s: float) -> Finding:
    """Return the finding for checks without an answer: of a server an error, of others it may be this machine."""
    after = f"after {duration(unanswered_s * 1_000)}"
    if group.name in SERVERS:
        cause = "The server is stopped, overloaded, or behind a network that drops packets"
        button = CHECK_BROKER if group.name == "broker" else CHECK_DATABASE
        step = "Check the server's process, its log and the network between"
        return group.error("hangs", f"the {group.name} has not answered {after}", cause, step, button=button)
    seen, cause = f"the checks of {group.name} have no answer {after}", "This machine is busy, or a query is slow"
    return group.warning("hangs", seen, cause, "manage.py switchyard doctor, again")


DEADLINE_S = 2.0
WHOLE_S = 9.0
# A busy machine answers late: a server is called unanswering after so long, and others' checks are left out until then.
UNANSWERED_S = 4.0
# A bucket's own client gives up within 2 s, once it is loaded, and says why.
PATIENT = (*SERVERS, disk.STORAGE.name)
# The overview reads again and again, and can wait for longer before it says so; what was said before stays until then.
HANGS_S, ABANDONED_S, LOOK_AFTER_S = 10.0, 30.0, 0.2
# The overview asks for the findings every 2 s, and repeats cheap and urgent checks more often than others.
SOON_S, SELDOM_S, RARELY_S = 3.0, 15.0, 120.0
# Nothing is told of a check that is due for so long: two examinations, each as long as one may take.
FORGOTTEN_S = 2 * WHOLE_S
# Codes of findings after which the other checks of a server are skipped -> the reason.
AWAY = {
    "away": "does not answer",
    "hangs": "does not answer",
    "refused": "takes no connection of ours",
    "bounced": "is behind a bouncer that refuses us",
    "broken": "was not understood",
    "unmigrated": "lacks its tables",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A function that checks one subject, and ``needs`` the server of a group; the overview repeats it ``every_s``."""

    group: FindingGroup
    look: Callable[[], Iterable[Finding]]
    every_s: float
    needs: FindingGroup | None = None


def examine() -> list[Finding]:
    """Run every check and return the findings, one after the other: the work of one slows no measurement of another."""
    findings, ends_s = list[Finding](), time.monotonic() + WHOLE_S
    for check in checks():
        findings += _without(check, findings) or _examined(check, ends_s)
    return said_once(findings)


def _without(check: Check, findings: Iterable[Finding]) -> list[Finding]:
    """Return the finding for a check whose server is known not to answer; none for one that can run."""
    if check.needs is None:
        return []
    codes = {found.code for found in findings if found.group == check.needs.name}
    why = next((why for code, why in AWAY.items() if code in codes), "")
    return [check.group.skipped(f"the {check.needs.name} {why}")] if why else []


def _examined(check: Check, ends_s: float) -> list[Finding]:
    """Return the findings of a check, which has its own time limit and at most the time that is left to all."""
    began_s = time.monotonic()
    left_s = ends_s - began_s
    if left_s <= DEADLINE_S / 2:
        return [check.group.skipped(f"other checks took {WHOLE_S:g} s")]
    longest_s = UNANSWERED_S if check.group.name in PATIENT else DEADLINE_S
    found = run_checks(check.group, check.look, min(longest_s, left_s))
    quick = time.monotonic() - began_s < DEADLINE_S
    if quick and check.group.name in SERVERS and any(one.code == "hangs" for one in found):
        found = run_checks(check.group, check.look, DEADLINE_S)  # asked twice
    return found


class KeptCheck:
    """A check that is asked again and again; that it has no answer is a finding only after ``HANGS_S``."""

    def __init__(self, check: Check, clock: Callable[[], float]) -> None:
        self.check, self._clock = check, clock
        name, look = f"check {check.group.name}", partial(found_by, check.look)
        # The second is asked while the first hangs for long, and finds a server that is back: two threads at most.
        self._call, self._other = TimedCall(name, look), TimedCall(name, look)
        self._asked_s = 0.0
        self._unanswered_s: float | None = None
        self.found: list[Finding] = []
        self._found_s = -math.inf

    @property
    def age_s(self) -> float:
        """Age of what was found last; infinity before."""
        return self._clock() - self._found_s

    @property
    def is_due(self) -> bool:
        """Whether what it found is old enough to be repeated: sooner where it had no answer at the last attempt."""
        every_s = self.check.every_s
        return self.age_s >= (every_s if self._unanswered_s is None else min(every_s, SOON_S))

    def keep(self, found: list[Finding]) -> None:
        self.found, self._found_s = found, self._clock()

    def ask(self) -> list[Finding] | None:
        """Return what it finds; ``None`` while it has no answer, and after ``HANGS_S`` the finding of that."""
        now_s, waits = self._clock(), self._unanswered_s is not None
        if not waits:
            self._asked_s = now_s
        elif now_s - self._asked_s > ABANDONED_S:
            self._call, self._other, self._asked_s = self._other, self._call, now_s
        wait_s = LOOK_AFTER_S if waits else DEADLINE_S
        try:
            found = findings_of(self.check.group, lambda: self._call.result(wait_s, late_s=ABANDONED_S))
        except NoAnswer:
            if self._unanswered_s is None:
                self._unanswered_s = now_s
            late_s = self._clock() - self._unanswered_s
            return [hangs(self.check.group, late_s)] if late_s > HANGS_S else None
        self._unanswered_s = None
        return found


class KeptFindings:
    """Findings of this process's last examination, each check repeated once it is older than it may be.

    Groups named in ``left_out`` are not examined.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, left_out: Collection[str] = ()) -> None:
        self._clock, self._left_out = clock, left_out
        self._call = TimedCall("examination", self._repeat)

    @cached_property
    def _checks(self) -> list[KeptCheck]:
        return [KeptCheck(check, self._clock) for check in checks() if check.group.name not in self._left_out]

    def findings(self, wait_s: float = 0.3) -> list[Finding] | None:
        """Return the findings; ``None`` before the first examination has ended, and after a time without any.

        A check that is due and takes longer than ``wait_s`` is found by the next call.
        """
        if any(kept.is_due for kept in self._checks):
            with contextlib.suppress(NoAnswer):
                self._call.result(DEADLINE_S if self._known() is None else wait_s)
        return self._known()

    def _known(self) -> list[Finding] | None:
        """Return the findings, unless one is missing or so old that nobody has looked since."""
        if any(kept.age_s > kept.check.every_s + FORGOTTEN_S for kept in self._checks):
            return None
        return [found for kept in self._checks for found in kept.found]

    def _repeat(self) -> None:
        due, findings, late = [kept for kept in self._checks if kept.is_due], list[Finding](), set[str]()
        for kept in self._checks:
            needs = kept.check.needs
            # Checks that need a server without an answer wait with it, and are as they were.
            if kept in due and (needs is None or needs.name not in late):
                found = _without(kept.check, findings) or kept.ask()
                if found is None:
                    late.add(kept.check.group.name)
                else:
                    kept.keep(found)
            findings += kept.found


def _pools_and_queues() -> Iterator[Finding]:
    read = snapshot.read()
    facts = snapshot.facts_of(read.state)
    yield from pools.look(read)
    yield from pools.look_at_absence(facts)
    found = [*look_at_lateness(facts), *queues.look_at_held(facts), *queues.look(read)]
    yield from found or [queues.on_time(read)]


def checks() -> tuple[Check, ...]:
    """Return every check in the order in which they run: those of a server before those that need it."""
    return (
        Check(configuration.GROUP, configuration.look, RARELY_S),
        Check(disk.GROUP, disk.look, SELDOM_S),
        Check(disk.STORAGE, disk.look_at_storage, SELDOM_S),
        Check(disk.STORAGE, disk.look_at_results, SELDOM_S),
        Check(BROKER, look_at_servers, SELDOM_S),
        Check(BROKER, look_at_sentinels, SELDOM_S),
        Check(BROKER, look_at_addons, SELDOM_S),
        Check(pools.GROUP, _pools_and_queues, SOON_S, needs=BROKER),
        Check(queues.GROUP, queues.look_at_undeclared, SELDOM_S, needs=BROKER),
        Check(queues.GROUP, queues.look_at_purges, SOON_S, needs=BROKER),
        Check(records.SCHEDULES, records.look_at_leader, SOON_S, needs=BROKER),
        Check(records.HISTORY, records.look_at_history, SOON_S, needs=BROKER),
        Check(records.BATCHES, records.look_at_batches, SOON_S, needs=BROKER),
        Check(actors.GROUP, own_past.look, SOON_S, needs=BROKER),
        Check(database.GROUP, database.look, SOON_S),
        Check(database.GROUP, database.look_at_migrations, RARELY_S, needs=database.GROUP),
        Check(records.SCHEDULES, records.look_at_ticks, SELDOM_S, needs=database.GROUP),
        Check(actors.GROUP, actors.look, SOON_S, needs=database.GROUP),
        Check(records.OUTBOX, records.look_at_outbox, SOON_S, needs=database.GROUP),
        Check(records.DEAD_LETTERS, records.look_at_dead_letters, SELDOM_S, needs=database.GROUP),
        Check(records.ALERTS, records.look_at_alerts, SOON_S, needs=database.GROUP),
        Check(BROKER, look_at_own_keys, SELDOM_S),
    )


KEPT = KeptFindings()
