"""The library's own settings: ``SWITCHYARD`` in Django's settings, then the environment, then development defaults.

``SWITCHYARD`` is a dict with keys of :data:`KEYS`, or a ready :class:`SwitchyardSettings`.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from errno import EACCES, EPERM
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec
from django.conf import settings
from django.utils.module_loading import import_string

from switchyard.addon import Addon, addon_for, addons
from switchyard.broker.errors import ADDRESSES, InvalidDeclaration, SwitchyardError
from switchyard.broker.redis.addresses import Absence
from switchyard.broker.stores.job_records import RecordLimits
from switchyard.broker.topology import AlertRule, Pool, Queue, RetryPolicy, Yard
from switchyard.files.addresses import ResultsAddress, results_of
from switchyard.middleware.errors import place
from switchyard.setting_values import (
    BROKER_SCHEMES,
    LOG_FORMATS,
    InvalidSetting,
    broker_url_of,
    choice_of,
    git_release,
    heartbeat_url_of,
    number_of,
    public_url_of,
    refuse_without,
    whole_number,
    with_files,
)

# Imported by the settings: when this process began, in ms since the epoch.
STARTED_MS = time.time_ns() // 1_000_000
SECOND = 1_000
# Full queues take 200 MB of the broker with jobs of 1 KB; 290 bytes is what a job with short arguments takes.
MAX_DEPTH = 100_000
# An idle child has about 100 MB, most of it the project's code. A container needs four times the limit and 160 MB.
CHILD_BYTES = 500_000_000
# With the web and to spare the yard then opens 88 connections at most: PostgreSQL gives 97 by default.
ISOLATED = 2
# A slow leak ends here.
RECYCLE_AFTER = 100_000

# Everybody's actors run in these: they may call anything.
QUEUES: dict[str, Any] = {"calls": "other services", "max_depth": MAX_DEPTH}
POOLS: dict[str, Any] = {"processes": 1, "isolated": ISOLATED}
POOLS |= {"recycle_after": RECYCLE_AFTER, "memory_limit_bytes": CHILD_BYTES}
DEFAULT_YARD = Yard(
    queues=(
        Queue(
            "urgent", 80, done_objective_ms=5 * SECOND, soft_limit_ms=10 * SECOND, hard_limit_ms=15 * SECOND, **QUEUES
        ),
        Queue("default", 1 * SECOND, soft_limit_ms=60 * SECOND, hard_limit_ms=90 * SECOND, **QUEUES),
    ),
    pools=(
        Pool("urgent", "threads", ("urgent",), slots=4, prefetch=4, **POOLS),
        Pool("default", "threads", ("default",), slots=8, **POOLS),
        Pool("retries", "threads", (), slots=4, shared_retries=True, **POOLS),
    ),
)


DECLARED = {kind.__name__: kind for kind in (AlertRule, Pool, Queue, RetryPolicy, Yard)}
# Python's own words for a call of one of them that it refuses, and for what a misspelt and a missing option are in it.
REFUSED = re.compile(rf"({'|'.join(DECLARED)})\.__init__\(\) (.*)")
MISSPELT = re.compile(r"got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"missing \d+ required positional arguments?: ")
MOST_CORES = 1_024


def yard_of(name: str, value: Any) -> Yard:
    """Return the yard that a setting holds, or names by its dotted path; ``InvalidSetting`` where it is wrong."""
    value = _imported(name, value) if isinstance(value, str) else value
    if not isinstance(value, Yard):
        fact = f"is a {type(value).__name__}, not a Yard"
        raise InvalidSetting(name, fact, "declare one with Yard(queues=…, pools=…)")
    return value


def on_cores(yard: Yard, name: str, value: Any) -> Yard:
    """Return a yard in which ``processes="cores"`` stands for a number; "" leaves that to the machine."""
    if value == "":
        return yard
    cores = whole_number(value)
    if type(cores) is not int or not 1 <= cores <= MOST_CORES:
        fact = f"{value!r} is not a number from 1 to {MOST_CORES}"
        raise InvalidSetting(name, fact, f"set {name}=2, or leave it out")
    return yard.with_cores(cores) if any(pool.per_core for pool in yard.pools) else yard


def in_small(yard: Yard, name: str, value: Any) -> Yard:
    """Return a yard with one pool of so many slots; the declared one for ""."""
    if value == "":
        return yard
    try:
        return yard.small(whole_number(value))
    except InvalidDeclaration as error:
        fact, _, remedy = str(error).partition("; ")
        raise InvalidSetting(name, fact, f"{remedy}; or leave it out for the pools of the topology") from error


def _imported(name: str, path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise InvalidSetting(name, str(error), 'name a Yard, for example "mysite.topology.YARD"') from error
    except (SwitchyardError, ValueError) as error:
        fact, _, remedy = str(error).partition("; ")
        where = _place(path, error.__traceback__)
        raise InvalidSetting(name, fact, f"{remedy or 'correct the declaration'}{where}") from error
    except TypeError as error:
        refused = REFUSED.fullmatch(str(error))
        if refused is None:
            raise
        where = _place(path, error.__traceback__)
        fact, remedy = _explained(*refused.groups())
        raise InvalidSetting(name, fact, f"{remedy}{where}") from error


def _explained(kind: str, words: str) -> tuple[str, str]:
    """Return what is wrong in a call of one of the declared classes, and what to write."""
    known = [field.name for field in fields(DECLARED[kind])]
    options = f"has {', '.join(known)}"
    if misspelt := MISSPELT.fullmatch(words):
        option = misspelt[1]
        near = get_close_matches(option, known, n=1)
        remedy = f"did you mean {near[0]!r}? It" if near else "it"
        owners = (other for other, of in DECLARED.items() if option in {field.name for field in fields(of)})
        if owner := next(owners, ""):
            remedy = f"it is an option of {owner}(...). {kind}"
        return f"{kind} has no {option!r}", f"{remedy} {options}"
    if missing := MISSING.match(words):
        names = re.findall(r"'(\w+)'", words[missing.end() :])
        return f"a {kind} lacks {', '.join(names)}", f"write {', '.join(f'{option}=...' for option in names)}"
    return f"{kind}(...) {words}", f"a {kind} {options}"


def _place(path: str, trace: TracebackType | None) -> str:
    """Return the innermost place in the module of a dotted path, in parentheses; "" when the error is elsewhere."""
    module, found = path.rpartition(".")[0], ""
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == module:
            found = f" ({place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)})"
        trace = trace.tb_next
    return found


# Each key of SWITCHYARD, and the environment variable that is read when the key is missing. Add-ons have more.
KEYS: dict[str, str | None] = {
    key: f"SWITCHYARD_{key}"
    for key in (
        *("TOPOLOGY", "CORES", "SMALL", "BROKER_URL", "REDIS_URL", "PUBLIC_URL", "ALERT_URLS", "ALERT_HEARTBEAT_URL"),
        *("METRICS_TOKEN", "METRICS_DIR", "STATE_DIR", "RELEASE", "SENDS", "RESULTS_URL", "RECORDS_BYTES"),
        *("HISTORY_BYTES", "LOG_FORMAT", "AUDIT_DAYS", "HISTORY_DAYS", "HISTORY_ROWS", "ADMIN_SITE"),
        *("CONFIGURE_LOGGING", "VARIABLES", "BASE_DIR", "DEBUG"),
    )
}
KEYS["METRICS_DIR"] = "PROMETHEUS_MULTIPROC_DIR"
IN_SETTINGS_ALONE = ("TOPOLOGY", "SENDS", "ADMIN_SITE", "CONFIGURE_LOGGING", "VARIABLES", "BASE_DIR", "DEBUG")
KEYS |= dict.fromkeys(IN_SETTINGS_ALONE)

# A send inside of a transaction: at once, at its commit, or with a row of it.
SENDS = ("now", "on_commit", "outbox")
HISTORY_DAYS = 30
DEFAULT_LIMITS = RecordLimits()
LEAST_BYTES, MOST_BYTES = 1_048_576, 2**40  # less holds the records of a few seconds


# Settings that may not differ between hosts. CORES does, where machines do.
ALIKE: Final = (
    "broker_url", "place_url", "place_options", "public_url", "alert_urls", "history_days", "history_rows", "results",
    "audit_days", "record_limits", "sends",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SwitchyardSettings:
    """Validated settings of the library. Those that a project gives are explained in ``docs/reference/environment.md``.

    Values that are or may contain secrets are left out of ``repr``: debug pages and tracebacks show that.

    Args:
        topology: With ``CORES`` and ``SMALL`` applied.
        public_url: Without a slash at the end.
        has_public_url: It was set, and is no default.
        record_limits: Bytes that the broker may spend on ended jobs, and on those on their way into the history.
        debug: Development, as Django's ``DEBUG`` was when the settings were read.
        history_rows: 0 for 2 million, or 20 on a server.
        variables: The project's own environment variables that begin with ``SWITCHYARD_``.
        broker_url: Address of the Redis or Valkey server, which is the broker or stands beside it.
        broker_named_by: Setting or variable that named that server; "" for the socket in ``state_dir``.
        in_settings: Keys that the project's settings give, and no environment variable.
        place_url: Address of the server that keeps the messages, where that is another one; else "".
        place_options: Settings of the add-on of that address.
    """

    topology: Yard
    broker_url: str = field(repr=False)
    public_url: str
    alert_urls: tuple[str, ...] = field(repr=False)
    metrics_token: str = field(repr=False)
    metrics_dir: Path
    state_dir: Path
    release: str
    log_format: str
    configure_logging: bool
    base_dir: Path
    debug: bool
    history_days: int = HISTORY_DAYS
    history_rows: int = 0
    results: ResultsAddress = field(default_factory=ResultsAddress)
    broker_named_by: str = ""
    in_settings: tuple[str, ...] = ()
    place_url: str = field(default="", repr=False)
    place_options: Mapping[str, Any] = field(default_factory=dict)
    has_public_url: bool = False
    variables: tuple[str, ...] = ()
    audit_days: int = 365
    record_limits: RecordLimits = field(default_factory=RecordLimits)
    alert_heartbeat_url: str = field(default="", repr=False)
    admin_site: str = ""
    sends: str = SENDS[0]

    @property
    def place(self) -> Addon | None:
        """The add-on that keeps the messages; ``None`` where they are on the Redis server."""
        return _addon_of(self.place_url)

    @property
    def addons(self) -> tuple[Addon, ...]:
        """The add-ons whose servers are named."""
        return tuple(found for url in (self.place_url, self.broker_url) if (found := _addon_of(url)) is not None)

    @property
    def server_variable(self) -> str:
        variable = "SWITCHYARD_REDIS_URL" if self.place_url else "SWITCHYARD_BROKER_URL"
        return self.broker_named_by if self.broker_named_by.endswith("]") else variable

    @property
    def absence(self) -> Absence:
        """Words for a broker that is not there: nobody named one, or it was named wrongly."""
        if self.broker_named_by:
            named = self.broker_named_by
            return Absence("", f"check {named}, which is set here, and that the server is up", named)
        start = "bin/demo" if (self.base_dir / "bin" / "demo").exists() else "python -m switchyard.embedded"
        return Absence(
            f"no yard runs in {shortened(self.state_dir)}",
            f"start {start} here, or export SWITCHYARD_STATE_DIR=DIR for a yard that runs in another folder, "
            "or SWITCHYARD_BROKER_URL for a server elsewhere",
        )


# The object in Django's settings that was read last, what was read from it, and whether that was in development.
_cache: tuple[object, SwitchyardSettings, bool] | None = None


def switchyard_settings() -> SwitchyardSettings:
    """Return the settings, read and validated once for each value of ``SWITCHYARD``; ``InvalidSetting`` for wrong ones.

    Whether this is development is decided at the first call: test runners turn ``DEBUG`` off later. What asks no broker
    has the defaults of development too: images are built, tables made and tests run where production's are not.
    """
    global _cache
    if not settings.USE_TZ:
        guide = "https://docs.djangoproject.com/en/5.2/topics/i18n/timezones/#migration-guide"
        raise InvalidSetting("USE_TZ", "is False, and all times here have a zone", f"write USE_TZ = True; see {guide}")
    declared = getattr(settings, "SWITCHYARD", None)
    if isinstance(declared, SwitchyardSettings):
        return declared
    if _cache is None or _cache[0] is not declared:
        debug = (settings.DEBUG or "pytest" in sys.modules or asks_no_broker()) if _cache is None else _cache[2]
        value = read(
            {} if declared is None else declared,
            with_files(os.environ),
            debug=debug,
            base_dir=getattr(settings, "BASE_DIR", None),
            hosts=settings.ALLOWED_HOSTS,
        )
        _cache = declared, value, debug
    return _cache[1]


# Commands of Django's.
WITHOUT_BROKER = frozenset(
    {
        *("changepassword", "clearsessions", "collectstatic", "compilemessages", "createcachetable", "createsuperuser"),
        *("dbshell", "diffsettings", "dumpdata", "findstatic", "flush", "inspectdb", "loaddata", "makemessages"),
        *("makemigrations", "migrate", "remove_stale_contenttypes", "showmigrations", "sqlflush", "sqlmigrate"),
        *("squashmigrations", "test"),
    }
)


def settings_digest() -> str:
    """Return a digest, in eight characters, of what must be alike on all hosts: settings, and databases' addresses."""
    own = switchyard_settings()
    alike = [own.topology.with_cores(1), *(getattr(own, name) for name in ALIKE)]
    databases = [[each.get(key) for key in ("ENGINE", "HOST", "PORT", "NAME")] for each in settings.DATABASES.values()]
    # A function of the topology is named with its address in memory.
    text = re.sub(r" at 0x[0-9a-f]+", "", repr((alike, databases)))
    return sha256(text.encode()).hexdigest()[:8]


def asks_no_broker() -> bool:
    """Return whether this process is a command of ``manage.py`` that sends and reads nothing."""
    return len(sys.argv) > 1 and sys.argv[1] in WITHOUT_BROKER


def declared_yard() -> Yard:
    return switchyard_settings().topology


def read(
    declared: Any,
    environ: Mapping[str, str],
    *,
    debug: bool,
    base_dir: Path | str | None = None,
    hosts: Iterable[str] = (),
) -> SwitchyardSettings:
    """Return validated settings from a dict and the environment, which is read for keys that are missing or ``None``.

    Args:
        debug: Development: defaults are on this machine. Otherwise the broker must be named and safe.
        base_dir: Folder of the project's code; ``None`` is the current folder.
        hosts: Django's ``ALLOWED_HOSTS``: the first one is the default of ``PUBLIC_URL`` in production.
    """
    if not isinstance(declared, Mapping):
        fact = f"is a {type(declared).__name__}, not a dict"
        raise InvalidSetting("SWITCHYARD", fact, 'write SWITCHYARD = {"TOPOLOGY": "mysite.topology.YARD"}')
    for key in declared:
        if key not in KEYS and key not in all_keys():
            raise InvalidSetting(f"SWITCHYARD[{key!r}]", "is not a setting of Switchyard", _known(key))
    given = _Given(declared, environ)
    debug = given.flag("DEBUG", default=debug)
    base = Path(given.value("BASE_DIR", base_dir or Path.cwd())[1]).resolve()
    state_dir = given.path("STATE_DIR", base / "var").resolve()
    redis_name, redis_url = place_name, place_url = given.text("BROKER_URL")
    place, options = _addon_of(place_url), dict[str, Any]()
    if place is not None and place.keeps_queues:
        refuse_without(place_name, place.package, place.schemes[0])
        options = place.load("read")(place_name, place_url, given, debug=debug)
        redis_name, redis_url = given.text("REDIS_URL")
    else:
        place_url = ""
    broker_url, public_url = _all_of(
        lambda: broker_url_of(redis_name, redis_url, state_dir, debug=debug),
        lambda: public_url_of(*given.text("PUBLIC_URL"), hosts, debug=debug),
    )
    yard = on_cores(yard_of(*given.value("TOPOLOGY", DEFAULT_YARD)), *given.value("CORES", ""))
    return SwitchyardSettings(
        topology=in_small(yard, *given.value("SMALL", "")),
        broker_url=broker_url,
        public_url=public_url,
        alert_urls=given.listed("ALERT_URLS"),
        alert_heartbeat_url=heartbeat_url_of(*given.text("ALERT_HEARTBEAT_URL")),
        metrics_token=given.text("METRICS_TOKEN")[1],
        metrics_dir=given.path("METRICS_DIR", state_dir / "metrics"),
        state_dir=state_dir,
        release=given.text("RELEASE")[1] or git_release(base),
        log_format=choice_of(*given.text("LOG_FORMAT"), LOG_FORMATS, default="console" if debug else "json"),
        configure_logging=given.flag("CONFIGURE_LOGGING", default=False),
        base_dir=base,
        debug=debug,
        history_days=number_of(*given.value("HISTORY_DAYS", HISTORY_DAYS), least=1, most=3_650),
        history_rows=number_of(*given.value("HISTORY_ROWS", 0), least=0, most=1_000_000_000),
        broker_named_by=redis_name if redis_url else "",
        in_settings=tuple(key for key, value in declared.items() if value is not None),
        place_url=place_url,
        place_options=options,
        has_public_url=bool(given.text("PUBLIC_URL")[1]),
        variables=given.listed("VARIABLES"),
        audit_days=number_of(*given.value("AUDIT_DAYS", 365), least=1, most=36_500),
        results=results_of(*given.text("RESULTS_URL")),
        admin_site=given.text("ADMIN_SITE")[1],
        sends=choice_of(*given.text("SENDS"), SENDS, default=SENDS[0]),
        record_limits=RecordLimits(
            number_of(*given.value("RECORDS_BYTES", DEFAULT_LIMITS.records_bytes), least=LEAST_BYTES, most=MOST_BYTES),
            number_of(*given.value("HISTORY_BYTES", DEFAULT_LIMITS.history_bytes), least=LEAST_BYTES, most=MOST_BYTES),
        ),
    )


def _all_of(*rules: Callable[[], str]) -> list[str]:
    """Return the values of rules. The first one's ``InvalidSetting`` has those of the others as notes."""
    found, wrong = list[str](), list[InvalidSetting]()
    for rule in rules:
        try:
            found.append(rule())
        except InvalidSetting as error:
            wrong.append(error)
    if wrong:
        for other in wrong[1:]:
            wrong[0].add_note(str(other))
        raise wrong[0]
    return found


OF_BOUNCERS: Final = (
    ("DATABASE_BOUNCED=1, and DATABASE_DIRECT_URL to", "DISABLE_SERVER_SIDE_CURSORS to True, and HOST and PORT to"),
    ("DATABASE_BOUNCED=1", "DISABLE_SERVER_SIDE_CURSORS to True"),
    ("DATABASE_BOUNCED", "DISABLE_SERVER_SIDE_CURSORS"),
)


def in_words_of_project(text: str) -> str:
    """Return a text about environment variables with settings in their place, where the project has those."""
    own = switchyard_settings()
    text = text.replace(ADDRESSES, own.server_variable)
    for key in own.in_settings:
        if variable := all_keys().get(key):
            text = re.sub(rf"(?<!export )\b{variable}\b", f'SWITCHYARD["{key}"]', text)
    if "DATABASE_BOUNCED" not in own.variables:
        for words, others in OF_BOUNCERS:
            text = text.replace(words, others)
    reads = "DATABASE_URL" in os.environ or "dj_database_url" in sys.modules
    return text if reads else text.replace("DATABASE_URL", 'DATABASES["default"]')


def shortened(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


class _Given(msgspec.Struct, frozen=True):
    """Values of the dict and of the environment, each with the name that an error message calls it by."""

    declared: Mapping[str, Any]
    environ: Mapping[str, str]

    def value(self, key: str, default: Any = None) -> tuple[str, Any]:
        if self.declared.get(key) is not None:
            return f'SWITCHYARD["{key}"]', self.declared[key]
        variable = KEYS[key] if key in KEYS else all_keys()[key]
        if variable is None:
            return f'SWITCHYARD["{key}"]', default
        return variable, self.environ.get(variable) or default

    def text(self, key: str) -> tuple[str, str]:
        name, value = self.value(key, "")
        if not isinstance(value, str):
            raise InvalidSetting(name, f"is a {type(value).__name__}, not a string", f"set {name} to a string")
        return name, value.strip()

    def flag(self, key: str, *, default: bool) -> bool:
        name, value = self.value(key, default)
        if not isinstance(value, bool):
            raise InvalidSetting(name, f"{value!r} is neither True nor False", f"set {name} to True or False")
        return value

    def path(self, key: str, default: Path) -> Path:
        name, value = self.value(key, default)
        if not isinstance(value, str | Path):
            raise InvalidSetting(name, f"is a {type(value).__name__}, not a path", f"set {name} to a folder's path")
        return Path(value)

    def listed(self, key: str) -> tuple[str, ...]:
        name, value = self.value(key, "")
        entries = value.split() if isinstance(value, str) else value
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
            raise InvalidSetting(name, "is not a list of strings", f'set {name} to for example ["log:"]')
        return tuple(entries)


def all_keys() -> dict[str, str | None]:
    """Return :data:`KEYS` with those of every add-on."""
    return {**KEYS, **{key: variable for found in addons() for key, variable in found.settings.items()}}


def _addon_of(url: str) -> Addon | None:
    scheme = url.partition(":")[0].lower()
    return addon_for(scheme) if scheme and scheme not in BROKER_SCHEMES else None


def _known(key: object) -> str:
    keys = all_keys()
    close = get_close_matches(str(key).upper(), keys, n=1)
    return f"did you mean {close[0]}?" if close else f"the settings are {', '.join(keys)}"


def setting_of_metrics(library: SwitchyardSettings, declared: Any = None) -> str:
    """Return the setting that places the folder of metrics: a variable, or a key of ``SWITCHYARD``, if a dict."""
    key = "STATE_DIR" if library.metrics_dir == library.state_dir / "metrics" else "METRICS_DIR"
    if isinstance(declared, Mapping) and declared.get(key) is not None:
        return f'SWITCHYARD["{key}"]'
    return str(KEYS[key])


def remedy_for_metrics(error: OSError, library: SwitchyardSettings, declared: Any = None) -> str:
    """Return what to do where the folder of metrics cannot be created or written to."""
    name = setting_of_metrics(library, declared)
    elsewhere = f"set {name} to another folder" if "[" in name else f"export {name}=DIR for another folder"
    return f"let this user write there, or {elsewhere}" if error.errno in (EACCES, EPERM) else elsewhere
