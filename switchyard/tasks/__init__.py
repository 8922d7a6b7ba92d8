"""Backend for Django's task API: ``TASKS = {"default": {"BACKEND": "switchyard.tasks.SwitchyardBackend"}}``.

Tasks written for ``django.tasks`` (Django 6) or ``django_tasks`` (Django 5.2) run as jobs of the yard. Nothing here is
imported by a project without ``TASKS``.
"""

from switchyard.tasks.backend import SwitchyardBackend

__all__ = ["SwitchyardBackend"]
