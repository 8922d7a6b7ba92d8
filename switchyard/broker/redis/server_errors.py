"""This project's errors for those of redis-py: the server is away, it is full, or it refused an operation."""

import errno
import socket
import ssl

import redis
from redis.exceptions import BusyLoadingError, MasterDownError, NoPermissionError, OutOfMemoryError, ReadOnlyError

from switchyard.broker.errors import ADDRESSES, BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable
from switchyard.broker.redis.addresses import Absence
from switchyard.broker.redis.sentinel import NoMasterNamed

# Answers of a server that cannot serve now: it starts, follows another one, or lost its master.
AWAY = redis.ConnectionError, redis.TimeoutError, BusyLoadingError, MasterDownError, ReadOnlyError
# The code of an error, where redis-py takes it off the error's text.
CODES: dict[type[Exception], str] = {
    OutOfMemoryError: "OOM", ReadOnlyError: "READONLY", BusyLoadingError: "LOADING", MasterDownError: "MASTERDOWN",
    NoPermissionError: "NOPERM",
}  # fmt: skip
# The same in words that redis-py has no class for: too few replicas, a disk that is full, a script that runs for long,
# a master that became a replica while a call was blocked on it.
NOT_NOW = ("NOREPLICAS", "MISCONF", "BUSY ", "UNBLOCKED")

# A login that is refused is a lost connection to redis-py. After a failover another server is asked for the same user.
LOGIN_REMEDY = f"check user and password in {ADDRESSES} and that replicas and other nodes have the same users"
MASTER_REMEDY = f"check the sentinels and the master's name in {ADDRESSES} and ask a sentinel for SENTINEL MASTERS"


def is_away(error: Exception) -> bool:
    """Whether an error of redis-py means that the server cannot serve now."""
    return isinstance(error, AWAY) or str(error).startswith(NOT_NOW)


def named(operation: str, error: redis.RedisError) -> BrokerError:
    """Return this project's error for one of redis-py, for an operation that was sent."""
    cause = str(error) or type(error).__name__
    if isinstance(error, OutOfMemoryError):
        made: BrokerError = BrokerFull(operation, cause)
    elif is_away(error):
        made = BrokerUnavailable(operation, cause)
    else:
        made = BrokerRefused(operation, cause)
    made.code = CODES.get(type(error)) or (cause.partition(" ")[0] if isinstance(error, redis.ResponseError) else "")
    made.__cause__ = error
    return made


def unanswered(operation: str, error: redis.RedisError, client: redis.Redis, *, sent: bool) -> BrokerUnavailable:
    """Return this project's error for a server that did not answer; where nothing listens, in the client's words.

    An operation that was ``sent`` before may have happened. The remedy names the setting that named the server.
    """
    absence: Absence = getattr(client, "absence", None) or Absence()
    cause, remedy = str(error), Absence().remedy
    if isinstance(error, redis.ConnectionError) and not sent:
        of_kind = {redis.AuthenticationError: LOGIN_REMEDY, NoMasterNamed: MASTER_REMEDY}.get(type(error))
        cause, remedy = (cause, of_kind) if of_kind else (absence.fact or cause, absence.remedy)
    remedy = remedy.replace(ADDRESSES, absence.named)
    return BrokerUnavailable(operation, cause, outcome="unknown" if sent else "refused", remedy=remedy)


def reason(error: BaseException | None) -> str:
    """Return why a server was not reached, in words without its address; the error's class where no words are known."""
    if isinstance(error, NoMasterNamed):
        return "no sentinel names the master"
    below = error
    while below is not None and not isinstance(below, OSError):
        below = below.__cause__ or below.__context__
    if isinstance(below, socket.gaierror):
        return "the name of its host does not resolve"
    if isinstance(below, ConnectionRefusedError):
        return "connection refused, nothing listens there"
    if isinstance(below, OSError) and below.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "no route to its host"
    if isinstance(below, ssl.SSLError):
        return f"TLS failed: {getattr(below, 'verify_message', '') or below.reason}"
    if isinstance(error, redis.ConnectionError) and "closed by server" in str(error):
        return "it closed the connection, as a server for TLS does where the address lacks rediss"
    return type(error).__name__
