"""Connections to the master that sentinels name, asked for each new connection and once a second by connections in use.

A connection that reaches a server which is no master any more, or whose master was replaced meanwhile, is dropped: its
call counts as unanswered and is sent again within its budget, like one to a server that is away.

Sentinels close connections to a former master at once when it is down, but up to 10 s late after ``SENTINEL FAILOVER``.
What clients write there meanwhile is lost: hence the question once a second.
"""

import contextlib
import errno
import inspect
import logging
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.retry import Retry

from switchyard.broker.errors import UnusableAddress
from switchyard.broker.redis.addresses import is_sentinel_url, split_hosts
from switchyard.broker.redis.own_keys import texts_of

# A connection that tells its library asks for rights that it does not need, and costs two round trips more.
NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}  # redis-py before 7.2
)


class ServerConnection(Connection):
    """A TCP connection that never leads to itself: it is refused where its two ends are one.

    Linux takes the port of a new connection from 32768 to 60999. Where the server's port is one of these and nothing
    listens there, a client on the same machine that tries again and again gets it as its own port in the end: TCP then
    connects the socket to itself ("simultaneous open", RFC 9293, section 3.5). Each command would come back as its own
    answer, and the server could not start, because the port is taken.
    """

    def _connect(self) -> Any:
        sock: Any = super()._connect()
        try:
            refuse_itself(sock.getsockname(), sock.getpeername())
        except OSError:  # also one that the server has reset meanwhile, which has no other end
            sock.close()
            raise
        return sock


def refuse_itself(end: Any, other_end: Any) -> None:
    """Raise ``ConnectionRefusedError`` where a connection's two ends are one: nothing listens there."""
    if end == other_end:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


TLS_RULES = ("ssl_include_verify_flags", "ssl_exclude_verify_flags", "ssl_ciphers", "ssl_min_version")


class TlsConnection(SSLConnection, ServerConnection):
    """A connection over TLS that trusts the authorities of ``ssl_ca_certs`` alone, where the address names some.

    redis-py loads the system's authorities as well, for each connection: 40 ms of processor time, once a second.
    The files are read anew each time, because certificates are renewed.

    A server with TLS 1.3 sends session tickets after the handshake. Until an answer is read they make the socket
    readable, and a pool of redis-py drops such a connection ("Connection not ready"). A login reads one; without a
    login a ``PING`` does.
    """

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, or read one answer where there is no login."""
        super().on_connect_check_health(check_health=check_health)
        if not (self.username or self.password or self.credential_provider):
            self.send_command("PING", check_health=False)
            with contextlib.suppress(ResponseError, AuthenticationError):  # the next command is refused likewise
                self.read_response()

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        named = self.ca_certs or self.ca_path or self.ca_data
        rules = any(getattr(self, name, None) for name in TLS_RULES)  # redis-py before 7 has no flags
        if not named or rules or self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled:
            return super()._wrap_socket_with_ssl(sock)
        context = ssl.create_default_context(cafile=self.ca_certs, capath=self.ca_path, cadata=self.ca_data)
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        if self.certfile or self.keyfile:
            context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        return context.wrap_socket(sock, server_hostname=self.host)


PORT: Final = 26379
EXAMPLE: Final = "redis+sentinel://user:password@host1:26379,host2:26379,host3:26379/mymaster/0"
# Options of the query that are for the sentinels alone.
OWN: Final = ("sentinel_username", "sentinel_password", "sentinel_ssl")
YES_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Parts of an address.

    Args:
        sentinels: Host and port of each.
        master: The name by which the sentinels know the master.
        secure, sentinel_secure: Speak TLS with the servers, with the sentinels.
        login: User and password at the servers, quoted, with ``@``; "" for none.
        tail: Number of the database, and redis-py's options, as in an address of redis-py.
        options: Decoded options of redis-py, by name.
    """

    sentinels: tuple[tuple[str, int], ...]
    master: str
    secure: bool
    login: str = field(repr=False)
    tail: str = field(repr=False)
    options: dict[str, str] = field(repr=False)
    sentinel_username: str | None
    sentinel_password: str | None = field(repr=False)
    sentinel_secure: bool

    def at(self, host: str, port: int) -> str:
        """Return the address of one server, with this one's login, database and options."""
        place = f"[{host}]" if ":" in host else host
        return f"{'rediss' if self.secure else 'redis'}://{self.login}{place}:{port}{self.tail}"


def parse(url: str) -> SentinelUrl:
    """Return the parts of an address; ``UnusableAddress``, without a password, when one is missing or wrong."""
    parts, places = split_hosts(url)
    login, at, _ = parts.netloc.rpartition("@")
    sentinels = tuple(_place(place) for place in places)
    name, _, database = unquote(parts.path).strip("/").partition("/")
    if not name or "@" in name:  # no name has one: it is the rest of a password
        raise UnusableAddress("names no master after the sentinels", f"append the master's name: {EXAMPLE}")
    if database and not (database.isascii() and database.isdigit()):
        raise UnusableAddress("has a database that is not a number", f"write for example {EXAMPLE}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    options = {option: value for option, value in given.items() if option not in OWN}
    secure = parts.scheme == "rediss+sentinel"
    sentinel_ssl = given.get("sentinel_ssl", str(secure)).lower()
    if sentinel_ssl not in YES_NO:
        raise UnusableAddress(f"has sentinel_ssl={sentinel_ssl!r}", "write sentinel_ssl=yes or sentinel_ssl=no")
    if YES_NO[sentinel_ssl] and not secure:
        raise UnusableAddress("has sentinel_ssl=yes with redis+sentinel://", "write rediss+sentinel://")
    return SentinelUrl(
        sentinels=sentinels,
        master=name,
        secure=secure,
        login=login + at,
        tail=f"/{database or 0}{'?' + urlencode(options, quote_via=quote) if options else ''}",
        options=options,
        sentinel_username=given.get("sentinel_username"),
        sentinel_password=given.get("sentinel_password"),
        sentinel_secure=YES_NO[sentinel_ssl],
    )


def _place(place: str) -> tuple[str, int]:
    address, bracket, rest = place.rpartition("]")  # of an IPv6 address
    host, colon, port = rest.partition(":")
    host = unquote(address.lstrip("[") if bracket else host)
    port = port if colon else str(PORT)
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        # Not the place itself: what looks like one may be the rest of a password.
        raise UnusableAddress(
            "has a sentinel that is not a host:port",
            f"write for example {EXAMPLE}, with /, ?, # and @ of a password as %2F, %3F, %23 and %40",
        )
    return host, int(port)


# Seconds for one sentinel, and for the question to all of them.
ONE_S: Final = 0.4
ALL_S: Final = 1.0
# The question while a connection is used: how often, for how long, and how often where it was not answered.
EVERY_S, ANSWER_S, LATER_S = 1.0, 0.2, 5.0

logger = logging.getLogger("switchyard.broker")


class Answer(NamedTuple):
    """A sentinel's answer; ``epoch`` counts failovers: a smaller one is out of date."""

    epoch: int
    host: str
    port: int


class NoMasterNamed(redis.ConnectionError):
    """No sentinel answers, or none that does knows a master of the address's name."""


class Sentinels:
    """The sentinels of one master, and the master that one of them named last.

    It holds no lock and no connection: threads, greenlets and forked processes may share it. ``changes`` counts how
    often another master than before was named. ``options`` are those of a connection to a sentinel, without host, port,
    timeouts.
    """

    def __init__(self, url: SentinelUrl, options: dict[str, Any]) -> None:
        self.master: tuple[str, int] | None = None
        self.changes = 0
        self._epoch = -1
        self._ask_at_s = 0.0
        self.url = url
        self._kind = TlsConnection if url.sentinel_secure else ServerConnection
        self._options = options
        self._places = list(url.sentinels)

    def locate(self, within_s: float | None = None) -> tuple[str, int]:
        """Return host and port of the master, from the first sentinel that answers and is up to date.

        Raises:
            NoMasterNamed: none answers, or none that does knows the master.
            redis.AuthenticationError: a sentinel refuses the login, and none names the master.
        """
        each_s = min(ONE_S, (within_s or ALL_S) / len(self._places))
        failures: list[redis.RedisError] = []
        outdated: list[Answer] = []
        for place in list(self._places):
            try:
                answer = self._ask(place, each_s)
            except redis.RedisError as error:
                failures.append(error)
            else:
                if answer.epoch >= self._epoch:
                    return self._learn(answer)
                outdated.append(answer)
            self.distrust(place)
        if outdated:  # all of them: they were set up anew, and count from the start
            return self._learn(max(outdated))
        if any(isinstance(error, redis.AuthenticationError) or "NOAUTH" in str(error) for error in failures):
            raise redis.AuthenticationError("a sentinel refuses sentinel_username or sentinel_password")
        raise NoMasterNamed(f"no sentinel names the master {self.url.master!r}: {failures[-1]}")

    def refresh(self) -> None:
        """Ask one sentinel for the master, at most once a second. Without an answer nothing changes."""
        if time.monotonic() < self._ask_at_s:
            return
        self._ask_at_s = time.monotonic() + EVERY_S
        try:
            answer = self._ask(self._places[0], ANSWER_S)
        except redis.RedisError:
            self._ask_at_s = time.monotonic() + LATER_S
        else:
            if answer.epoch >= self._epoch:
                self._learn(answer)
                return
        self.distrust()

    def distrust(self, place: tuple[str, int] | None = None) -> None:
        """Ask a sentinel last from now on; by default the one that was asked first."""
        places = list(self._places)
        place = place or places[0]
        self._places = [*(other for other in places if other != place), place]

    def _learn(self, answer: Answer) -> tuple[str, int]:
        former, self._epoch, self.master = self.master, answer.epoch, (answer.host, answer.port)
        if former is not None and former != self.master:
            self.changes += 1
            logger.warning("broker: the sentinels name %s:%d as the master, in place of %s:%d", *self.master, *former)
        self._ask_at_s = time.monotonic() + EVERY_S
        return self.master

    def _ask(self, place: tuple[str, int], within_s: float) -> Answer:
        # The second names a promoted server earlier than the first, and has its number already.
        answers = self.ask(place, ("MASTER", "GET-MASTER-ADDR-BY-NAME"), within_s)
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise redis.ConnectionError(f"sentinel {place[0]}:{place[1]}: {answer}") from answer
        words, address = answers
        return Answer(int(texts_of(words)["config-epoch"]), str(address[0], "utf-8"), int(address[1]))

    def ask(self, place: tuple[str, int], questions: Sequence[str], within_s: float) -> list[Any]:
        """Return the answers of one sentinel to subcommands of ``SENTINEL`` about the master; a refusal is its error.

        Raises ``redis.ConnectionError``, or ``redis.TimeoutError`` after ``within_s``, when it does not answer.
        """
        options = {**self._options, "socket_timeout": within_s, "socket_connect_timeout": within_s}
        connection: Any = self._kind(host=place[0], port=place[1], retry=Retry(NoBackoff(), 0), **options)
        try:
            connection.connect()
            commands = [("SENTINEL", question, self.url.master) for question in questions]
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [_answer(connection) for _ in commands]
        finally:
            connection.disconnect()


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error


class MasterConnection(ServerConnection):
    """A connection to the master. It ends when another connection of the process found another master."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        self._demoted = False
        self._unread = 0
        super().__init__(**options)

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect to the master, unless this connection leads to the one that was named last.

        Raises:
            redis.ConnectionError: the master was replaced before it gave an answer that is to come.
        """
        if self._drop_former() and self._unread:
            raise redis.ConnectionError("the master was replaced")
        if self._sock is None:
            self._demoted, self._unread = False, 0
            self.host, self.port = self._sentinels.locate(self.socket_connect_timeout)
        super().connect_check_health(check_health=check_health, retry_socket_connect=retry_socket_connect)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, and see that the server is a master: a sentinel that was cut off may name a former one."""
        super().on_connect_check_health(check_health=check_health)
        self.send_command("ROLE", check_health=False)
        role = self.read_response(disable_decoding=True)
        if role[0] != b"master":
            self._sentinels.distrust()
            raise ReadOnlyError(f"the sentinels name {self.host}:{self.port}, which is not a master now")

    def can_read(self, timeout: float = 0) -> bool:
        """Return whether an answer is there. ``redis.ConnectionError`` when another connection found another master."""
        if not self._demoted and self._drop_former():
            raise redis.ConnectionError("the master was replaced")
        return bool(super().can_read(timeout))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        super().send_packed_command(command, check_health=check_health)
        self._unread += 1

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next answer. After an error that the server is a replica, this connection is not used again.

        It stays open until then: answers to the same pipeline may follow.
        """
        self._unread = max(self._unread - 1, 0)  # several commands that were sent at once count as one
        try:
            return super().read_response(*args, **options)
        except ReadOnlyError:
            self._demoted = True
            raise

    def _drop_former(self) -> bool:
        if self._sock is None:
            return False
        self._sentinels.refresh()
        former = self._demoted or self._sentinels.master != (self.host, self.port)
        if former:
            self.disconnect()
        return former


class SecureMasterConnection(MasterConnection, TlsConnection):
    """The same over TLS. The certificate must name the host or the address that the sentinels name."""


def pool_options(url: str) -> tuple[str, dict[str, Any]]:
    """Return an address that redis-py understands, and the options of a pool that make it follow a master.

    Raises ``UnusableAddress`` when a part of the address is missing or wrong.
    """
    if not is_sentinel_url(url):
        direct = {"redis": ServerConnection, "rediss": TlsConnection}.get(url.partition("://")[0])
        return url, {"connection_class": direct} if direct else {}
    parts = parse(url)
    kind = SecureMasterConnection if parts.secure else MasterConnection
    first = parts.at(*parts.sentinels[0])
    return first, {"connection_class": kind, "sentinels": sentinels_of(parts)}


def server_url(url: str) -> str:
    """Return the address of the server that an address leads to now; the address itself without sentinels.

    Raises ``redis.ConnectionError`` when no sentinel names the master.
    """
    if not is_sentinel_url(url):
        return url
    parts = parse(url)
    return parts.at(*sentinels_of(parts).locate())


def sentinels_of(parts: SentinelUrl) -> Sentinels:
    options: dict[str, Any] = {
        "username": parts.sentinel_username,
        "password": parts.sentinel_password,
        "protocol": 2,
        **NAMELESS,
    }
    if parts.sentinel_secure:
        read = redis.connection.parse_url(parts.at(*parts.sentinels[0]))
        options |= {name: value for name, value in read.items() if name.startswith("ssl_")}
    return Sentinels(parts, options)
