"""Addresses of the pages of what a page names (jobs, queues, actors), and of the steps from an alert to its cause."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.urls import NoReverseMatch, get_script_prefix, get_urlconf, reverse
from django.utils.module_loading import import_string

from switchyard.conf import switchyard_settings
from switchyard.setting_values import InvalidSetting

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite

SITE: Final = 'SWITCHYARD["ADMIN_SITE"]'


def admin_site() -> AdminSite:
    """Return the admin that has the room's entries: that of the setting ``ADMIN_SITE``, or Django's default one.

    Raises:
        InvalidSetting: the setting names no ``AdminSite``.
    """
    from django.contrib import admin  # workers, which have no pages, import this module

    path = switchyard_settings().admin_site
    if not path:
        return admin.site
    try:
        found = import_string(path)
    except ImportError as error:
        raise InvalidSetting(SITE, str(error), 'name it as in "mysite.admin.site"') from error
    if not isinstance(found, admin.AdminSite):
        fact = f"{path} is a {type(found).__name__}, no AdminSite"
        raise InvalidSetting(SITE, fact, "name the object whose urls are in urls.py, not its class")
    return found


def admin_url(name: str, *args: Any) -> str:
    """Return the address of a page of the admin; "" where the project has none in its URLs."""
    return page_url(f"{admin_site().name}:{name}", *args)


def path_of(address: str) -> str:
    """Return the path and query of an address of this site: never another host's, and never a script."""
    with suppress(ValueError):
        found = urlsplit(address)
        if address and found.scheme in ("", "http", "https"):
            path = "/" + found.path.lstrip("/\\")
            return f"{path}?{found.query}" if found.query else path
    return ""


def worker_url(member: str) -> str:
    """Return the address of a supervisor's panel on the page of workers."""
    address = page_url("switchyard-operations-workers")
    return f"{address}#{member}" if address else ""


def steps_url(heading: str) -> str:
    """Return the address of the steps for a verdict's label, or another heading of the page; "" for the whole page."""
    address = page_url("switchyard-steps")
    return f"{address}#{heading.lower().replace(' ', '-')}" if address and heading else address


def page_url(name: str, *args: Any) -> str:
    """Return the address of a page by the name of its URL; "" where the project has none."""
    return _found(name, args, get_urlconf() or settings.ROOT_URLCONF, get_script_prefix())


def _page_of(name: str) -> Callable[[str | int], str]:
    """Return the function that finds the address of one thing's page, by the thing's name, id or key."""
    return lambda of: page_url(name, of)


def _list_of(name: str) -> Callable[..., str]:
    """Return the function that finds the address of a list, with filters by their names: ``jobs_url(state="dead")``."""

    def address(**filters: str) -> str:
        found = page_url(name)
        return f"{found}?{urlencode(filters)}" if found and filters else found

    return address


jobs_url, letters_url = _list_of("switchyard-jobs"), _list_of("switchyard-letters")
job_url = _page_of("switchyard-job")
queue_url = _page_of("switchyard-queue")
actor_url = _page_of("switchyard-actor")
schedule_url = _page_of("switchyard-schedule")
letter_url = _page_of("switchyard-letter")
alert_url = _page_of("switchyard-alert")
bulk_act_url = _page_of("switchyard-bulk-act")


def absolute(address: str) -> str:
    """Return the whole address of a page of this site, for mails, alerts and programs.

    A path of ``PUBLIC_URL`` stands for the prefix in the request or in ``FORCE_SCRIPT_NAME``, which processes without a
    request do not know. In a project whose own addresses begin with it, it is there already.
    """
    root = switchyard_settings().public_url
    if path := urlsplit(root).path:
        prefix = get_script_prefix()
        if prefix == "/" and address.startswith(f"{path}/"):
            prefix = f"{path}/"
        address = f"/{address.removeprefix(prefix)}"
    return f"{root}{address}"


@lru_cache(maxsize=1_000)
def _found(name: str, args: tuple[Any, ...], urls: Any, prefix: str) -> str:
    # A list names the same queues and actors in each row. What an address depends on is part of the cache's key.
    try:
        return reverse(name, urls, args=args)
    except NoReverseMatch:
        return ""


# Where a project has left the room's page of steps out of its URLs.
PAGE: Final = "docs/how-to/triage.md"
# Kind of an alert -> heading of its steps.
BY_KIND: Final = {"dead_letter": "Dead letters", "broker": "Unsafe"}


def runbook(heading: str) -> str:
    """Return the address of the steps for a verdict's label, or another heading of the page, with the web's host."""
    if address := steps_url(heading):
        return absolute(address)
    return f"{PAGE}#{heading.lower().replace(' ', '-')}" if heading else PAGE


def runbook_of_alert(kind: str) -> str:
    """Return the address of the steps for an alert of a kind; of the whole page for an unknown one."""
    return runbook(BY_KIND.get(kind, ""))
