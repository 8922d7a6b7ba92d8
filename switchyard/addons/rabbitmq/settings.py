"""The address of a RabbitMQ server, the settings beside it, and the check of a yard that they do not fit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import dramatiq
from django.core.checks import CheckMessage, Error, Warning

from switchyard.broker.redis.addresses import is_loopback
from switchyard.setting_values import InvalidSetting, choice_of, number_of, with_valid_port

if TYPE_CHECKING:
    from switchyard.conf import SwitchyardSettings

QUEUE_TYPES = ("quorum", "classic")
# Options of pika, which raises an error without a variable's name for others.
WHOLE_NUMBERS = ("channel_max", "connection_attempts", "frame_max", "heartbeat")
SECONDS = ("blocked_connection_timeout", "retry_delay", "socket_timeout", "stack_timeout")
BATCHES = [("switchyard.batches.services", name) for name in ("batch", "Batch")]
OPTIONS = (*WHOLE_NUMBERS, *SECONDS, "client_properties", "locale", "ssl_options", "tcp_options")


def read(name: str, url: str, given: Any, *, debug: bool) -> dict[str, Any]:
    """Return the options of :func:`switchyard.addons.rabbitmq.broker.on_rabbitmq`, but for the address.

    ``InvalidSetting`` for a port that is no number, an option that is unknown or no number, a user or in production a
    server without a password, and another value of a setting.
    """
    _check(name, with_valid_port(name, url), debug=debug)
    kind_name, kind = given.text("RABBITMQ_QUEUES")
    timeout_name, timeout_s = given.value("RABBITMQ_CONSUMER_TIMEOUT_S", 1_800)
    return {
        "queue_type": choice_of(kind_name, kind, QUEUE_TYPES, default=QUEUE_TYPES[0]),
        "consumer_timeout_s": number_of(timeout_name, timeout_s, least=10, most=10**7),
    }


def _check(name: str, url: str, *, debug: bool) -> None:
    parts = urlsplit(url)
    if not debug and not is_loopback(parts.hostname) and not parts.password:
        remedy = "put a user and password into the URL, for example amqps://user:password@rabbit:5671/"
        raise InvalidSetting(name, f"{parts.hostname} is reached without a password", remedy)
    if parts.username is not None and parts.password is None:
        remedy = "write amqp://user:password@host:5672/, with nothing after the colon for an empty password"
        raise InvalidSetting(name, "names a user without a password", remedy)
    for option, given in parse_qsl(parts.query, keep_blank_values=True):
        if option not in OPTIONS:
            remedy = f"write one of {', '.join(OPTIONS)}, or leave it out"
            raise InvalidSetting(name, f"has the option {option!r:.60}, which pika does not know", remedy)
        if option in WHOLE_NUMBERS and not re.fullmatch(r"[0-9]+", given):
            raise InvalidSetting(name, f"has {option}={given!r:.40}, which is not a whole number", f"write {option}=15")
        if option in SECONDS and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", given):
            raise InvalidSetting(name, f"has {option}={given!r:.40}, which is not a number", f"write {option}=15")


def limits_over_the_consumer_timeout(own: SwitchyardSettings) -> list[CheckMessage]:
    """E026: a hard limit over half of RabbitMQ's ``consumer_timeout``; the message may have waited for the rest.

    W027: dependencies, whose circuits need pauses of actors, limits on what runs at once, fairness, and batches.
    """
    most_s = own.place_options["consumer_timeout_s"] / 2
    return [
        *_without_effect(own),
        *(
            Error(
                f"its hard limit of {queue.hard_limit_ms / 1000:g} s is over {most_s:g} s, half of RabbitMQ's "
                "consumer_timeout: the server would give a task that still runs to another worker, again and again",
                hint="Lower hard_limit_ms in the topology; or raise consumer_timeout in rabbitmq.conf, and "
                "SWITCHYARD_RABBITMQ_CONSUMER_TIMEOUT_S to the same seconds.",
                obj=f"queue {queue.name}",
                id="switchyard.E026",
            )
            for queue in own.topology.queues
            if queue.hard_limit_ms > most_s * 1000
        ),
    ]


def _without_effect(own: SwitchyardSettings) -> Iterator[CheckMessage]:
    def warning(fact: str, place: str, *, instead: str = "leave it out") -> CheckMessage:
        return Warning(fact, f"Move to Redis or Valkey, or {instead}.", place, "switchyard.W027")

    for dependency in own.topology.dependencies:
        fact = "it has no circuit on RabbitMQ, which pauses no actors: its jobs fail and are retried as all others"
        yield warning(fact, f"dependency {dependency.name}")
    for actor in dramatiq.get_broker().actors.values():
        for option in [option for option in ("concurrency", "ordered_by") if option in actor.options]:
            fact = f"its {option} has no effect on RabbitMQ: any number of its jobs run at once, in any order"
            instead = "use dramatiq.rate_limits in the actor and leave it out"
            yield warning(fact, f"actor {actor.actor_name}", instead=instead)
        if calls_batch(actor.fn):
            fact = "it makes a batch, which raises ActRefused on RabbitMQ: nothing counts its members there"
            yield warning(fact, f"actor {actor.actor_name}", instead="use Dramatiq's groups")
    for queue in own.topology.queues:
        if queue.fair_share is not None:
            fact = "its fair_by has no effect on RabbitMQ: its messages are served in their order"
            yield warning(fact, f"queue {queue.name}")


def calls_batch(function: Callable[..., Any]) -> bool:
    """Return whether a function itself makes a batch, or adds to one, by a name that its module imported."""
    inner = inspect.unwrap(function)
    names, known = getattr(getattr(inner, "__code__", None), "co_names", ()), getattr(inner, "__globals__", {})
    found = (known.get(name) for name in names)
    return any((getattr(each, "__module__", ""), getattr(each, "__qualname__", "")) in BATCHES for each in found)
