"""API tokens in the admin: create, name and revoke; and the stored idempotent requests."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from switchyard.api.models import SCOPES, IdempotentRequest, Token, covered_scopes
from switchyard.api.tokens import issue_secret, revoke_token
from switchyard.audit.services import Who, act
from switchyard.console.links import admin_site
from switchyard.console.lists import CheckedQuery
from switchyard.console.room_view import ReadOnly


@admin.register(Token, site=admin_site())
class TokenAdmin(CheckedQuery):
    """Create, inspect and revoke tokens. The plain token is shown once, after it was created.

    A superuser makes tokens for everybody; other users for themselves, with the scopes that their permissions cover.
    """

    list_display = ("name", "owner", "shown_prefix", "shown_scopes", "shown_state", "last_used_at", "created_at")
    list_filter = ("revoked_at", "created_at")
    search_fields = ("name", "prefix", f"owner__{get_user_model().USERNAME_FIELD}")
    search_help_text = "Name, beginning of the token or owner"
    list_select_related = ("owner",)
    actions = ("revoke",)
    kept = ("owner", "shown_scopes", "shown_prefix", "created_at", "last_used_at", "revoked_at")

    @property
    def autocomplete_fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """The owner, where the project's admin can search its users; Django refuses the option elsewhere."""
        users, site = get_user_model(), self.admin_site
        searched = site.is_registered(users) and bool(site.get_model_admin(users).search_fields)
        return ("owner",) if searched else ()

    @admin.display(description="token")
    def shown_prefix(self, token: Token) -> str:
        return f"sy_{token.prefix}_…"

    @admin.display(description="scopes")
    def shown_scopes(self, token: Token) -> str:
        return token.shown_scopes

    @admin.display(description="state")
    def shown_state(self, token: Token) -> str:
        """Return whether the token still works."""
        return "usable" if token.revoked_at is None else "revoked"

    def get_fields(self, request: HttpRequest, obj: Token | None = None) -> tuple[str, ...]:
        """Return the fields; of an existing token only the name can be changed."""
        if obj is not None:
            return ("name", *self.kept)
        return ("name", "owner", "scopes") if getattr(request.user, "is_superuser", False) else ("name", "scopes")

    def get_form(
        self, request: HttpRequest, obj: Token | None = None, change: bool = False, **options: Any
    ) -> type[ModelForm[Token]]:
        """Return the form, of a new token with check boxes for the scopes that the user's permissions cover."""
        form = super().get_form(request, obj, change, **options)
        if obj is not None:
            return form
        choices = [(scope, f"{scope}: {SCOPES[scope]}") for scope in covered_scopes(request.user)]
        boxes = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple, choices=choices)
        return type(form.__name__, (form,), {"scopes": boxes})

    def get_readonly_fields(self, request: HttpRequest, obj: Token | None = None) -> tuple[str, ...]:
        return () if obj is None else self.kept

    def save_model(self, request: HttpRequest, obj: Token, form: ModelForm[Token], change: bool) -> None:
        """Save a token, and issue the secret of a new one; ``PermissionDenied`` where it has more than its user may."""
        if not change and not set(obj.scopes) <= set(covered_scopes(request.user)):
            raise PermissionDenied("The token has a scope that your permissions do not cover.")
        if not change and not getattr(request.user, "is_superuser", False):
            obj.owner = request.user  # type: ignore[assignment]  # the admin lets nobody in without a user
        obj.plain = "" if change else issue_secret(obj)
        detail = {"name": obj.name, "scopes": obj.scopes, "owner": str(obj.owner.get_username())}
        name = "token.rename" if change else "token.create"
        with act(name, who=Who.of_request(request), target=obj.prefix, detail=detail):
            super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Token) -> None:
        with act("token.delete", who=Who.of_request(request), target=obj.prefix, detail={"name": obj.name}):
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Token]) -> None:
        for token in queryset:
            self.delete_model(request, token)

    def response_add(self, request: HttpRequest, obj: Token, post_url_continue: str | None = None) -> HttpResponse:
        """Show a new token's plain form once."""
        context = {**self.admin_site.each_context(request), "title": "New token", "opts": self.opts}
        context |= {"token": obj, "plain": obj.plain}
        # Not as a message: messages are stored in a cookie until the next page.
        return TemplateResponse(request, "admin/switchyard_api/new_token.html", context)

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[Token]) -> None:
        usable = tokens.filter(revoked_at__isnull=True)
        prefixes = list(usable.values_list("prefix", flat=True))
        for prefix in prefixes:
            revoke_token(prefix, who=Who.of_request(request))
        messages.success(request, f"Revoked: {len(prefixes)}. They are refused from now on.")


@admin.register(IdempotentRequest, site=admin_site())
class IdempotentRequestAdmin(ReadOnly, CheckedQuery):
    """Requests stored with an Idempotency-Key, and their answers. Read-only but deletable."""

    deletable = True
    list_per_page = 100
    list_display = ("key", "token", "shown_status", "claimed_at")
    search_fields = ("=key", "token__prefix", "token__name")
    search_help_text = "Key, or the token's name or beginning"
    list_select_related = ("token",)
    fields = ("token", "key", "fingerprint", "shown_status", "claimed_at")

    @admin.display(description="answer")
    def shown_status(self, kept: IdempotentRequest) -> str:
        return str(kept.status or "in flight")
