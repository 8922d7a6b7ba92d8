"""Shared parts of the pages of jobs: rights, and the texts while the broker is away or a job is gone."""

from __future__ import annotations

from django.http import HttpRequest

from switchyard.console.room_view import require

AWAY = "The broker does not answer, so jobs cannot be shown; check /readyz, then try again."
GONE = "No job has this id, or its record and its history have expired."


def may(request: HttpRequest, right: str) -> bool:
    """Return whether the user has a right of jobs: ``view_job``, ``view_arguments``, ``cancel_job``, ``run_job``."""
    return bool(request.user.has_perm(f"switchyard_jobs.{right}"))


def check(request: HttpRequest, *rights: str) -> None:
    """Refuse a user who may not view jobs, or lacks one of further rights of jobs.

    Raises:
        PermissionDenied: with the name of the right.
    """
    require(request, *(f"switchyard_jobs.{right}" for right in ("view_job", *rights)))
