"""Guard of the room's pages: for staff alone, without an admin site."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from switchyard.console.links import admin_url


class Views:
    """The views of a module, each of which imports it with its first request.

    ``manage.py check`` imports all URLs of a project: it would import the pages of the whole room with them.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def view(request: HttpRequest, *args: Any, **parts: Any) -> Any:
            return getattr(import_module(self._module), name)(request, *args, **parts)

        return view


def room_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return a view for active staff; others are sent to the admin's login, or to ``LOGIN_URL`` without an admin."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **parts: Any) -> HttpResponseBase:
        if request.user.is_active and request.user.is_staff:
            return view(request, *args, **parts)
        return redirect_to_login(request.get_full_path(), admin_url("login") or None)

    return never_cache(csrf_protect(guarded))


def require(request: HttpRequest, *rights: str) -> None:
    """Refuse a user who lacks one of some rights, each written with the label of its app.

    Raises:
        PermissionDenied: with the first right that is missing.
    """
    for right in rights:
        if not request.user.has_perm(right):
            raise PermissionDenied(f"The missing right is {right}.")


def gone(request: HttpRequest, noun: str, pk: int, page: str) -> HttpResponseRedirect:
    """Redirect to the list of rows, where a row's page would be not found: rows go by their age, and links stay."""
    messages.warning(request, f"There is no {noun} with the id “{pk}”; old rows are deleted in time.")
    return HttpResponseRedirect(reverse(page))
