"""Table of networks that no outgoing request may reach.

Python's ``ipaddress`` calls several of these global (``64:ff9b::7f00:1``, ``2002:7f00:1::``, ``::127.0.0.1``,
``fec0::1``), so only this table decides. An IPv6 address that embeds an IPv4 address must pass for both.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

IPAddress = IPv4Address | IPv6Address

_DENIED = tuple(
    (ip_network(network), name)
    for network, name in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarks"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3ffe::/16", "the former 6bone"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")


def denial(address: IPAddress) -> str | None:
    """Return why an address is forbidden (``"loopback"``, ``"NAT64 of 10.0.0.1, private"``), or ``None``."""
    if isinstance(address, IPv4Address):
        return _named(address)
    for kind, inner in _carried(address):
        reason = denial(inner)
        if reason is not None:
            return f"{kind} of {inner}, {reason}"
    if address in _MAPPED or address in _NAT64:
        return None
    reason = _named(address)
    if reason is None and address not in _GLOBAL_UNICAST:
        return "not global unicast"
    return reason


def _named(address: IPAddress) -> str | None:
    return next((name for network, name in _DENIED if address in network), None)


def _carried(address: IPv6Address) -> list[tuple[str, IPv4Address]]:
    """Return the IPv4 addresses that an IPv6 address embeds, with the kind of embedding."""
    number = int(address)
    low = IPv4Address(number & 0xFFFF_FFFF)
    if address in _MAPPED:
        return [("IPv4-mapped form", low)]
    if address in _NAT64:
        return [("NAT64", low)]
    if address in _COMPATIBLE and number > 0xFFFF:
        return [("IPv4-compatible form", low)]
    if address in _SIX_TO_FOUR:
        return [("6to4", IPv4Address(number >> 80 & 0xFFFF_FFFF))]
    if address in _TEREDO:
        client = IPv4Address(~number & 0xFFFF_FFFF)
        return [("Teredo", client), ("Teredo server", IPv4Address(number >> 64 & 0xFFFF_FFFF))]
    return []
