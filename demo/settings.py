"""Settings of the demo: the project's own, with retries whose delays are divided by ``RETRY_SPEED``."""

from __future__ import annotations

from dataclasses import replace

from demo.addresses import RETRY_SPEED
from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as DECLARED
from project.topology import YARD

SWITCHYARD = replace(DECLARED, topology=YARD.hurried(RETRY_SPEED))
