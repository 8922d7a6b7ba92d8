"""Forms of the pages that mails link to."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import SetPasswordMixin
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import password_validators_help_texts


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
