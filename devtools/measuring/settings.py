"""Settings of a measured process: the project's own, plus the measured pool."""

import importlib
import json
import os
from dataclasses import replace

from devtools.measuring.work import POOL, yard_with
from switchyard.broker.topology import Pool

_project = importlib.import_module(os.environ["SWITCHYARD_MEASURED_SETTINGS"])
globals().update({name: getattr(_project, name) for name in dir(_project) if name.isupper()})

_kind, _queue, _processes, _slots = json.loads(os.environ["SWITCHYARD_MEASURED_POOL"])
SWITCHYARD = replace(
    _project.SWITCHYARD,
    topology=yard_with(_project.SWITCHYARD.topology, Pool(POOL, _kind, (_queue,), processes=_processes, slots=_slots)),
)
INSTALLED_APPS = [*_project.INSTALLED_APPS, "devtools.measuring"]
