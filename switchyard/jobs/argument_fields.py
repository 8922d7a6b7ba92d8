"""Fields of a form for the arguments of an actor, one for each parameter, and the call that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from dramatiq.actor import Actor

from switchyard.broker.errors import ArgumentsRefused
from switchyard.jobs.calls import ActorParameter, CallArguments, from_fields, parameters_of

PREFIX = "argument-"
LONGEST_TEXT = 100_000


def fields_of(parameters: Iterable[ActorParameter]) -> dict[str, forms.Field]:
    return {PREFIX + each.name: _field(each) for each in parameters}


def bound_fields(form: forms.Form, parameters: Iterable[ActorParameter]) -> list[tuple[ActorParameter, Any]]:
    """Return parameters with their fields, for the template ``switchyard_jobs/argument_fields.html``."""
    return [(each, form[PREFIX + each.name]) for each in parameters]


def call_of(form: forms.Form, actor: Actor[..., Any], data: Mapping[str, Any]) -> CallArguments | None:
    """Return the call that a form's cleaned data makes; ``None`` after each fault was added to its field."""
    texts = {each.name: data.get(PREFIX + each.name) or "" for each in parameters_of(actor)}
    try:
        return from_fields(actor, texts)
    except ArgumentsRefused as error:
        for name, fault in error.faults.items():
            is_field = PREFIX + name in form.fields
            form.add_error(PREFIX + name if is_field else None, fault if is_field or not name else f"{name}: {fault}")
        return None


def _field(parameter: ActorParameter) -> forms.CharField:
    css = {"class": "sy-input sy-code", "autocomplete": "off", "spellcheck": "false"}
    widget: forms.Widget = forms.TextInput(attrs=css)
    if parameter.redacted:
        widget = forms.PasswordInput(attrs=css | {"autocomplete": "new-password"}, render_value=False)
    # Not ``required``: the browser would refuse what clean() explains, and "" means the default.
    return forms.CharField(
        label=parameter.shown_name, required=False, initial=parameter.default, max_length=LONGEST_TEXT, strip=True,
        widget=widget,
    )  # fmt: skip
