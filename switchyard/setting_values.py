"""Rules of single settings: each returns the value to use, or raises :class:`InvalidSetting` with a remedy."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from switchyard.addon import addon_for, addons
from switchyard.broker.errors import SwitchyardError, UnusableAddress
from switchyard.broker.redis.addresses import SCHEMES, check_options, is_loopback, is_sentinel_url, split_hosts

BROKER_SCHEMES = ("redis", "rediss", "unix", *SCHEMES)
# Scheme of an address -> its modules, with requirement and extra of the wheel as pyproject.toml has them.
PACKAGES: Final = {
    "s3": ("boto3 storages", "django-storages[s3]>=1.14.6,<1.15", "s3"),
    "gs": ("google.cloud.storage storages", "django-storages[google]>=1.14.6,<1.15", "gcs"),
}
DRIVER: Final = ("psycopg[binary,pool]>=3.2", "postgres")
WEB_SERVER: Final = ("uvicorn", "uvicorn>=0.54,<1", "web")
LOG_FORMATS = ("json", "console")
BRACKETS = "has a bracket that belongs to no IPv6 address"
PRODUCTION_BROKER = "name the broker, for example rediss://user:password@valkey:6379/0"


class InvalidSetting(SwitchyardError):
    """A setting or environment variable that cannot or must not be used. It stops the start with exit code 78.

    ``name`` is the environment variable, or ``SWITCHYARD["KEY"]``.
    """

    def __init__(self, name: str, fact: str, remedy: str) -> None:
        self.name, self.fact, self.remedy = name, fact, remedy
        super().__init__(f"{name}: {fact}; {remedy}")


# Ends the name of a variable that names a file with the value: a secret in a file is in no process's environment.
FILE: Final = "_FILE"


def with_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the contents of the files that ``DATABASE_URL_FILE`` and the like name.

    Every ``SWITCHYARD_…``, ``DJANGO_…`` and ``DATABASE_…`` may be given so. Whitespace around the contents is dropped,
    and an empty file is no value.

    Raises:
        InvalidSetting: a file cannot be read, or the variable is set as well.
    """
    found = dict(environ)
    for name, path in environ.items():
        variable = name.removesuffix(FILE)
        if variable == name or not path or not variable.startswith(("SWITCHYARD_", "DJANGO_", "DATABASE_")):
            continue
        if environ.get(variable):
            raise InvalidSetting(name, f"is set, and {variable} as well", "leave one of them out")
        try:
            found[variable] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            remedy = "name a file that this user may read"
            raise InvalidSetting(name, f"{path} cannot be read: {reason}", remedy) from error
    return found


def with_valid_port(name: str, url: str) -> str:
    """Return an URL whose port is none or a number; no error has it, as what looks like one may be a password."""
    try:
        urlsplit(url).port  # noqa: B018  the error quotes a part of the URL, perhaps of its password
    except ValueError as error:
        fact = "has a port that is not a number from 0 to 65535" if str(error).startswith("Port") else BRACKETS
        remedy = "correct it, and write /, ?, # and [ within a password as %2F, %3F, %23 and %5B"
        raise InvalidSetting(name, fact, remedy) from None
    return url


def refuse_without(name: str, package: tuple[str, str, str], scheme: str) -> None:
    """Refuse an address without its client: a package of modules, requirement and extra of the wheel, "" for none."""
    modules, requirement, extra = package
    if not all(map(_exists, modules.split())):
        distribution = re.split("[<>=]", requirement, maxsplit=1)[0]
        fact = f"{scheme}: needs the package {distribution}, which is not installed"
        raise InvalidSetting(name, fact, _installs(requirement, extra))


def refuse_without_driver(databases: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a PostgreSQL in ``DATABASES`` without its driver, before Django does so with a traceback."""
    for alias, database in databases.items():
        if not str(database.get("ENGINE", "")).endswith((".postgresql", ".postgis")):
            continue
        name, remedy = f'DATABASES["{alias}"]', _installs(*DRIVER)
        if error := _import_error("psycopg"):
            if _import_error("psycopg2"):  # Django works with either
                raise InvalidSetting(name, f"PostgreSQL needs the package psycopg: {error}", remedy)
        elif (database.get("OPTIONS") or {}).get("pool") and (error := _import_error("psycopg_pool")):
            raise InvalidSetting(name, f"pool in OPTIONS needs the package psycopg_pool: {error}", remedy)


def _installs(requirement: str, extra: str) -> str:
    return f"run: pip install '{requirement}', which the extra {extra} of the wheel brings"


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of it
        return False


def _import_error(module: str) -> str:
    """Return why a module cannot be imported, in one line, or "" when it can."""
    try:
        import_module(module)
    except ImportError as error:
        return " ".join(str(error).split())
    return ""


def choice_of(name: str, value: str, choices: tuple[str, ...], *, default: str) -> str:
    """Return a value that is one of ``choices``, or the default for an empty one."""
    value = value or default
    if value not in choices:
        raise InvalidSetting(name, f"{value!r} is not one of {', '.join(choices)}", f"set {name}={choices[0]}")
    return value


def whole_number(value: Any) -> Any:
    """Return the number of a text, as the environment gives it; any other value as it is."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def number_of(name: str, value: Any, *, least: int, most: int) -> int:
    """Return a whole number in a range."""
    number = whole_number(value)
    if type(number) is not int or not least <= number <= most:
        fact = f"{value!r} is not a number from {least:,} to {most:,}"
        raise InvalidSetting(name, fact, f"set it to one, or leave {name} out")
    return number


def broker_url_of(name: str, value: str, state_dir: Path, *, debug: bool) -> str:
    """Return the broker's address, in development a socket in the state folder. In production it needs a password."""
    if value == "":
        if not debug:
            raise InvalidSetting(name, "is not set", PRODUCTION_BROKER)
        return f"unix://{state_dir / 'valkey.sock'}"
    try:
        parts, each = split_hosts(value)
    except ValueError:
        raise InvalidSetting(name, BRACKETS, "correct it, and write [ within a password as %5B") from None
    if not value.startswith(parts.scheme):  # redis-py knows it in lower case only
        raise InvalidSetting(name, f"begins with {value[: len(parts.scheme)]!r}", f"write {parts.scheme}")
    addon = None if parts.scheme in BROKER_SCHEMES else addon_for(parts.scheme)
    if parts.scheme not in BROKER_SCHEMES and (addon is None or not addon.connect):
        beside = name.endswith("REDIS_URL")  # keeps no messages
        more = (scheme for found in addons() if not (beside and found.keeps_queues) for scheme in found.schemes)
        known = tuple(dict.fromkeys((*BROKER_SCHEMES, *more)))
        fact = f"scheme {parts.scheme!r} is not one of {', '.join(known)}"
        raise InvalidSetting(name, fact, "use for example redis://127.0.0.1:6379/0")
    try:
        own: tuple[str, ...] = ()
        if is_sentinel_url(value):
            from switchyard.broker.redis import sentinel

            own = sentinel.OWN
            hosts = {host for host, _ in sentinel.parse(value).sentinels}
        elif hosts_of := addon and addon.load("hosts"):
            hosts = hosts_of(value)
        else:
            if len(each) > 1:
                raise InvalidSetting(name, f"names {len(each)} servers", f"name one, or sentinels with {SCHEMES[0]}://")
            hosts = {parts.hostname} if parts.hostname else set()
            with_valid_port(name, value)
            database = unquote(parts.path).strip("/")
            if parts.scheme != "unix" and database and not database.isdecimal():  # redis-py would use database 0
                remedy = "write for example redis://127.0.0.1:6379/0, and / within a password as %2F"
                raise InvalidSetting(name, "has a database that is not a number", remedy)
        check_options(value, own=own)
    except UnusableAddress as error:
        raise InvalidSetting(name, error.fact, error.remedy) from None
    loopback = hosts and all(map(is_loopback, hosts))
    if not debug and parts.scheme != "unix" and not loopback and not parts.password:
        remedy = "put a user and password into the URL, for example redis://user:password@valkey:6379/0"
        far = min((host for host in hosts if not is_loopback(host)), default=parts.hostname)
        raise InvalidSetting(name, f"{far} is reached without a password", remedy)
    return value


def public_url_of(name: str, value: str, hosts: Iterable[str], *, debug: bool) -> str:
    """Return the root of the web's address, without a slash at the end."""
    if value == "" and debug:
        value = "http://127.0.0.1:8000"
    if value == "":
        host = next((host.lstrip(".") for host in hosts if host != "*"), "")
        if not host:
            raise InvalidSetting(name, "is not set, and ALLOWED_HOSTS names no host", "use https://yard.example.com")
        value = f"https://{host}"
    parts = urlsplit(with_valid_port(name, value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or " " in value:
        raise InvalidSetting(name, f"{value!r} is not a web address", "use https://yard.example.com")
    return value.rstrip("/")


def heartbeat_url_of(name: str, value: str) -> str:
    """Return the address of a watcher, or "". It is a secret, and not in the error's message."""
    parts = urlsplit(with_valid_port(name, value))
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise InvalidSetting(name, "is not a web address", "use https://watcher.example.com/…, or leave it out")
    return value


def git_release(folder: Path) -> str:
    """Return the commit of a folder's repository, shortened to 12 characters, or ``unknown``."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
