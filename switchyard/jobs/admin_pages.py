"""Shared parts of the pages of jobs: rights, a page, the text while the broker is away."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

AWAY = "The broker does not answer, so jobs cannot be shown; check /readyz, then try again."
GONE = "No job has this id, or its record and its history have expired."


def may(request: HttpRequest, right: str) -> bool:
    """Return whether the user has a right of jobs: ``view_job``, ``view_arguments``, ``cancel_job``, ``run_job``."""
    return bool(request.user.has_perm(f"switchyard_jobs.{right}"))


def check(request: HttpRequest, right: str = "view_job") -> None:
    """Refuse a user without a right of jobs.

    Raises:
        PermissionDenied: the user has not the right.
    """
    if not may(request, right):
        raise PermissionDenied(f"The missing right is switchyard_jobs.{right}.")


def render(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """Return a whole page."""
    return TemplateResponse(request, template, context, status=status)
