"""Backend for Django's task API: ``TASKS = {"default": {"BACKEND": "switchyard.tasks.SwitchyardBackend"}}``.

Tasks written for ``django.tasks`` (Django 6) or ``django_tasks`` (Django 5.2) run as jobs of the yard. Nothing here
is imported by a project without ``TASKS``.

It keeps true: a message names a task, and a worker runs only what is registered under that path; a task is sent at
the commit of its transaction; its result is read from the job's record, then from the history.

Files in reading order: ``backend``, ``task_actors`` (the task API's names, results). Public: ``SwitchyardBackend``.
"""

from switchyard.tasks.backend import SwitchyardBackend

__all__ = ["SwitchyardBackend"]
