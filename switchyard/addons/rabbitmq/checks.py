"""Mistakes of a yard on RabbitMQ: tasks that may take longer than the server lets a worker hold a message."""

from __future__ import annotations

from django.core.checks import CheckMessage, Error

from switchyard.conf import SwitchyardSettings


def limits_over_the_consumer_timeout(own: SwitchyardSettings) -> list[CheckMessage]:
    """E026: a hard limit over half of RabbitMQ's ``consumer_timeout``; the message may have waited for the rest."""
    most_s = own.place_options["consumer_timeout_s"] / 2
    return [
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
    ]
