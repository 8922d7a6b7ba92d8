"""System checks that refuse to start a misconfigured yard. Each message names the remedy; ids are ``switchyard.E001`` …

``manage.py check`` runs those that need nothing but the code; ``check --database default`` and ``check --deploy`` ask
the broker's server as well, as workers, web and scheduler do before they start.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dramatiq
from django.conf import settings
from django.core.checks import CheckMessage, Tags, register
from dramatiq.broker import Broker

from switchyard.broker.topology import Yard
from switchyard.conf import asks_no_broker, declared_yard, switchyard_settings
from switchyard.workers.checks import actors, database, installation

TAG = "switchyard"

Databases = Sequence[str] | None


def register_all() -> None:
    """Register the checks with Django. Workers, which have no addresses, do not run those of the addresses."""
    of_code = (
        *(installation.missing_apps, installation.foreign_broker, installation.replaced_middleware),
        *(installation.routed_models, installation.unsupported_database, installation.unknown_variables),
        *(yard_is_sound, lambda: check_actors(declared_yard(), dramatiq.get_broker())),
        *(installation.endless_mail, database.forbidden_options),
    )
    for find in of_code:
        register(_check(find), TAG)
    for find in (installation.addresses, installation.misnamed_middleware):
        register(_check(find), Tags.urls)
    register(server_keeps_work, TAG, Tags.database)
    register(database_has_room, TAG, Tags.database)
    register(server_keeps_work_deployed, TAG, deploy=True)
    register(installation.unsafe_exposure, TAG, deploy=True)


def _check(find: Callable[[], Iterable[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    return lambda app_configs, **options: list(find())


def yard_is_sound() -> list[CheckMessage]:
    own = switchyard_settings()
    of_addons = [message for addon in own.addons for message in addon.call("check", [], own)]
    return [*check_yard(declared_yard()), *of_addons, *actors.hurried_retries(declared_yard(), debug=own.debug)]


def server_keeps_work(app_configs: Any, databases: Databases = None, **options: Any) -> list[CheckMessage]:
    """Check the broker's server, but only when databases are checked, and not by ``migrate`` and its like."""
    if not databases or asks_no_broker():
        return []
    return installation.unsafe_server(switchyard_settings().broker_url, debug=settings.DEBUG)


def database_has_room(app_configs: Any, databases: Databases = None, **options: Any) -> list[CheckMessage]:
    """Check the server's limit of connections and a bouncer before it, but only when databases are checked."""
    checks = (database.undeclared_bouncer, database.too_few_connections)
    return [message for alias in databases or () for check in checks for message in check(alias)]


def server_keeps_work_deployed(app_configs: Any, databases: Databases = None, **options: Any) -> list[CheckMessage]:
    """Check the broker's server on ``check --deploy``, unless it is checked anyway."""
    return [] if databases else server_keeps_work(app_configs, databases=["default"])


def check_yard(yard: Yard) -> list[CheckMessage]:
    """Return the contradictions between a yard's queues and pools. Their own fields are validated when declared."""
    checks = (
        *(actors.names_of_lanes, actors.unserved_lanes, actors.consumed_dead_lists, actors.undeclared_lanes),
        *(actors.pools_that_watch_everything, actors.mixed_latency_classes, actors.more_slots_than_connections),
        *(actors.limits_below_an_idle_child, actors.greenlets_without_gevent, actors.short_policies),
    )
    return [message for check in checks for message in check(yard)]


def check_actors(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """Return the mistakes in the actors declared with a broker."""
    declared = {queue.name: queue for queue in yard.queues}
    found = [*actors.declared_dead_lists(yard, broker), *actors.queue_limits_in_seconds(yard)]
    for check in actors.CHECKS:
        for actor in broker.actors.values():
            found += check(actors.DeclaredActor(actor, declared.get(actor.queue_name), yard, broker))
    return found
