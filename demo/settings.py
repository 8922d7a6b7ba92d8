"""Settings of the demo: the project's own, with delays of retries divided by ``RETRY_SPEED`` and one pool less."""

from dataclasses import replace

from demo.addresses import RETRY_SPEED
from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as DECLARED
from project.topology import YARD

# For one small machine: the retries of pictures have no pool of their own.
POOLS = tuple(pool for pool in YARD.pools if pool.name != "images-retry")
SWITCHYARD = replace(DECLARED, topology=replace(YARD, pools=POOLS, retry_speed=RETRY_SPEED))
