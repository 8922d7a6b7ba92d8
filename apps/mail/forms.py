"""Forms of the pages that mails link to."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import password_validators_help_texts, validate_password

_FIELD = {"autocomplete": "new-password", "class": "field"}


class NewPasswordForm(forms.Form):
    """A new password, typed twice."""

    password = forms.CharField(label="New password", strip=False, widget=forms.PasswordInput(attrs=_FIELD))
    repeated = forms.CharField(label="The same again", strip=False, widget=forms.PasswordInput(attrs=_FIELD))

    def __init__(self, *args: Any, user: User | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.rules = password_validators_help_texts()

    def clean(self) -> dict[str, Any]:
        """Check that both are equal and that the password passes the validators."""
        cleaned = super().clean() or self.cleaned_data
        password, repeated = cleaned.get("password"), cleaned.get("repeated")
        if password and repeated and password != repeated:
            self.add_error("repeated", "The two passwords differ. Type the same one twice.")
        elif password:
            try:
                validate_password(password, self.user)
            except forms.ValidationError as weak:
                self.add_error("password", weak)
        return cleaned
