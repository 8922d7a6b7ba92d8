"""The environment, read once into a frozen, validated dataclass."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent
DEVELOPMENT_HOSTS = ("localhost", "127.0.0.1", "[::1]")
BROKER_SCHEMES = ("redis", "rediss", "unix")
LOG_FORMATS = ("json", "console")


class ConfigError(Exception):
    """The environment asks for something that cannot or must not be done. CancellationWatch the start with exit 78."""

    def __init__(self, variable: str, fact: str, remedy: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {fact}; {remedy}")


@dataclass(frozen=True, slots=True)
class Config:
    """What the environment says, checked. Names follow the variables, see docs/reference/environment.md.

    What is or may hold a secret is left out of its ``repr``: debug pages and tracebacks show that.
    """

    debug: bool
    secret_key: str = field(repr=False)
    allowed_hosts: tuple[str, ...]
    broker_url: str = field(repr=False)
    database_url: str = field(repr=False)
    storage_url: str
    alert_urls: tuple[str, ...] = field(repr=False)
    allowed_private_addresses: frozenset[tuple[str, int]]
    metrics_token: str = field(repr=False)
    metrics_dir: Path
    release: str
    log_format: str
    smtp_url: str = field(repr=False)
    public_url: str
    payment_secret: str = field(repr=False)
    state_dir: Path


def load(environ: Mapping[str, str]) -> Config:
    """Read and check the environment.

    Raises:
        ConfigError: a value cannot be used, or is missing or unsafe with ``DJANGO_DEBUG=0``.
    """
    debug = _flag(environ, "DJANGO_DEBUG", default=True)
    state_dir = Path(environ.get("SWITCHYARD_STATE_DIR", BASE_DIR / "var")).resolve()
    return Config(
        debug=debug,
        secret_key=_secret(environ, "DJANGO_SECRET_KEY", debug=debug),
        allowed_hosts=_allowed_hosts(environ, debug=debug),
        broker_url=_broker_url(environ, state_dir, debug=debug),
        database_url=_with_a_port(
            "DATABASE_URL", environ.get("DATABASE_URL") or f"sqlite:///{state_dir / 'db.sqlite3'}"
        ),
        storage_url=_storage_url(environ, state_dir),
        alert_urls=tuple(environ.get("SWITCHYARD_ALERT_URLS", "").split()),
        allowed_private_addresses=_addresses(environ, "SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES"),
        metrics_token=environ.get("SWITCHYARD_METRICS_TOKEN", ""),
        metrics_dir=Path(environ.get("PROMETHEUS_MULTIPROC_DIR", state_dir / "metrics")),
        release=environ.get("SWITCHYARD_RELEASE") or _git_release(),
        log_format=_choice(environ, "SWITCHYARD_LOG_FORMAT", LOG_FORMATS, default="console" if debug else "json"),
        smtp_url=_smtp_url(environ),
        public_url=_public_url(environ, debug=debug),
        payment_secret=_secret(environ, "SWITCHYARD_PAYMENT_SECRET", debug=debug),
        state_dir=state_dir,
    )


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ConfigError(name, f"{value!r} is neither 0 nor 1", f"set {name}=0 in production")
    return default if value == "" else value == "1"


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...], *, default: str) -> str:
    value = environ.get(name) or default
    if value not in choices:
        raise ConfigError(name, f"{value!r} is not one of {', '.join(choices)}", f"set {name}={choices[0]}")
    return value


def _secret(environ: Mapping[str, str], name: str, *, debug: bool) -> str:
    value = environ.get(name, "")
    if value == "" and debug:
        return f"development-only-{name}"
    if len(value) < 32:
        fact = "is not set" if value == "" else f"has {len(value)} characters, 32 are the least"
        raise ConfigError(name, fact, f"set {name} to a random value, for example {secrets.token_urlsafe(32)!r}")
    return value


def _allowed_hosts(environ: Mapping[str, str], *, debug: bool) -> tuple[str, ...]:
    hosts = tuple(host for host in environ.get("DJANGO_ALLOWED_HOSTS", "").replace(",", " ").split() if host)
    if debug:
        return hosts or DEVELOPMENT_HOSTS
    if not hosts:
        raise ConfigError("DJANGO_ALLOWED_HOSTS", "is not set", "name the hosts, for example yard.example.com")
    if "*" in hosts:
        raise ConfigError(
            "DJANGO_ALLOWED_HOSTS", "'*' allows every host", "name the hosts, for example yard.example.com"
        )
    return hosts


def _broker_url(environ: Mapping[str, str], state_dir: Path, *, debug: bool) -> str:
    value = environ.get("SWITCHYARD_BROKER_URL", "")
    if value == "":
        if not debug:
            remedy = "name the broker, for example rediss://user:password@valkey:6379/0"
            raise ConfigError("SWITCHYARD_BROKER_URL", "is not set", remedy)
        return f"unix://{state_dir / 'valkey.sock'}"
    parts = urlsplit(value)
    if parts.scheme not in BROKER_SCHEMES:
        fact = f"scheme {parts.scheme!r} is not one of {', '.join(BROKER_SCHEMES)}"
        raise ConfigError("SWITCHYARD_BROKER_URL", fact, "use for example redis://127.0.0.1:6379/0")
    _with_a_port("SWITCHYARD_BROKER_URL", value)
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not debug and parts.scheme != "unix" and not loopback and not parts.password:
        remedy = "put a user and password into the URL, for example redis://user:password@valkey:6379/0"
        raise ConfigError("SWITCHYARD_BROKER_URL", f"{parts.hostname} is reached without a password", remedy)
    return value


def _with_a_port(name: str, url: str) -> str:
    """Return an address whose port, if it has one, is a number."""
    try:
        urlsplit(url).port  # noqa: B018  what it raises quotes a part of the address, maybe of its password
    except ValueError:
        remedy = "write /, ? and # within a password as %2F, %3F and %23"
        raise ConfigError(name, "has a port that is no number", remedy) from None
    return url


def _storage_url(environ: Mapping[str, str], state_dir: Path) -> str:
    value = environ.get("SWITCHYARD_STORAGE_URL") or f"file://{state_dir / 'media'}"
    if urlsplit(value).scheme != "file":
        fact = f"{value!r} is no file: URL"
        raise ConfigError("SWITCHYARD_STORAGE_URL", fact, "use for example file:///var/lib/switchyard/media")
    return value


def _smtp_url(environ: Mapping[str, str]) -> str:
    value = environ.get("SWITCHYARD_SMTP_URL") or "smtp://127.0.0.1:8025"
    parts = urlsplit(value)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ConfigError("SWITCHYARD_SMTP_URL", "is no smtp: URL", "use for example smtp://user:password@mail:587")
    return value


def _public_url(environ: Mapping[str, str], *, debug: bool) -> str:
    default = "http://127.0.0.1:8000" if debug else f"https://{_allowed_hosts(environ, debug=debug)[0].lstrip('.')}"
    value = (environ.get("SWITCHYARD_PUBLIC_URL") or default).rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("SWITCHYARD_PUBLIC_URL", f"{value!r} is no web address", "use https://yard.example.com")
    return value


def _addresses(environ: Mapping[str, str], name: str) -> frozenset[tuple[str, int]]:
    found = set()
    for entry in environ.get(name, "").replace(",", " ").split():
        host, _, port = entry.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(name, f"{entry!r} is no host:port", f"set {name} to for example 127.0.0.1:9000")
        found.add((host.strip("[]"), int(port)))
    return frozenset(found)


def _git_release() -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(BASE_DIR), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
