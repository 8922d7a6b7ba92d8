"""The environment, read once into a frozen, validated dataclass: this project's own part and the library's."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url

from switchyard import conf
from switchyard.conf import SwitchyardSettings, remedy_for_metrics, setting_of_metrics
from switchyard.files.addresses import StorageAddress, address_of
from switchyard.setting_values import InvalidSetting, number_of, with_files, with_valid_port

BASE_DIR = Path(__file__).resolve().parent.parent
DEVELOPMENT_HOSTS = ("localhost", "127.0.0.1", "[::1]")
# Beginning of fixed keys: the web answers only this machine with them, see project/middleware.py.
DEVELOPMENT_KEY = "development-only-"
TOPOLOGY = "project.topology.YARD"
# Those that the library does not read: a check warns of others, which are misspelt, and the doctor speaks of these.
VARIABLES = (
    "DJANGO_DEBUG",
    "DATABASE_BOUNCED",
    "SWITCHYARD_STORAGE_URL",
    "SWITCHYARD_SMTP_URL",
    "SWITCHYARD_PAYMENT_SECRET",
    "SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES",
    "SWITCHYARD_RETENTION_DAYS",
)


@dataclass(frozen=True, slots=True)
class Config:
    """Validated environment of this project. Names follow the variables, see docs/reference/environment.md.

    Values that are or may contain secrets are left out of ``repr``: debug pages and tracebacks show that.

    Args:
        database_bounced: Whether ``database_url`` is that of a PgBouncer in transaction mode.
        database_direct_url: Address of the database server itself, for migrations.
        allowed_private_addresses: Host and port that outgoing requests may reach although the address is private.
        retention_days: Days for which each kind of data is kept; a kind that is not named is kept for good.
        library: Settings that the platform apps read.
    """

    debug: bool
    secret_key: str = field(repr=False)
    allowed_hosts: tuple[str, ...]
    database_url: str = field(repr=False)
    database_bounced: bool
    database_direct_url: str = field(repr=False)
    storage: StorageAddress
    smtp_url: str = field(repr=False)
    payment_secret: str = field(repr=False)
    allowed_private_addresses: frozenset[tuple[str, int]]
    retention_days: dict[str, int]
    ssl_redirect: bool
    hsts_s: int
    library: SwitchyardSettings

    @property
    def has_development_keys(self) -> bool:
        """Whether a key is the fixed one of development, which everybody knows."""
        return any(key.startswith(DEVELOPMENT_KEY) for key in (self.secret_key, self.payment_secret))


def load(environ: Mapping[str, str]) -> Config:
    """Read and validate the environment.

    Raises:
        InvalidSetting: a value cannot be used, or is missing or unsafe with ``DJANGO_DEBUG=0``.
    """
    environ = with_files(environ)
    debug = _flag(environ, "DJANGO_DEBUG", default=True)
    secret_key = _secret(environ, "DJANGO_SECRET_KEY", debug=debug)
    hosts = _allowed_hosts(environ, debug=debug)
    declared = {"TOPOLOGY": TOPOLOGY, "CONFIGURE_LOGGING": True, "VARIABLES": VARIABLES, "SENDS": "outbox"}
    bounced = _flag(environ, "DATABASE_BOUNCED", default=False)
    library = conf.read(declared, environ, debug=debug, base_dir=BASE_DIR, hosts=hosts)
    storage_url = environ.get("SWITCHYARD_STORAGE_URL") or (library.state_dir / "media").as_uri()
    return Config(
        debug=debug,
        secret_key=secret_key,
        allowed_hosts=hosts,
        database_url=_database_url("DATABASE_URL", environ.get("DATABASE_URL"), library.state_dir),
        database_bounced=bounced,
        database_direct_url=_direct_url(environ, library.state_dir, bounced=bounced),
        storage=address_of("SWITCHYARD_STORAGE_URL", storage_url),
        smtp_url=_smtp_url(environ),
        payment_secret=_secret(environ, "SWITCHYARD_PAYMENT_SECRET", debug=debug),
        allowed_private_addresses=_addresses(environ, "SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES"),
        retention_days=_days(environ, "SWITCHYARD_RETENTION_DAYS"),
        ssl_redirect=_flag(environ, "DJANGO_SSL_REDIRECT", default=False),
        hsts_s=number_of("DJANGO_HSTS_S", environ.get("DJANGO_HSTS_S") or "0", least=0, most=9_999_999_999),
        library=library,
    )


def _database_url(variable: str, value: str | None, state_dir: Path) -> str:
    url = value or f"sqlite:///{state_dir / 'db.sqlite3'}"
    with_valid_port(variable, url)
    scheme, separator, _ = url.partition("://")
    try:
        parsed = dj_database_url.parse(url)
    except ValueError as error:  # its words may quote a part of the password
        fact = f"{scheme!r:.40} is not a database" if separator else "is not a URL"
        remedy = f"set {variable} to for example postgresql://user:password@host/name"
        raise InvalidSetting(variable, fact, remedy) from error
    pool = parsed.get("OPTIONS", {}).get("pool", 0)
    if scheme in ("postgres", "postgresql") and not parsed.get("NAME") and not parsed.get("OPTIONS", {}).get("service"):
        remedy = "append it after the host: postgresql://user:password@host/name"
        raise InvalidSetting(variable, "names no database", remedy)
    if type(pool) is not int:  # a whole number is read as one, "true" as a bool
        fact = f"has pool={pool!r:.40}, which is not a number of connections"
        raise InvalidSetting(variable, fact, "write for example ?pool=10, or leave it out")
    return url


def _direct_url(environ: Mapping[str, str], state_dir: Path, *, bounced: bool) -> str:
    direct = environ.get("DATABASE_DIRECT_URL")
    if bounced and not direct:
        remedy = "set it to the address of the PostgreSQL server itself, which migrations use"
        raise InvalidSetting("DATABASE_DIRECT_URL", "is not set, and DATABASE_BOUNCED=1", remedy)
    return _database_url("DATABASE_DIRECT_URL", direct or environ.get("DATABASE_URL"), state_dir)


def make_metrics_dir(library: SwitchyardSettings) -> None:
    """Create the folder in which the processes of this machine share metrics.

    Raises:
        InvalidSetting: it cannot be created, because the folder above is another user's for example.
    """
    try:
        library.metrics_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fact = f"{error.filename} cannot be created: {str(error.strerror).lower()}"
        raise InvalidSetting(setting_of_metrics(library), fact, remedy_for_metrics(error, library)) from error


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name, "")
    if value not in ("", "0", "1"):
        raise InvalidSetting(name, f"{value!r} is neither 0 nor 1", f"set {name}=1 for yes, or 0 for no")
    return default if value == "" else value == "1"


def _secret(environ: Mapping[str, str], name: str, *, debug: bool) -> str:
    value = environ.get(name, "")
    if value == "" and debug:
        return f"{DEVELOPMENT_KEY}{name}"
    if len(value) < 32:
        fact = "is not set" if value == "" else f"has {len(value)} characters, 32 are the least"
        raise InvalidSetting(name, fact, f"set {name} to a random value, for example {secrets.token_urlsafe(48)!r}")
    return value


def _allowed_hosts(environ: Mapping[str, str], *, debug: bool) -> tuple[str, ...]:
    hosts = tuple(host for host in environ.get("DJANGO_ALLOWED_HOSTS", "").replace(",", " ").split() if host)
    if debug:
        return hosts or DEVELOPMENT_HOSTS
    if not hosts or "*" in hosts:
        fact = "'*' allows every host" if hosts else "is not set"
        raise InvalidSetting("DJANGO_ALLOWED_HOSTS", fact, "name the hosts, for example yard.example.com")
    return hosts


def _addresses(environ: Mapping[str, str], name: str) -> frozenset[tuple[str, int]]:
    """Return pairs of host and port, from text with spaces or commas between."""
    found = set()
    for entry in environ.get(name, "").replace(",", " ").split():
        host, _, port = entry.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
            raise InvalidSetting(name, f"{entry!r} is not a host:port", f"set {name} to for example 127.0.0.1:9000")
        found.add((host.strip("[]"), int(port)))
    return frozenset(found)


def _days(environ: Mapping[str, str], name: str) -> dict[str, int]:
    """Return days by name, from text such as ``reports=365 exports=30``; 0 days are left out."""
    found: dict[str, int] = {}
    for pair in environ.get(name, "").replace(",", " ").split():
        kind, _, days = pair.partition("=")
        if not kind.isidentifier():
            raise InvalidSetting(
                name, f"{pair!r:.60} is not a name with its days", "write for example pictures=90 exports=30"
            )
        if kind in found:
            raise InvalidSetting(name, f"names {kind} twice", "write it once")
        found[kind] = number_of(f"{name}, {kind}", days, least=0, most=36_500)
    return {kind: days for kind, days in found.items() if days}


def _smtp_url(environ: Mapping[str, str]) -> str:
    value = environ.get("SWITCHYARD_SMTP_URL") or "smtp://127.0.0.1:8025"
    parts = urlsplit(value)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise InvalidSetting(
            "SWITCHYARD_SMTP_URL", "is not an smtp: URL", "use for example smtp://user:password@mail:587"
        )
    return value
