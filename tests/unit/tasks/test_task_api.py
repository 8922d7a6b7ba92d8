"""The names of the task API, from Django 6 where that is installed."""

from __future__ import annotations

import os
import subprocess
import sys

import django
import pytest

from switchyard.tasks import task_api

# Modules of Django 6 by their names there, made of the package that it was before.
DJANGO_6 = """
import importlib.machinery, sys, types
import django_tasks, django_tasks.base, django_tasks.exceptions, django_tasks.signals, django_tasks.utils
from django_tasks.backends import base as backends_base

def module(name, **members):
    made = sys.modules[name] = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    made.__dict__.update(members)

public = {name: value for name, value in vars(django_tasks).items() if not name.startswith("__")}
module("django.tasks", task_backends=django_tasks.task_backends)
module("django.tasks.base", **{name: vars(django_tasks.base)[name] for name in (
    "TASK_MAX_PRIORITY", "TASK_MIN_PRIORITY", "Task", "TaskContext", "TaskError", "TaskResult", "TaskResultStatus")})
module("django.tasks.backends")
module("django.tasks.backends.base", BaseTaskBackend=backends_base.BaseTaskBackend)
module("django.tasks.exceptions", InvalidTask=django_tasks.exceptions.InvalidTaskError,
       TaskResultDoesNotExist=django_tasks.exceptions.TaskResultDoesNotExist)
module("django.tasks.signals", **{name: vars(django_tasks.signals)[name] for name in (
    "task_enqueued", "task_finished", "task_started")})
module("django.utils.json", normalize_json=django_tasks.utils.normalize_json)
given = list(sys.modules)
from switchyard.tasks.task_api import InvalidTask, Task, normalize_json
assert InvalidTask is sys.modules["django.tasks.exceptions"].InvalidTask
assert Task is sys.modules["django.tasks.base"].Task
import django
django.setup()
from switchyard.tasks import SwitchyardBackend
assert issubclass(SwitchyardBackend, sys.modules["django.tasks.backends.base"].BaseTaskBackend)
print("from Django 6")
"""

WITHOUT = """
import sys
sys.modules["django_tasks"] = None
import django
django.setup()
assert not any(name.startswith("switchyard.tasks") for name in sys.modules)
try:
    import switchyard.tasks
except ModuleNotFoundError as error:
    print(error.__notes__[0])
"""


def _run(code: str) -> str:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_django_6_has_the_names_under_a_path_of_its_own() -> None:
    assert _run(DJANGO_6) == "from Django 6\n"


@pytest.mark.skipif(django.VERSION >= (6,), reason="Django 6 has the task API")
def test_a_project_without_the_task_api_starts_and_is_told_what_to_install() -> None:
    assert _run(WITHOUT) == "Django before 6 has no task API: install django-tasks, or the extra tasks\n"


@pytest.mark.parametrize("name", task_api.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(task_api, name) is not None
