"""Form for the arguments of an actor, with a field for each parameter, and the call that they make."""

from __future__ import annotations

from typing import Any

from django import forms
from dramatiq.actor import Actor

from switchyard.broker.errors import ArgumentsRefused
from switchyard.jobs.calls import ActorParameter, CallArguments, from_fields, parameters_of

PREFIX = "argument-"
LONGEST_TEXT = 100_000


class CallForm(forms.Form):
    """Form with the parameters of one actor, then its own fields; ``call`` holds the arguments once it is valid.

    The fields of redacted parameters are password fields, which are never filled in again.
    """

    takes_redacted = True

    def __init__(self, actor: Actor[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor, self.call = actor, CallArguments((), {})
        self.parameters = [each for each in parameters_of(actor) if self.takes_redacted or not each.redacted]
        self.fields = {PREFIX + each.name: _field(each) for each in self.parameters} | self.fields

    @property
    def argument_fields(self) -> list[tuple[ActorParameter, forms.BoundField]]:
        """Parameters with their fields, for the template ``switchyard_jobs/argument_fields.html``."""
        return [(each, self[PREFIX + each.name]) for each in self.parameters]

    def clean(self) -> dict[str, Any]:
        """Check the arguments against signature and annotations; add each fault to its field."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        try:
            self.call = from_fields(
                self.actor, {each.name: data.get(PREFIX + each.name) or "" for each in self.parameters}
            )
        except ArgumentsRefused as error:
            for name, fault in error.faults.items():
                is_field = PREFIX + name in self.fields
                text = fault if is_field or not name else f"{name}: {fault}"
                self.add_error(PREFIX + name if is_field else None, text)
        return data


def _field(parameter: ActorParameter) -> forms.Field:
    css = {"class": "sy-input sy-code", "autocomplete": "off", "spellcheck": "false"}
    widget: forms.Widget = forms.TextInput(attrs=css)
    if parameter.redacted:
        widget = forms.PasswordInput(attrs=css | {"autocomplete": "new-password"}, render_value=False)
    # Not ``required``: the browser would refuse what clean() explains, and "" means the default.
    return forms.CharField(
        label=parameter.shown_name, required=False, initial=parameter.default, max_length=LONGEST_TEXT, strip=True,
        widget=widget,
    )  # fmt: skip
