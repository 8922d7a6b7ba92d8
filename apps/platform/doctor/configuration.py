"""Configuration: Django's and the yard's system checks, and defaults that are unsafe where others can reach them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import ERROR, CheckMessage
from django.core.checks.registry import registry
from django.db import connection

from apps.platform.conf import switchyard_settings
from apps.platform.doctor.finding import Finding, Severity
from apps.platform.workers.checks import server_keeps_work, server_keeps_work_deployed

GROUP = "configuration"
# They ask the broker's server, which has a group of its own.
ELSEWHERE = (server_keeps_work, server_keeps_work_deployed)
# What the proxy in front of the web does, see docs/how-to/deploy-with-compose.md.
OF_THE_PROXY = ("security.W004", "security.W008")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def look() -> Iterator[Finding]:
    """Run every system check that needs nothing but the code, those for a deployment only where it is one."""
    found = [message for message in _messages() if not message.is_silenced() and message.id not in OF_THE_PROXY]
    for message in found:
        yield _finding(message)
    if not found:
        kind = "development" if settings.DEBUG else "production"
        yield Finding(
            GROUP, "checks", "ok", f"every system check passes ({kind}, release {switchyard_settings().release})"
        )
    yield from _unsafe_defaults()


def _messages() -> Iterator[CheckMessage]:
    for check in registry.get_checks(include_deployment_checks=not settings.DEBUG):
        if check not in ELSEWHERE:
            yield from check(app_configs=None, databases=None)


def _finding(message: CheckMessage) -> Finding:
    subject = "" if message.obj is None else str(message.obj)
    seen = f"{subject}: {message.msg}" if subject else str(message.msg)
    severity: Severity = "error" if message.level >= ERROR else "warning"
    cause = "The code or its settings; `manage.py check` says the same" + ("" if settings.DEBUG else " with --deploy")
    return Finding(
        GROUP,
        str(message.id),
        severity,
        seen,
        cause,
        str(message.hint or "See docs/reference/system-checks.md"),
        subject,
    )


def _unsafe_defaults() -> Iterator[Finding]:
    config = switchyard_settings()
    if settings.DEBUG:
        hosts = {
            "SWITCHYARD_BROKER_URL": urlsplit(config.broker_url).hostname,
            "DATABASE_URL": settings.DATABASES["default"].get("HOST"),  # a path is a socket's folder
        }
        remote = [name for name, host in hosts.items() if host and host not in LOOPBACK and not host.startswith("/")]
        if remote:
            seen = f"DJANGO_DEBUG is on, and another machine is named by {' and '.join(remote)}"
            cause = "A deployment without its environment: the secrets are the development ones that everybody knows"
            yield Finding(GROUP, "debug", "error", seen, cause, "Set DJANGO_DEBUG=0 and what it then asks for")
        return
    if not config.alert_urls:
        seen = "SWITCHYARD_ALERT_URLS is not set: alerts reach nobody but the log and the admin"
        yield Finding(
            GROUP,
            "no_alert_urls",
            "warning",
            seen,
            "The default",
            "Set SWITCHYARD_ALERT_URLS=mailto:oncall@example.com",
        )
    if connection.vendor == "sqlite":
        seen = "the database is an SQLite file, which serves the processes of this one machine only"
        cause = "DATABASE_URL is not set, or names a file"
        yield Finding(GROUP, "sqlite", "warning", seen, cause, "Set DATABASE_URL=postgresql://user:password@host/name")
