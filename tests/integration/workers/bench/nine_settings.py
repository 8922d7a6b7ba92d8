"""The project with all its products and its nine pools, two children in the one that has a child for each core."""

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD

YARD = OTHER_SWITCHYARD.topology.with_cores(2)
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
