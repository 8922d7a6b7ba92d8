"""RabbitMQ as the place of the queues, with a Redis or Valkey server beside it that keeps what moves nothing.

It keeps true: a message is on the server, or in a worker that has not acknowledged it, or both; never neither. A send
returns when the server has confirmed it, and an acknowledgement follows the record of the job's end. A message that may
have ended its pool runs alone.

Files in reading order: ``settings``, ``broker`` (with transport and construction), ``connections`` (names of the
server's queues, confirmed publishing), ``consumer`` with ``outgoing`` (a worker's side), ``redeliveries`` (how a
message's last delivery ended), ``unique_claims`` (and long delays), then what supervisors and people see: ``leases``,
``majority``, ``findings``, ``stock``.

Public is :data:`ADDON`, which :mod:`switchyard.addon` finds. This module imports nothing else: it is loaded wherever an
address may be of an add-on, and pika is not installed everywhere.
"""

from switchyard.addon import Addon

ADDON = Addon(
    name="rabbitmq",
    title="RabbitMQ",
    schemes=("amqp", "amqps"),
    package=("pika", "pika>=1.4,<1.5", "rabbitmq"),
    settings={
        "RABBITMQ_QUEUES": "SWITCHYARD_RABBITMQ_QUEUES",
        "RABBITMQ_CONSUMER_TIMEOUT_S": "SWITCHYARD_RABBITMQ_CONSUMER_TIMEOUT_S",
    },
    keeps_queues=True,
    tells_ages=False,
    read=f"{__name__}.settings:read",
    place=f"{__name__}.broker:on_rabbitmq",
    check=f"{__name__}.settings:limits_over_the_consumer_timeout",
    look=f"{__name__}.findings:look_at_rabbitmq",
    rights=f"{__name__}.unique_claims:rights",
    stock=f"{__name__}.stock:StockRabbitmq",
)
