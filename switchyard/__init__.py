"""Background work for Django on Dramatiq: the apps that a project adds to its own.

Rooms, from below; each begins with a page like this, and imports only what stands before it:

- ``broker``: the transport on Redis or Valkey. ``middleware``: what happens around each message. Neither knows
  Django.
- ``conf``: the settings. ``console``, ``audit``, ``api``: what every room above needs of commands, acts and HTTP.
- ``bulk``, ``workers``: acts in steps; the processes.
- ``outbox``: sends that wait for a commit.
- ``history``, ``dead_letters``, ``alerts``, ``jobs``, ``batches``, ``schedules``: records of the work, and people's
  acts on it.
- ``operations``, ``tasks``, ``queues``, ``actors``: the yard as a whole, and by its parts.
- ``frame``, ``doctor``, ``deployment``, ``serving``: around all pages; commands for the whole. ``compat``: other
  systems' declarations, of projects that move here.
- ``wiring``: construction of the broker with its middleware, in order. ``testing``: a yard in memory.

Whatever asks the broker raises :class:`switchyard.broker.errors.BrokerError` while it does not answer, and whatever
reads rows ``django.db.DatabaseError``; a docstring names them where more is to be known, such as what was done by then.

The way of one message through them: docs/explanation/a-messages-life.md. Public for a project: :func:`apps`,
``urls``, ``wiring.build_broker``, ``jobs.services``, ``batches.services``, ``broker.topology``, ``limits``,
``testing``, and what the rooms name as public.
"""

from collections.abc import Iterable

__version__ = "0.10.0"

BROKER_APP = "dramatiq_app.DramatiqConfig"

# In the order of INSTALLED_APPS: the broker is built before all that has actors, because they are declared with it.
APPS = (
    "commands",  # before the broker's app: of two commands with one name the first app's runs
    BROKER_APP,
    *("audit", "api", "api.swagger", "history", "outbox", "bulk", "jobs", "batches", "workers", "dead_letters"),
    *("alerts", "operations", "queues", "schedules", "actors", "frame", "deployment", "serving"),
)


def apps(installed: Iterable[str] = ()) -> list[str]:
    """Return the apps to add to a project's ``INSTALLED_APPS``: ``INSTALLED_APPS += apps()``.

    The list includes django-dramatiq.

    Args:
        installed: Apps to leave out because the project has them: ``INSTALLED_APPS += apps(INSTALLED_APPS)``. A
            project that lists ``django_dramatiq`` itself names ``wiring.build_broker`` in its ``DRAMATIQ_BROKER``.
    """
    has = set(installed)
    wanted = [f"{__name__}.{app}" for app in APPS if app != BROKER_APP or "django_dramatiq" not in has]
    return [app for app in wanted if app not in has]
