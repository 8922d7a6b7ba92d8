"""Checks of what a project has installed and set: apps, middleware, addresses, mail; its server; what others reach."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import dramatiq
from django.apps import apps as installed_apps
from django.conf import global_settings, settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, get_script_prefix, resolve, reverse
from django.utils.encoding import force_str
from django.utils.module_loading import import_string

from switchyard import APPS, BROKER_APP
from switchyard import __name__ as library
from switchyard.addon import addons
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.addresses import is_loopback, split_hosts
from switchyard.broker.redis.calls import calls_on
from switchyard.conf import KEYS, all_keys, switchyard_settings
from switchyard.console.links import admin_site
from switchyard.middleware.options import is_replaced
from switchyard.setting_values import FILE

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite

LABEL = "switchyard_"
METRICS, ROOM, API = "switchyard-metrics", "switchyard-operations", "switchyard_api:openapi-json"
PROBLEM_DOCUMENTS = f"{library}.api.middleware.problem_documents"
# The others, which a project may leave out -> what they do.
OPTIONAL_MIDDLEWARE = {
    f"{library}.jobs.request_origin.request_origin": "names the request and the user on a job's page",
    f"{library}.frame.control_characters.control_characters": "shows the control characters of a page as escapes",
    f"{library}.frame.silent_database.SilentDatabase": "answers within 5 s while PostgreSQL stands still",
}


def missing_apps() -> Iterator[CheckMessage]:
    """Yield E030 when apps of the library are not in ``INSTALLED_APPS``."""
    names = {config.name for config in installed_apps.get_app_configs()}
    missing = [f"{library}.{app}" for app in APPS if app != BROKER_APP and f"{library}.{app}" not in names]
    if missing:
        remedy = f"Write `INSTALLED_APPS += {library}.apps()`; see docs/how-to/put-it-into-an-existing-project.md."
        yield Error(f"lacks {', '.join(missing)}", hint=remedy, obj="INSTALLED_APPS", id="switchyard.E030")


def foreign_broker() -> Iterator[CheckMessage]:
    """Yield E030 when Dramatiq's broker was not built by this library."""
    broker = dramatiq.get_broker()
    if not isinstance(getattr(broker, "switchyard", None), Facilities):
        fact = f"gives a {type(broker).__name__}, which this library's pools cannot work for"
        remedy = f'Remove it, or set it to {{"BROKER": "{library}.wiring.build_broker"}}.'
        yield Error(fact, hint=remedy, obj="DRAMATIQ_BROKER", id="switchyard.E030")


def replaced_middleware() -> Iterator[CheckMessage]:
    """Yield W030 for middleware of Dramatiq in ``DRAMATIQ_BROKER`` that is left out, because ours does its work."""
    listed = getattr(settings, "DRAMATIQ_BROKER", {}).get("MIDDLEWARE", [])
    kinds = (import_string(entry) if isinstance(entry, str) else type(entry) for entry in listed)
    names = [kind.__name__ for kind in kinds if isinstance(kind, type) and is_replaced(kind)]
    if names:
        fact = (
            f"lists {', '.join(names)}, left out: {library}'s own middleware does the work, with the queue's settings"
        )
        hint = "Remove it; docs/reference/dramatiq.md says where each of its options is written."
        yield Warning(fact, hint=hint, obj="DRAMATIQ_BROKER", id="switchyard.W030")


def unsupported_database() -> Iterator[CheckMessage]:
    """Yield E030 where the database ``default`` is neither SQLite nor PostgreSQL."""
    if (vendor := connections[DEFAULT_DB_ALIAS].vendor) not in ("sqlite", "postgresql"):
        fact = f"is {vendor}: the history of jobs and once() need statements that only SQLite and PostgreSQL have"
        yield Error(fact, hint="Use one of the two.", obj="database default", id="switchyard.E030")


def routed_models() -> Iterator[CheckMessage]:
    """Yield E030 where a router of the project writes or reads tables of the library elsewhere than in ``default``."""
    own = [config for config in installed_apps.get_app_configs() if config.name.startswith(f"{library}.")]
    models = [model for config in own for model in config.get_models()]
    chosen = (router.db_for_write, router.db_for_read)
    routed = [model._meta.label for model in models if any(of(model) != DEFAULT_DB_ALIAS for of in chosen)]
    if routed:
        named = f"{', '.join(routed[:3])}{' and others' if len(routed) > 3 else ''}"
        hint = f"Return None for apps labelled {LABEL!r}…: pools write to 'default', and read there what they wrote."
        yield Error(f"sends {named} to another database than 'default'", hint, "DATABASE_ROUTERS", "switchyard.E030")


def addresses() -> Iterator[CheckMessage]:
    """Yield W030 without the library's URLs or a part of the API's, E030 where an admin hides them or is another."""
    include = f'`path("", include("{library}.urls"))`'
    views = list(_views(get_resolver()))
    # Without those whose parts vary.
    named = {name: address for _, address, name in views if name and not re.search(r"<|\((?!\?:)", address)}
    if METRICS not in named:
        fact = "has neither the operations room nor /metrics, /healthz and /readyz"
        yield Warning(fact, hint=f"Add {include} to it.", obj="ROOT_URLCONF", id="switchyard.W030")
        return
    if ROOM in named and _shown(named[ROOM]) != ROOM:
        page = reverse(ROOM)  # exact where the project includes the addresses below a regular expression
        if (shown := _shown(f"/{page.removeprefix(get_script_prefix())}")) != ROOM:
            fact = f"{page} shows {shown}, not the operations room"
            yield Error(fact, f"Put {include} before the admin's addresses.", "ROOT_URLCONF", "switchyard.E030")
    sites = [site for view, _, _ in views if (site := getattr(view.callback, "admin_site", None))]
    if sites and f"{admin_site().name}:{LABEL}jobs_job_changelist" not in named:
        yield _other_site({id(site): site for site in sites})
    if API in named and PROBLEM_DOCUMENTS not in settings.MIDDLEWARE:
        fact = "lacks the middleware that answers errors below the API's root as problem documents"
        others = [
            f'"{path}", which {what}' for path, what in OPTIONAL_MIDDLEWARE.items() if path not in settings.MIDDLEWARE
        ]
        rest = f", and perhaps {', and '.join(others)}" if others else ""
        hint = f'Add "{PROBLEM_DOCUMENTS}" near its beginning{rest}.'
        yield Warning(fact, hint=hint, obj="MIDDLEWARE", id="switchyard.W030")


def _other_site(sites: Mapping[int, AdminSite]) -> CheckMessage:
    """Return E030 of admins, by id, without the room's entries: the one that has them is not mounted."""
    # The addresses of a site are those of what is registered when urls.py is imported, and ours needs the site before.
    places = [
        f"{module}.{name}"
        for module, loaded in list(sys.modules.items())
        for name, value in list(getattr(loaded, "__dict__", {}).items())
        if id(value) in sites and module != settings.ROOT_URLCONF
    ]
    kinds = {type(site).__module__ for site in sites.values()}
    own = min(places, key=lambda place: (place.rpartition(".")[0] not in kinds, place), default="")
    fact = f"mounts {own or 'an AdminSite'}, and the entries of the room and the tokens are on another site"
    move = "Make that site in a module beside urls.py, such as mysite/admin.py, and name it: "
    hint = f'{"" if own else move}SWITCHYARD = {{"ADMIN_SITE": "{own or "mysite.admin.site"}"}}.'
    return Error(fact, hint=hint, obj="ROOT_URLCONF", id="switchyard.E030")


def misnamed_middleware() -> Iterator[CheckMessage]:
    """Yield E030 for middleware of the library that names its module, with which the web does not start."""
    right = {path.rpartition(".")[0]: path for path in (PROBLEM_DOCUMENTS, *OPTIONAL_MIDDLEWARE)}
    fact = "names the module {}, not the middleware in it"
    for entry in (entry for entry in settings.MIDDLEWARE if entry in right):
        yield Error(fact.format(entry), f'Write "{right[entry]}".', "MIDDLEWARE", "switchyard.E030")


def _views(resolver: URLResolver, below: str = "/", namespace: str = "") -> Iterator[tuple[URLPattern, str, str]]:
    """Yield each view below a resolver, with its address and its name, "" for none; ``reverse`` would take longer."""
    for pattern in resolver.url_patterns:
        address = f"{below}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _views(pattern, address, f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace)
        else:
            yield pattern, address, f"{namespace}{pattern.name}" if pattern.name else ""


def _shown(page: str) -> str:
    try:
        return resolve(page).view_name
    except Resolver404:
        return "nothing"


PREFIX = "SWITCHYARD_"
# Not settings: development and measuring, and an address that OpenTelemetry reads.
OTHERS = frozenset({"SWITCHYARD_CHILD_MIDDLEWARE", "SWITCHYARD_RESULTS_URL", "SWITCHYARD_OTLP_ENDPOINT"})
# Measuring, and what Kubernetes sets for each service whose name begins with "switchyard".
FOREIGN = re.compile(r"SWITCHYARD_(MEASURED_\w+|(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_\w+)?))")


def unknown_variables(environ: Mapping[str, str] = os.environ) -> Iterator[CheckMessage]:
    """Yield W032 for each variable, without its value, that begins with ``SWITCHYARD_`` and that nothing reads."""
    known = set(OTHERS) | set(switchyard_settings().variables)
    named = (name.removesuffix(FILE) for name in environ if name.startswith(PREFIX) and not FOREIGN.fullmatch(name))
    given = set(named)
    if given <= known.union(filter(None, KEYS.values())):
        return
    known |= {variable for variable in all_keys().values() if variable}
    # Compared without the prefix, which would make all of them alike.
    endings = {each.removeprefix(PREFIX): each for each in known}
    for name in sorted(given - known):
        near = get_close_matches(name.removeprefix(PREFIX), endings, n=1)
        guess = f"Did you mean {endings[near[0]]}?" if near else f"Known are {', '.join(sorted(known))}."
        remedy = f'{guess} Name one of your own in SWITCHYARD["VARIABLES"].'
        yield Warning("is set, and nothing reads it", hint=remedy, obj=name, id="switchyard.W032")


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
