"""Execution of checks with a deadline; their failures become findings, never tracebacks."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
from django.db import DatabaseError, connections
from redis.exceptions import NoPermissionError

from switchyard.addon import addon_for
from switchyard.broker.errors import BrokerError
from switchyard.broker.redis.sentinel import NoMasterNamed, server_url
from switchyard.broker.redis.sentinel_url import is_sentinel_url, parse
from switchyard.broker.redis.server_errors import reason
from switchyard.conf import switchyard_settings
from switchyard.console.formatting import duration
from switchyard.operations.findings.finding import CHECK_BROKER, CHECK_DATABASE, Finding, FindingGroup
from switchyard.operations.findings.servers.database_errors import database_away
from switchyard.operations.timeouts import NoAnswer, TimedCall

# Groups of the checks that ask a server for nothing but its state.
SERVERS = ("broker", "database")
# Errors that a busy server or machine may cause once.
PASSING = ("away", "hangs", "locked")
NODE = re.compile(r"node (\S+):(\d+): ")
# Options of the broker's address, and those of valkey-cli with the same file.
TLS_FILES = {"ssl_ca_certs": "--cacert", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def run_checks(group: FindingGroup, look: Callable[[], Iterable[Finding]], deadline_s: float) -> list[Finding]:
    """Return the findings of a group of checks, or one finding with the reason why they failed.

    Args:
        deadline_s: Time limit of the group. A check that hangs is abandoned in its own thread.
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
    """Return the findings of an answer, or one finding with the reason why it failed.

    Raises:
        NoAnswer: of the answer.
    """
    try:
        return list(answer())
    except NoAnswer:
        raise
    except (BrokerError, redis.RedisError) as error:
        return [_by_its_own_check(broker_away(group, error), "broker")]
    except DatabaseError as error:
        return [_by_its_own_check(database_away(group, error), "database")]
    except Exception as error:  # noqa: BLE001  a defect in one check must not hide the findings of the others
        seen = f"the checks broke with {type(error).__name__}: {str(error)[:120]}"
        return [group.error("broken", seen, "A defect of the doctor", "Report it with this line")]


def _by_its_own_check(found: Finding, server: str) -> Finding:
    """Return a finding of a server's own check; for another group, that it was not checked: once is no evidence."""
    if found.group == server or found.code not in PASSING:
        return found
    return FindingGroup(found.group).skipped("not_checked", f"not checked: of the {server}, {found.seen}")


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
    elif is_sentinel_url(url):  # valkey-cli knows no such address
        address = _master(url)
    elif url.startswith("rediss:") or "--user" in login:  # -u takes neither files nor another user
        parts = urlsplit(url)
        address = f"-h {parts.hostname} -p {parts.port or 6379}"
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


def _master(url: str) -> str:
    """Return the options for the master that the sentinels name, or for one that the reader must fill in."""
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
        seen = "the server refuses our user or password"
        cause = "The password was changed on one side only"
        return group.error("refused", seen, cause, f"Correct user and password in {named}")
    if isinstance(client_error, NoPermissionError):
        seen = "not checked: the broker's server refuses this to our user (NOPERM)"
        cause = "Each user has the rights of its role; only switchyard-room may look at everything"
        step = "manage.py switchyard doctor, with switchyard-room as the user of the broker's address"
        return group.warning("not_permitted", seen, cause, step)
    if "DB index is out of range" in str(client_error):
        seen, cause = "the server has no database of the address's number", "It has fewer: its setting `databases`"
        return group.error("refused", seen, cause, f"Correct the number at the end of {named}")
    if isinstance(client_error, redis.TimeoutError):
        seen = "the server accepts connections and does not answer within a second"
        cause = "It is stopped, swaps, or runs a long command"
        return group.error("hangs", seen, cause, "Check its process and its log; do not kill it yet")
    if is_sentinel_url(switchyard_settings().broker_url):
        return _master_away(group, client_error, named)
    absence = switchyard_settings().absence
    seen = absence.fact or f"the server does not answer ({reason(client_error)})"
    cause = "Nothing listens on the socket there" if absence.fact else "It is down, or the address is wrong"
    return group.error(
        "away", seen, cause, f"{absence.remedy[0].upper()}{absence.remedy[1:]}; then `manage.py switchyard broker`"
    )


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
        seen = f"the {group.name} has not answered {after}"
        cause = "The server is stopped, overloaded, or behind a network that drops packets"
        act = CHECK_BROKER if group.name == "broker" else CHECK_DATABASE
        return group.error("hangs", seen, cause, "Check the server's process, its log and the network between", act=act)
    seen = f"the checks of {group.name} have no answer {after}"
    return group.warning(
        "hangs", seen, "This machine is busy, or a query is slow", "manage.py switchyard doctor, again"
    )
