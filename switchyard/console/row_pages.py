"""Page of one row in the admin: its heading, its state, its facts, and the acts of its list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ActionForm
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.forms import ChoiceField
from django.http import HttpRequest, HttpResponse

NO_ACT = [("", "Choose an act …")]
DELETION = "delete_selected"


class ActForm(ActionForm):
    """Choice of an act above a list."""

    action = ChoiceField(label="Act:")


class RowPage(admin.ModelAdmin):
    """Django's page of a row, with what the room's pages have at their top; refusals name the missing right.

    ``badge`` names the column that shows the row's state beside the heading; "" for none. ``main_act`` names the act
    of the list that has the primary button. ``sending_acts`` are those that enqueue jobs: they are switched off while
    the broker is away. ``code_fields`` are columns whose value is no prose: names, checksums.
    """

    action_form = ActForm
    empty_value_display = "–"
    badge: str = ""
    main_act: str = ""
    sending_acts: Sequence[str] = ()
    code_fields: Sequence[str] = ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list."""
        with self._refusals_named(request, "view"):
            return super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or save a row."""
        acts = ("add",) if object_id is None else ("view", "change") if request.method == "POST" else ("view",)
        with self._refusals_named(request, *acts):
            return super().changeform_view(request, object_id, form_url, extra_context)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask before a row is deleted, or delete it."""
        with self._refusals_named(request, "view", "delete"):
            return super().delete_view(request, object_id, extra_context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the changes of a row."""
        with self._refusals_named(request, "view"):
            return super().history_view(request, object_id, extra_context)

    @contextmanager
    def _refusals_named(self, request: HttpRequest, *acts: str) -> Iterator[None]:
        """Name the first right for some acts that the user lacks, where Django refuses without a word."""
        try:
            yield
        except PermissionDenied as error:
            rights = [f"{self.opts.app_label}.{get_permission_codename(act, self.opts)}" for act in acts]
            lacking = [right for right in rights if not request.user.has_perm(right)]
            if error.args or not lacking:
                raise
            raise PermissionDenied(f"The missing right is {lacking[0]}.") from error

    def heading(self, row: Any) -> str:
        """Return the page's heading."""
        return str(row)

    def facts(self, row: Any) -> Sequence[tuple[str, str]]:
        """Return the figures below the heading: each a number and its meaning."""
        return ()

    def get_action_choices(
        self,
        request: HttpRequest,
        default_choices: list[tuple[str, str]] = NO_ACT,
    ) -> list[tuple[str, str]]:
        """Return the acts of the list, after a line that asks to choose one."""
        return super().get_action_choices(request, default_choices)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Return the parts of the form; without declared ones, what cannot be changed stands below what can."""
        found = super().get_fieldsets(request, obj)
        if obj is None or self.fieldsets or not self.has_change_permission(request, obj):
            return found
        fixed = set(self.get_readonly_fields(request, obj))
        fields = list(self.get_fields(request, obj))
        facts = [each for each in fields if isinstance(each, str) and each in fixed]
        parts = (None, [each for each in fields if each not in facts]), ("Facts", facts)
        return [(name, {"fields": some}) for name, some in parts if some]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Model | None = None,
    ) -> HttpResponse:
        """Show the page, of an existing row with its heading, state, figures and acts."""
        if obj is not None:
            heading = self.heading(obj)
            context = context | {
                "crumb": heading,
                "heading": heading,
                "badge": getattr(self, self.badge)(obj) if self.badge else "",
                "facts": self.facts(obj),
                "acts": [choice for choice in self.get_action_choices(request, []) if choice[0] != DELETION],
                "main_act": self.main_act,
                "sending_acts": self.sending_acts,
                "changes": bool(
                    self.has_change_permission(request, obj)
                    or any(
                        inline.has_change_permission or inline.has_add_permission
                        for inline in context.get("inline_admin_formsets", ())
                    )
                ),
            }
        return super().render_change_form(request, context, add, change, form_url, obj)
