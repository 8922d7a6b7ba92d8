"""The form that sends an actor: one JSON text for each parameter, a delay, tags."""

from __future__ import annotations

from typing import Any

from django import forms
from dramatiq.actor import Actor

from switchyard.broker.errors import ArgumentsRefused
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.jobs.calls import WHOLE_CALL, ActorParameter, CallArguments, from_fields, parameters_of
from switchyard.middleware.envelope import LONGEST_TAG, MOST_TAGS

PREFIX = "argument-"
LONGEST_TEXT = 100_000


class SendForm(forms.Form):
    """Form with the parameters of one actor. ``call`` holds the checked arguments once the form is valid.

    The fields of redacted parameters are password fields, which are never filled in again.
    """

    delay_s = forms.FloatField(
        label="Delay in seconds", required=False, min_value=0, max_value=LONGEST_DELAY_MS / 1_000,
        widget=forms.NumberInput(attrs={"class": "sy-input sy-short", "step": "any", "min": "0"}),
    )  # fmt: skip
    tags = forms.CharField(
        required=False, max_length=MOST_TAGS * (LONGEST_TAG + 1),
        widget=forms.TextInput(attrs={"class": "sy-input", "autocomplete": "off"}),
        help_text=f"Words with spaces between them, at most {MOST_TAGS}.",
    )  # fmt: skip
    job_id = forms.CharField(required=False, max_length=36, widget=forms.HiddenInput)

    def __init__(self, actor: Actor[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor, self.call = actor, CallArguments((), {})
        self.parameters = parameters_of(actor)
        self.fields = {PREFIX + each.name: _field(each) for each in self.parameters} | self.fields

    @property
    def argument_fields(self) -> list[tuple[ActorParameter, forms.BoundField]]:
        return [(each, self[PREFIX + each.name]) for each in self.parameters]

    @property
    def option_fields(self) -> list[forms.BoundField]:
        return [self["delay_s"], self["tags"]]

    def focus_first_fault(self) -> None:
        """Let the browser scroll to the first field with an error."""
        for name in self.fields:
            if name in self.errors:
                self.fields[name].widget.attrs["autofocus"] = True
                return

    def clean_tags(self) -> list[str]:
        tags: list[str] = list(dict.fromkeys(self.cleaned_data["tags"].split()))
        if len(tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in tags):
            raise forms.ValidationError(f"write at most {MOST_TAGS} tags of at most {LONGEST_TAG} characters")
        return tags

    def clean(self) -> dict[str, Any]:
        """Check the arguments against signature and annotations."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        texts = {each.name: data.get(PREFIX + each.name) or "" for each in self.parameters}
        try:
            self.call = from_fields(self.actor, texts)
        except ArgumentsRefused as error:
            for name, fault in error.faults.items():
                self.add_error(None if name == WHOLE_CALL else PREFIX + name, fault)
        return data


def _field(parameter: ActorParameter) -> forms.CharField:
    css = {"class": "sy-input sy-code", "autocomplete": "off", "spellcheck": "false"}
    widget: forms.Widget
    if parameter.redacted:
        widget = forms.PasswordInput(attrs=css | {"autocomplete": "new-password"}, render_value=False)
    else:
        widget = forms.TextInput(attrs=css)
    # Not ``required``: the browser would refuse what clean() explains, and "" means the default.
    return forms.CharField(
        label=parameter.shown_name, required=False, initial=parameter.default, max_length=LONGEST_TEXT, strip=True,
        widget=widget,
    )  # fmt: skip
