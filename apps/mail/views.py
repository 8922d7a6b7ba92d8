"""Pages that mails link to: set a new password."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import SetPasswordMixin
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import password_validators_help_texts
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from apps.mail import links
from apps.mail.links import LinkInvalid
from switchyard.middleware.clock_comparison import compare

_SESSION_KEY = "mail_reset_token"


class NewPasswordForm(SetPasswordMixin, forms.Form):
    """A new password, typed twice."""

    error_messages = {"password_mismatch": "The two passwords differ. Type the same one twice."}
    password, repeated = SetPasswordMixin.create_password_fields("New password", "The same again")

    def __init__(self, *args: Any, user: User | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.rules = password_validators_help_texts()
        for field in self.fields.values():
            field.widget.attrs["class"] = "field"

    def clean(self) -> dict[str, Any]:
        """Check that both are equal and that the password passes the validators."""
        self.validate_passwords("password", "repeated")
        self.validate_password_for_user(self.user, "password")
        return super().clean() or self.cleaned_data


@never_cache
@require_GET
def open_reset_link(request: HttpRequest, token: str) -> HttpResponse:
    """Move the token from the URL to the session, so that neither history nor referrer keeps it, and show the form.

    An invalid token starts no session, because anybody could create rows that way.
    """
    compare()
    try:
        links.open_link(token)
    except LinkInvalid as invalid:
        return _refused(request, invalid)
    request.session[_SESSION_KEY] = token
    response = redirect("mail-choose-password")
    response["Referrer-Policy"] = "no-referrer"
    return response


@never_cache
@require_http_methods(["GET", "POST"])
def choose_password(request: HttpRequest) -> HttpResponse:
    """Show the form and set the new password. Only setting it uses the link up."""
    token = request.session.get(_SESSION_KEY, "")
    compare()
    try:
        mail = links.open_link(token)
        form = NewPasswordForm(request.POST or None, user=links.account_of(mail.to))
        if request.method == "POST" and form.is_valid():
            found = links.set_password(token, form.cleaned_data["password"])
            del request.session[_SESSION_KEY]
            return render(request, "mail/reset_done.html", {"found": found, "to": mail.to})
    except LinkInvalid as invalid:
        return _refused(request, invalid)
    return render(request, "mail/reset_form.html", {"form": form, "to": mail.to})


def _refused(request: HttpRequest, invalid: LinkInvalid) -> HttpResponse:
    return render(request, "mail/reset_invalid.html", {"fact": invalid.fact}, status=410)
