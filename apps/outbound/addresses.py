"""Check of outgoing URLs: each is parsed once, resolved once, and every resolved address is checked.

The check works on binary addresses, and only a checked address is connected to, so neither an unusual spelling nor a
name whose answer changes between check and use (DNS rebinding) reaches an internal address.
"""

import contextlib
import re
import socket
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, urlsplit

from django.conf import settings

from apps.outbound.errors import DeadlineExceeded, ForbiddenAddress, Unreachable
from apps.outbound.networks import denial

DEFAULT_PORTS = {"http": 80, "https": 443}
PORTS = (80, 443, 8443)
MAX_URL_CHARACTERS = 2048
MAX_HOST_CHARACTERS = 253
RESOLVE_DEADLINE_S = 3.0

_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Characters allowed in a path or query; all others are percent-encoded.
_KEPT = "%/:=&?~+!$,;'@()*[]"


@dataclass(frozen=True, slots=True)
class Place:
    """Parts of a strictly parsed URL.

    Args:
        host: Lower case, ASCII, no brackets and no trailing dot.
        literal: The address, when ``host`` is an IP address.
        target: Path and query as sent.
    """

    scheme: str
    host: str
    port: int
    target: str
    literal: IPv4Address | IPv6Address | None

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def look_up(host: str, port: int, deadline_s: float) -> tuple[str, ...]:
    """Return every address that the system's resolver returns for a host.

    The resolver has no deadline of its own, so it runs in another thread and is abandoned when it takes too long;
    its own timeouts end it. Works in threads and, patched, in greenlets.

    Raises:
        Unreachable: the name does not resolve.
        DeadlineExceeded: no answer within ``deadline_s``.
    """
    found: list[str] = []
    done = threading.Event()

    def ask() -> None:
        try:
            with contextlib.suppress(OSError, UnicodeError):
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
                found.extend(str(answer[4][0]) for answer in answers)
        finally:
            done.set()

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    if not done.wait(max(deadline_s, 0.0)):
        raise DeadlineExceeded(host, deadline_s, "its name was looked up")
    if not found:
        raise Unreachable(host, "its name does not resolve")
    return tuple(dict.fromkeys(found))


def check_url(url: str, *, deadline_s: float = RESOLVE_DEADLINE_S) -> tuple[Place, tuple[str, ...]]:
    """Parse a URL, resolve its host once, check every address, and return its parts and the addresses.

    The setting ``ALLOWED_PRIVATE_ADDRESSES`` names the ``host:port`` pairs, spelt as in the URL, that are
    allowed although the address is private or the port is not a usual one.

    Raises:
        ForbiddenAddress: the URL must not be requested. One bad answer among good ones is enough.
        Unreachable: its host does not resolve.
        DeadlineExceeded: its host did not resolve within ``deadline_s``.
    """
    place = check_form(url)
    if place.literal is not None:
        return place, (str(place.literal),)
    answers = look_up(place.host, place.port, deadline_s)
    for answer in answers:
        _refuse_inner(place, denial(ip_address(answer)))
    return place, answers


def check_form(url: str) -> Place:
    """Parse a URL and check what it says by itself: port, address, and ``localhost``. No name is resolved.

    Raises:
        ForbiddenAddress: the URL must not be requested.
    """
    place = read_url(url)
    if place.port not in PORTS and not _is_allowed(place):
        raise ForbiddenAddress(place.host, f"port {place.port} is not allowed", "use port 80, 443 or 8443")
    if place.literal is not None:
        _refuse_inner(place, denial(place.literal))
    elif f".{place.host}".endswith(".localhost"):  # the loopback by RFC 6761, whatever a resolver answers
        _refuse_inner(place, "loopback")
    return place


def _is_allowed(place: Place) -> bool:
    return (place.host, place.port) in settings.ALLOWED_PRIVATE_ADDRESSES


def _refuse_inner(place: Place, reason: str | None) -> None:
    if reason is not None and not _is_allowed(place):
        raise ForbiddenAddress(
            place.host, f"is not a public address ({reason})", "give a URL that is reachable publicly"
        )


def read_url(url: str) -> Place:
    """Parse a URL strictly: refuse anything that two parsers could read differently.

    Raises:
        ForbiddenAddress: it is no plain ``http`` or ``https`` URL.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise _malformed(f"has {len(url)} characters, {MAX_URL_CHARACTERS} are the most")
    if _UNSAFE.search(url):
        raise _malformed("has a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _malformed("cannot be read") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _malformed("is neither http nor https")
    if "@" in parts.netloc:
        raise _malformed("carries a user or password")
    host, literal = _read_host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    path = quote(parts.path or "/", safe=_KEPT, errors="replace")
    query = quote(parts.query, safe=_KEPT, errors="replace")
    return Place(
        scheme=parts.scheme,
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        target=f"{path}?{query}" if query else path,
        literal=literal,
    )


def _read_host(written: str, *, bracketed: bool) -> tuple[str, IPv4Address | IPv6Address | None]:
    if bracketed:
        try:
            # No zone (fe80::1%eth0): it names an interface of this machine.
            address = IPv6Address("" if "%" in written else written)
        except ValueError:
            raise _malformed("has no IPv6 address between its brackets") from None
        return str(address), address
    try:
        # Full-width and circled digits, ideographic full stops and the like become ASCII here, as in any resolver.
        host = written.encode("idna").decode("ascii").lower() if not written.isascii() else written
    except UnicodeError:
        raise _malformed("has a host that is not a name") from None
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise _malformed("has a host that is not a name")
    if not _NUMBER.fullmatch(labels[-1]):
        return host, None
    try:
        # Refuses 127.1, 0177.0.0.1, 0x7f.1 and 2130706433: resolvers interpret them differently.
        return host, IPv4Address(host)
    except ValueError:
        raise _malformed("has a numeric host that is not a plain IPv4 address") from None


def _malformed(fact: str) -> ForbiddenAddress:
    return ForbiddenAddress("URL", fact, "give one like https://example.com/path")
