"""Settings of the project, without depth limits, plus the actors of the measured jobs."""

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as DECLARED

INSTALLED_APPS = [*PROJECT_APPS, "benchmarks.room_yard"]
SWITCHYARD = replace(
    DECLARED,
    topology=replace(
        DECLARED.topology, queues=tuple(replace(queue, max_depth=None) for queue in DECLARED.topology.queues)
    ),
)
