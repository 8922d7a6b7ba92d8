"""The project with its nine pools, whose supervisors hang after three seconds."""

from switchyard.workers import pool_group
from tests.integration.workers.bench.nine_settings import *  # noqa: F403

pool_group.HUNG_S, pool_group.LOOK_S = 3.0, 0.5
