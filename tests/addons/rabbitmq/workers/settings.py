"""The small yard on RabbitMQ, named by the environment, with the project's own broker."""

from tests.integration.workers.bench.settings import *  # noqa: F403

DRAMATIQ_BROKER = {"BROKER": "switchyard.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
