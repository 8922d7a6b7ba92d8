"""Settings of a measured process: the project's own, plus the measured pool."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace

from devtools.measuring.work import read_contender, yard_with

_project = importlib.import_module(os.environ["SWITCHYARD_MEASURED_SETTINGS"])
globals().update({name: getattr(_project, name) for name in dir(_project) if name.isupper()})

SWITCHYARD = replace(
    _project.SWITCHYARD,
    topology=yard_with(
        _project.SWITCHYARD.topology,
        os.environ["SWITCHYARD_MEASURED_QUEUE"],
        read_contender(os.environ["SWITCHYARD_MEASURED_POOL"]),
    ),
)
INSTALLED_APPS = [*_project.INSTALLED_APPS, "devtools.measuring"]
