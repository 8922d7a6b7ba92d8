"""Guard of the room's pages, which asks the admin site, and words of the pages while the broker is away."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import wraps
from importlib import import_module
from typing import Any, ClassVar, Final

from django.contrib import messages
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.auth.context_processors import PermWrapper
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.context import make_context
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone, translation
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from switchyard.broker.errors import BrokerError, NotFound
from switchyard.console.links import admin_site, admin_url
from switchyard.console.queue_rights import UserOfQueue, holds


def view_of(path: str) -> Callable[..., Any]:
    """Return the view of a dotted path, whose module is imported with its first request.

    ``manage.py check`` imports all URLs of a project: it would import the pages of the whole room with them.
    """
    module, _, name = path.rpartition(".")
    return lambda *args, **parts: getattr(import_module(module), name)(*args, **parts)


def independent(view: Callable[..., Any]) -> Callable[..., Any]:
    """Exempt a view from ``ATOMIC_REQUESTS`` and ``LoginRequiredMiddleware``; it checks by itself who may call it.

    Audit rows and keys are committed before an act, and that before the answer.
    """
    login_not_required(view)
    for alias in connections:
        transaction.non_atomic_requests(alias)(view)
    return view


def room_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return a view for users whom the admin site admits; it sends others to its login, or else to ``LOGIN_URL``.

    ``NotFound`` is a page that is not found; a missing right is named on a page of the room. Nothing is cached.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **parts: Any) -> HttpResponseBase:
        if admin_site().has_permission(request):
            with room_locale():
                try:
                    return view(request, *args, **parts)
                except NotFound as error:
                    raise Http404(str(error)) from error
                except PermissionDenied as error:
                    return RoomResponse(request, "switchyard_frame/not_allowed.html", {"exception": error}, status=403)
        return redirect_to_login(request.get_full_path(), admin_url("login") or None)

    return independent(never_cache(csrf_protect(guarded)))


@contextmanager
def room_locale() -> Iterator[None]:
    """Read and write as the room's pages do: in English, with times in UTC, whatever the project and the user have."""
    with timezone.override(UTC), translation.override("en"):
        yield


class PermsOn:
    """The ``perms`` of a user by queue, for the rows of a list of several."""

    def __init__(self, user: Any) -> None:
        self._user = user

    def get(self, queue: str, default: object = None) -> PermWrapper:
        """Return those for a queue; with "" for all queues."""
        return PermWrapper(UserOfQueue(self._user, queue))


class RoomResponse(TemplateResponse):
    """Page of the room, in its own locale. Numbers are plain: they stand in forms, addresses and drawings too.

    Its ``perms`` are those for the queue that the context names as ``acts_on``, by default for all queues. A row asks
    those for its own queue of ``perms_on``.
    """

    @property
    def rendered_content(self) -> str:
        template: Any = self.resolve_template(self.template_name)
        found = self.resolve_context(self.context_data) or {}
        if (user := getattr(self._request, "user", None)) is not None:
            perms = PermsOn(user)
            found = {"perms": perms.get(found.get("acts_on", "")), "perms_on": perms, **found}
        context = make_context(found, self._request)
        context.use_l10n = False
        with room_locale():
            return str(template.template.render(context))


def require(request: HttpRequest, *rights: str, queue: str | None = None) -> None:
    """Refuse a user who lacks one of some rights, each written with the label of its app, perhaps for a queue.

    Raises:
        PermissionDenied: with the first right that is missing.
    """
    for right in rights:
        if not holds(request.user, right, queue):
            of = f", for {queue or 'all queues'}" if request.user.has_perm(right) else ""
            raise PermissionDenied(f"The missing right is {right}{of}.")


def gone(request: HttpRequest, noun: str, pk: int | str, page: str, site: str | None = None) -> HttpResponseRedirect:
    """Redirect to the list of rows, where a row's page would be not found: rows go by their age, and links stay."""
    messages.warning(request, f"There is no {noun} with the id “{pk}”; old rows are deleted in time.")
    return HttpResponseRedirect(reverse(page, current_app=site))


class ReadOnly(BaseModelAdmin):
    """Refuse adding and changing rows by hand, and deleting them unless ``deletable`` is set.

    Stands before ``ModelAdmin`` or ``TabularInline`` in the list of base classes. Viewing keeps its own permission.
    """

    deletable = False
    list_per_page: ClassVar[int] = 50

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether rows are deletable and the user has Django's permission to delete them."""
        return self.deletable and super().has_delete_permission(request, obj)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponseRedirect:
        """Lead to the list, where Django leads to the start page: rows go by their age, and links to them stay."""
        page = f"admin:{opts.app_label}_{opts.model_name}_changelist"
        return gone(request, opts.verbose_name, object_id[:100], page, self.admin_site.name)


# Stands beside buttons that are switched off, and is their title.
SWITCHED_OFF: Final = "The broker does not answer: what needs it is switched off until it does."
# The same for a queue whose server alone does not answer.
NODE_SWITCHED_OFF: Final = "Its node does not answer: what needs it is switched off until it does."


def not_answered(request: HttpRequest, error: BrokerError | str, *, back: str) -> RoomResponse:
    """Answer an act that the broker did not answer: 503, with the fact, and the address of the page that asked."""
    context = {"title": "Broker away", "fact": str(error), "back": back}
    return RoomResponse(request, "switchyard_frame/broker_away.html", context, status=503)
