"""Mistakes in the broker's server, as system checks; of mail without a timeout; and of what others can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import global_settings, settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.encoding import force_str
from django.utils.module_loading import import_string

from switchyard.addon import addons
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.redis.addresses import is_loopback, split_hosts
from switchyard.broker.redis.calls import calls_on
from switchyard.conf import switchyard_settings

IDS = {
    "evicting": "switchyard.E015",
    "nothing_kept": "switchyard.E016",
    "replica": "switchyard.E017",
    "too_old": "switchyard.E017",
    "disk": "switchyard.E017",
    "away": "switchyard.W001",
    "unverified": "switchyard.W001",
    "snapshots_only": "switchyard.W003",
    "nearly_full": "switchyard.W004",
    "loading": "switchyard.W001",
}


def unsafe_server(url: str, *, debug: bool) -> list[CheckMessage]:
    """Check whether the server may lose work, within about 2 s, also when it does not answer.

    Args:
        url: Address of the broker. Never shown: it may hold a password.
        debug: A server of a development machine may do without persistence.
    """
    from switchyard.broker.health.server import away  # a check without a server is done before these are loaded
    from switchyard.broker.health.servers import servers_of
    from switchyard.broker.redis.connections import connect

    calls = calls_on(connect(url, profile="quick", absence=switchyard_settings().absence), budget_s=1.0)
    try:
        servers = servers_of(calls, Keys())
        found = servers.findings(servers.read(production=not debug))
    except BrokerUnavailable as error:
        found = [away(error)]
    finally:
        calls.close()
    words = (addon.load("words") for addon in addons()) if found else ()
    ids = IDS | {code: each.check for of_addon in words if of_addon for code, each in of_addon.items()}
    return [
        (Error if each.severity == "error" and not each.partial else Warning)(
            each.seen, hint=each.remedy, obj="broker", id=ids[each.code]
        )
        for each in found
    ]


# One of these in the settings means that somebody sends mail; Django has a default for each.
DEFAULT_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
SMTP_SETTINGS = ("EMAIL_BACKEND", "EMAIL_HOST", "EMAIL_HOST_USER", "EMAIL_PORT")


def endless_mail() -> Iterator[CheckMessage]:
    """E006: mail goes through SMTP without a timeout, so that sending may block for ever."""
    for name, timeout in _smtp_timeouts():
        if not timeout:
            fact = f"{name} is {timeout!r}, so a mail server that hangs holds its slot for ever"
            yield Error(fact, f"Set {name} to seconds, for example 8, in the settings.", "settings", "switchyard.E006")


def _smtp_timeouts() -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of the setting with the timeout of each mail server."""
    mailers = getattr(settings, "MAILERS", None)  # of Django 6.1, which then has no EMAIL_TIMEOUT
    if mailers is None:
        if _sends_by_smtp():
            yield "EMAIL_TIMEOUT", _email_setting("EMAIL_TIMEOUT")
        return
    for alias, mailer in mailers.items():
        if _is_smtp(mailer.get("BACKEND", DEFAULT_BACKEND)):
            yield f'MAILERS["{alias}"]["OPTIONS"]["timeout"]', mailer.get("OPTIONS", {}).get("timeout")


def _email_setting(name: str) -> Any:
    """Return a setting. Django 6.1 warns of reading one, also of one that the project does not have."""
    return getattr(settings if settings.is_overridden(name) else global_settings, name)  # type: ignore[misc]


def _is_smtp(path: str) -> bool:
    if path == DEFAULT_BACKEND:
        return True
    from django.core.mail.backends.smtp import EmailBackend as SmtpBackend

    try:
        backend = import_string(path)
    except ImportError:  # Django's own error names it, at the first mail
        return False
    return isinstance(backend, type) and issubclass(backend, SmtpBackend)


def _sends_by_smtp() -> bool:
    """Return whether mail goes through SMTP, and the settings name a part of it, or the alerts send some."""
    if not _is_smtp(_email_setting("EMAIL_BACKEND")):
        return False
    if any(settings.is_overridden(name) for name in SMTP_SETTINGS):  # type: ignore[misc]
        return True
    return any(url.startswith("mailto:") or "=mailto:" in url for url in switchyard_settings().alert_urls)


EXPOSED: Final = "switchyard.E060"
FORWARDERS: Final = "FORWARDED_ALLOW_IPS"
KEY_CHARACTERS, TOKEN_CHARACTERS, LEAST_DISTINCT = 32, 16, 8
MADE_BY_DJANGO: Final = "django-insecure-"  # Django's own start of a project writes it
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
    return [Error(fact, hint=remedy, obj=name, id=EXPOSED) for name, fact, remedy in _unsafe()]


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
                fact = f"{far} is a public address, reached without TLS"
                yield name, fact, "Use its scheme with TLS, such as rediss://."


def _is_weak(secret: str, characters: int) -> bool:
    return len(secret) < characters or len(set(secret)) < LEAST_DISTINCT


def _is_public(host: str) -> bool:
    """Return whether a host is written as an address of no private network. A name says nothing: it may lead to one."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not any(address in network for network in PRIVATE)
