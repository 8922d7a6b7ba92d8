"""Addresses that name several hosts, with commas between: those of a cluster and of sentinels."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

# Scheme, login and hosts; the rest begins with a path, a query or nothing.
PARTS = re.compile(r"([^:/?#]*://)((?:[^/?#]*@)?)([^/?#]*)(.*)", re.DOTALL)


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
