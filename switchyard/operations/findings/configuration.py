"""Checks of the configuration: Django's and the yard's system checks, and development defaults in a deployment."""

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import ERROR, CheckMessage
from django.core.checks.registry import registry
from django.db import connection

from switchyard.broker.redis.addresses import is_loopback, split_hosts
from switchyard.conf import switchyard_settings
from switchyard.operations.findings.finding import Finding, FindingGroup, Severity
from switchyard.workers.checks import server_keeps_work, server_keeps_work_deployed

GROUP = FindingGroup("configuration")
# Checks of the broker's server: it has a group of its own.
ELSEWHERE: tuple[object, ...] = (server_keeps_work, server_keeps_work_deployed)
# HTTPS redirection and HSTS are the proxy's task, see docs/how-to/deploy-with-compose.md.
OF_THE_PROXY = ("security.W004", "security.W008")


def look() -> Iterator[Finding]:
    """Run every system check that needs only the code; with ``DEBUG`` off also the checks for deployments."""
    checks = registry.get_checks(include_deployment_checks=not settings.DEBUG)
    said = (each for check in checks if check not in ELSEWHERE for each in check(app_configs=None, databases=None))
    found = [_finding(each) for each in said if not each.is_silenced() and each.id not in OF_THE_PROXY]
    yield from found
    if not found:
        kind = "development" if settings.DEBUG else "production"
        yield GROUP.ok(f"every system check passes ({kind}, release {switchyard_settings().release})")
    yield from _unsafe_defaults()


def _finding(message: CheckMessage) -> Finding:
    subject = "" if message.obj is None else str(message.obj)
    seen = (f"{subject}: {message.msg}" if subject else str(message.msg)).removesuffix(".")
    severity: Severity = "error" if message.level >= ERROR else "warning"
    deploy = "" if settings.DEBUG else " with --deploy"
    cause, step = f"The code or its settings; `manage.py check` reports the same{deploy}", "manage.py check --deploy"
    return GROUP.finding(severity, str(message.id), seen, cause, str(message.hint or step), subject)


def _unsafe_defaults() -> Iterator[Finding]:
    config = switchyard_settings()
    if settings.DEBUG:
        if "DJANGO_DEBUG" not in config.variables:  # development is not what missing variables make it
            return
        hosts = {
            "SWITCHYARD_BROKER_URL": split_hosts(config.broker_url)[0].hostname,
            "DATABASE_URL": settings.DATABASES["default"].get("HOST"),  # a path is a socket's folder
        }
        remote = [name for name, host in hosts.items() if host and not is_loopback(host) and not host.startswith("/")]
        if remote:
            seen = f"DJANGO_DEBUG is on, and another machine is named in {' and '.join(remote)}"
            cause = "A deployment without its environment variables: its secrets are the public development ones"
            yield GROUP.error("debug", seen, cause, "Set DJANGO_DEBUG=0 and the variables that start-up then names")
        return
    if not config.alert_urls:
        seen = "SWITCHYARD_ALERT_URLS is not set: alerts go to the log and the admin only"
        yield GROUP.warning("no_alert_urls", seen, "The default", "Set SWITCHYARD_ALERT_URLS=mailto:oncall@example.com")
    if connection.vendor == "sqlite":
        seen = "the database is an SQLite file, which only processes of this machine can use"
        step = "Name a PostgreSQL in DATABASE_URL, as in postgresql://user:password@host/name"
        yield GROUP.warning("sqlite", seen, "DATABASE_URL is not set or names a file", step)
