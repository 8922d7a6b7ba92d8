"""Background work for Django on Dramatiq: the apps that a project adds to its own."""

from __future__ import annotations

from collections.abc import Iterable

BROKER_APP = "dramatiq_app.DramatiqConfig"

# In the order of INSTALLED_APPS: the broker is built before all that has actors, because they are declared with it.
APPS = (
    "commands",  # before the broker's app: of two commands with one name the first app's runs
    BROKER_APP,
    "audit",
    "api",
    "history",
    "bulk",
    "jobs",
    "workers",
    "dead_letters",
    "alerts",
    "operations",
    "queues",
    "schedules",
    "actors",
    "frame",
    "doctor",
    "deployment",
    "serving",
)


def apps(installed: Iterable[str] = ()) -> list[str]:
    """Return the apps to add to a project's ``INSTALLED_APPS``: ``INSTALLED_APPS += apps()``.

    The list includes django-dramatiq. A project with the API adds ``"ninja"``, which has the files of the API's page.

    Args:
        installed: Apps to leave out because the project has them: ``INSTALLED_APPS += apps(INSTALLED_APPS)``. A
            project that lists ``django_dramatiq`` itself names ``wiring.build_broker`` in its ``DRAMATIQ_BROKER``.
    """
    has = set(installed)
    wanted = [f"{__name__}.{app}" for app in APPS if app != BROKER_APP or "django_dramatiq" not in has]
    return [app for app in wanted if app not in has]
