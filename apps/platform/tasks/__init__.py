"""Backend for Django's task API: ``TASKS = {"default": {"BACKEND": "apps.platform.tasks.SwitchyardBackend"}}``.

Tasks written for ``django.tasks`` (Django 6) or ``django_tasks`` (Django 5.2) run as jobs of the yard. Nothing here is
imported by a project without ``TASKS``.
"""

from apps.platform.tasks.backend import SwitchyardBackend

__all__ = ["SwitchyardBackend"]
