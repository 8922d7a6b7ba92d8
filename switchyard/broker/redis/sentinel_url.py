"""Addresses of a master that sentinels name: ``redis+sentinel://user:password@host:port,host:port/master/db``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from switchyard.broker.errors import UnusableAddress
from switchyard.broker.redis.addresses import split_hosts

SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
PORT: Final = 26379
EXAMPLE: Final = "redis+sentinel://user:password@host1:26379,host2:26379,host3:26379/mymaster/0"
# Options of the query that are for the sentinels alone.
OWN: Final = ("sentinel_username", "sentinel_password", "sentinel_ssl")
YES_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def is_sentinel_url(url: str) -> bool:
    """Return whether an address names sentinels."""
    return url.partition("://")[0].lower() in SCHEMES


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
        raise UnusableAddress("has a database that is no number", f"write for example {EXAMPLE}")
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
            "has a sentinel that is no host:port",
            f"write for example {EXAMPLE}, with /, ?, # and @ of a password as %2F, %3F, %23 and %40",
        )
    return host, int(port)
