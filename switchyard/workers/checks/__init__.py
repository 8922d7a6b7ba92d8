"""System checks that refuse to start a misconfigured yard. Each message names the remedy; ids are ``switchyard.E001`` …

``manage.py check`` runs those that need nothing but the code; ``check --database default`` and ``check --deploy`` ask
the broker's server as well. Workers, web and scheduler run them before they start
(:mod:`switchyard.workers.preflight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Tags, register
from dramatiq.broker import Broker

from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.workers.checks import (
    actor_options,
    actors,
    bounced,
    database,
    installation,
    mail,
    pools,
    queues,
)
from switchyard.workers.checks.broker_server import unsafe_server

TAG = "switchyard"

Apps = Sequence[AppConfig] | None
Databases = Sequence[str] | None


def register_all() -> None:
    """Register the checks with Django."""
    register(library_is_installed, TAG)
    register(environment_is_known, TAG)
    register(addresses_are_included, Tags.urls)
    register(yard_is_sound, TAG)
    register(actors_are_sound, TAG)
    register(mail_has_a_time_limit, TAG)
    register(bouncer_is_allowed_for, TAG)
    register(server_keeps_work, TAG, Tags.database)
    register(database_has_room, TAG, Tags.database)
    register(server_keeps_work_deployed, TAG, deploy=True)


def library_is_installed(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check that every app of the library is installed, and that broker, middleware and tables are the library's."""
    return [
        *installation.missing_apps(),
        *installation.foreign_broker(),
        *installation.replaced_middleware(),
        *installation.routed_models(),
    ]


def environment_is_known(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check the names of environment variables that begin with ``SWITCHYARD_``."""
    return installation.unknown_variables()


def addresses_are_included(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check the library's addresses and the API's middleware; workers, which have no addresses, do not run this."""
    return [*installation.addresses(), *installation.misnamed_middleware()]


def yard_is_sound(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check ``declared_yard()``."""
    own = switchyard_settings()
    of_addons = [message for addon in own.addons for message in addon.call("check", [], own)]
    return check_yard(declared_yard()) + of_addons + actor_options.hurried_retries(declared_yard(), debug=own.debug)


def actors_are_sound(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check the actors that the installed apps declared."""
    return check_actors(declared_yard(), dramatiq.get_broker())


def mail_has_a_time_limit(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check that sending a mail ends."""
    return mail.endless_mail()


def server_keeps_work(app_configs: Apps, databases: Databases = None, **options: Any) -> list[CheckMessage]:
    """Check the broker's server, but only when databases are checked."""
    if not databases:
        return []
    return unsafe_server(switchyard_settings().broker_url, debug=settings.DEBUG)


def bouncer_is_allowed_for(app_configs: Apps, **options: Any) -> list[CheckMessage]:
    """Check the options of a database behind PgBouncer in transaction mode."""
    return bounced.forbidden_options()


def database_has_room(app_configs: Apps, databases: Databases = None, **options: Any) -> list[CheckMessage]:
    """Check the server's limit of connections and a bouncer before it, but only when databases are checked."""
    return [
        message
        for alias in databases or ()
        for message in database.undeclared_bouncer(alias) + database.too_few_connections(alias)
    ]


def server_keeps_work_deployed(app_configs: Apps, databases: Databases = None, **options: Any) -> list[CheckMessage]:
    """Check the broker's server on ``check --deploy``, unless it is checked anyway."""
    return [] if databases else server_keeps_work(app_configs, databases=["default"])


def check_yard(yard: Yard) -> list[CheckMessage]:
    """Return the contradictions between a yard's queues and pools. Their own fields are validated when declared."""
    return [
        *queues.names_of_lanes(yard),
        *queues.unserved_lanes(yard),
        *queues.consumed_dead_lists(yard),
        *pools.undeclared_lanes(yard),
        *pools.pools_that_watch_everything(yard),
        *pools.mixed_latency_classes(yard),
        *pools.more_slots_than_connections(yard),
        *pools.limits_below_an_idle_child(yard),
        *pools.greenlets_without_gevent(yard),
        *actor_options.short_policies(yard),
    ]


def check_actors(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """Return the mistakes in the actors declared with a broker."""
    return [
        *actors.undeclared_queues(yard, broker.actors.values()),
        *actors.missing_time_limits(yard, broker),
        *actors.limits_over_the_hard_limit(yard, broker),
        *actors.consumed_dead_lists(yard, broker),
        *actors.unknown_callbacks(broker),
        *actors.limits_in_seconds(yard, broker),
        *actor_options.options_in_seconds(broker),
        *actors.methods(broker),
        *actors.hidden_actors(broker),
        *actors.lambdas(broker),
        *actors.generators(broker),
        *actor_options.options_without_effect(broker),
        *actors.endless_actors(yard, broker),
        *actor_options.annotations_without_effect(broker),
        *actors.coroutines_among_greenlets(yard, broker),
        *actor_options.short_actors(yard, broker.actors.values()),
    ]
