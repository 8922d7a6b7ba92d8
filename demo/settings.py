"""Settings of the demo's processes: the project's own, with a yard that hurries its retries."""

from __future__ import annotations

from dataclasses import replace

from demo.hurry import HURRIED
from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as DECLARED

SWITCHYARD = replace(DECLARED, topology=HURRIED)
