"""The names of the task API as a project imports them: of Django from 6.0 on, of ``django-tasks`` before."""

# ruff: noqa: F401

import django

if django.VERSION >= (6,):
    from django.tasks import TaskContext, default_task_backend, task, task_backends
    from django.tasks.exceptions import InvalidTask as InvalidTaskError
    from django.tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
    from django.tasks.signals import task_enqueued, task_finished, task_started
else:
    from django_tasks import TaskContext, default_task_backend, task, task_backends
    from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist, TaskResultMismatch
    from django_tasks.signals import task_enqueued, task_finished, task_started
