"""Unsafe settings of what others can reach, as errors of ``check --deploy``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.utils.encoding import force_str

from switchyard.broker.redis.addresses import is_loopback, split_hosts
from switchyard.conf import switchyard_settings

ID: Final = "switchyard.E060"
FORWARDERS: Final = "FORWARDED_ALLOW_IPS"
KEY_CHARACTERS, TOKEN_CHARACTERS, LEAST_DISTINCT = 32, 16, 8
# Django's own start of a project writes it.
MADE_BY_DJANGO: Final = "django-insecure-"
# Fixed: what Python calls private differs between its versions.
PRIVATE: Final = [
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
]


def unsafe_exposure(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Refuse what is unsafe once others can reach the yard. Values that are secret are not shown."""
    return [Error(fact, hint=remedy, obj=name, id=ID) for name, fact, remedy in _unsafe()]


def _unsafe() -> Iterator[tuple[str, str, str]]:
    own = switchyard_settings()
    web = urlsplit(own.public_url)
    if web.scheme == "http" and not is_loopback(web.hostname):
        yield "SWITCHYARD_PUBLIC_URL", f"{own.public_url} is without TLS", "Serve the web by HTTPS, and write https://."
    if "*" in os.environ.get(FORWARDERS, "").replace(",", " ").split():
        fact = "is *: anybody may claim any address, and that the request came by HTTPS"
        yield FORWARDERS, fact, "Name the addresses of your proxies, for example 10.0.0.5,172.16.0.0/12."
    if "*" in settings.ALLOWED_HOSTS:
        yield "ALLOWED_HOSTS", "is *: links in mails lead wherever a stranger says", "Name the hosts of the web."
    remedy = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(50))'"
    for key in map(force_str, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)):
        if key.startswith(MADE_BY_DJANGO) or _is_weak(key, KEY_CHARACTERS):
            yield "SECRET_KEY", f"one is weak: below {KEY_CHARACTERS} characters, or few different ones", remedy
    if own.metrics_token and _is_weak(own.metrics_token, TOKEN_CHARACTERS):
        yield "SWITCHYARD_METRICS_TOKEN", f"is weak: below {TOKEN_CHARACTERS} characters, or few different ones", remedy
    for name, address in ((own.server_variable, own.broker_url), ("SWITCHYARD_BROKER_URL", own.place_url)):
        parts, hosts = split_hosts(address)
        scheme = parts.scheme.partition("+")[0]  # with TLS it ends with another s
        for host in hosts if scheme == "redis" or not scheme.endswith("s") else ():
            if _is_public(far := urlsplit(f"//{host}").hostname or ""):
                yield (
                    name,
                    f"{far} is a public address, reached without TLS",
                    "Use its scheme with TLS, such as rediss://.",
                )


def _is_weak(secret: str, characters: int) -> bool:
    return len(secret) < characters or len(set(secret)) < LEAST_DISTINCT


def _is_public(host: str) -> bool:
    """Return whether a host is written as an address of no private network. A name says nothing: it may lead to one."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not any(address in network for network in PRIVATE)
