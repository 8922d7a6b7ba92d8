"""Parts of addresses: several hosts with commas between, as of sentinels, and the options."""

import inspect
import ipaddress
import math
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final, cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

import msgspec

from switchyard.broker.errors import ADDRESSES, CHECK_THE_ADDRESS, UnusableAddress

# Scheme, login and hosts; the rest begins with a path, a query or nothing.
PARTS = re.compile(r"([^:/?#]*://)((?:[^/?#]*@)?)([^/?#]*)(.*)", re.DOTALL)
SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
# Name of an option -> its values: others end in an error far from the address. Answers are read as bytes.
VALUES: Final = {
    "ssl_cert_reqs": ("required", "optional", "none"),
    "protocol": ("2",),
    "decode_responses": ("no", "false", "False", "0"),
}


class Absence(msgspec.Struct, frozen=True):
    """Words for the error where nothing listens at an address; an empty ``fact`` keeps the client's message.

    ``named`` is the setting that holds the address, for the remedies of other errors.
    """

    fact: str = ""
    remedy: str = CHECK_THE_ADDRESS
    named: str = ADDRESSES


class Server(msgspec.Struct, frozen=True):
    """A server that is connected to when it is first asked: code that only declares actors never loads redis-py.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as the settings have checked it.
        absence: Text of the error when nothing listens at the address.
    """

    url: str
    absence: Absence | None = None


def is_sentinel_url(url: str) -> bool:
    """Return whether an address names sentinels."""
    return url.partition("://")[0].lower() in SCHEMES


def split_hosts(url: str) -> tuple[SplitResult, list[str]]:
    """Return the parts of an address with its first host alone, and all its hosts as they are written.

    ``urlsplit`` refuses a bracket behind another host (``a:1,[::1]:3``) since Python's fix of CVE-2025-0938, which
    Debian's Python 3.11.2 has and 3.11.7 has not.

    Raises:
        ValueError: the address cannot be split.
    """
    found = PARTS.match(url)
    if found is None:
        return urlsplit(url), [""]
    scheme, login, hosts, rest = found.groups()
    each = hosts.split(",")
    return urlsplit(f"{scheme}{login}{each[0]}{rest}"), each


def is_loopback(host: str | None) -> bool:
    """Return whether a host of an address is this machine by its loopback interface: also ``127.0.0.11``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def check_options(url: str, *, own: tuple[str, ...] = ()) -> None:
    """Refuse an option that redis-py does not know, or knows for connections of another kind alone.

    ``own`` are options that are checked elsewhere. The ``UnusableAddress`` holds no value of the address.
    """
    parts, _ = split_hosts(url)
    if not parts.query:
        return
    from redis import connection as client

    # Name of an option -> what reads its value; others are texts.
    readers = cast("dict[str, Callable[[str], Any]]", client.URL_QUERY_ARGUMENT_PARSERS)
    secure = parts.scheme.startswith("rediss")
    direct = client.UnixDomainSocketConnection if parts.scheme == "unix" else client.Connection
    kind = client.SSLConnection if secure else direct
    known = {"max_connections", *own, *_options_of(kind), *_options_of(client.AbstractConnection)}
    if secure:
        known |= _options_of(client.Connection)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            if name in _options_of(client.SSLConnection):
                scheme = parts.scheme.replace("redis", "rediss", 1)
                remedy = f"begin the address with {scheme}://" if scheme != parts.scheme else "leave it out"
                raise UnusableAddress(f"has the option {name}, which is for TLS", remedy)
            near = get_close_matches(name, sorted(known), n=1)
            remedy = f"write {near[0]}" if near else "leave it out"
            raise UnusableAddress(f"has the option {name!r:.60}, which redis-py does not know", remedy)
        if name in VALUES and value not in VALUES[name]:
            remedy = f"write {name}={VALUES[name][0]}, or leave it out"
            raise UnusableAddress(f"has the option {name} with a value that it cannot have", remedy)
        try:
            number = readers.get(name, str)(value)
            if isinstance(number, (int, float)) and not 0 <= number < math.inf:
                raise ValueError
        except (TypeError, ValueError):
            raise UnusableAddress(f"has the option {name} with a value that it cannot have", "correct it") from None


def _options_of(kind: type) -> set[str]:
    return set(inspect.signature(vars(kind)["__init__"]).parameters) - {"self", "kwargs"}
