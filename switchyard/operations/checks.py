"""System check of the findings that alert rules name."""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from django.core.checks import CheckMessage, Error

from switchyard.conf import declared_yard

# Names of alerts that are no findings of the overview.
OTHERS = ("dead_letter", "broker.*")


def check_rule_names(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse alert rules whose name no finding has."""
    rules = declared_yard().alerts
    if not rules:
        return []
    from switchyard.operations.findings.finding import precedence

    known = [*OTHERS, *(rank.name for rank in precedence() if rank.name != "*")]
    found: list[CheckMessage] = []
    for rule in rules:
        if any(fnmatchcase(rule.finding, name) or fnmatchcase(name, rule.finding) for name in known):
            continue
        near = get_close_matches(rule.finding, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        hint += "docs/reference/verdicts.md lists them; `*` stands for any characters."
        found.append(Error(f"alert rule of {rule.finding}: no finding has this name", hint=hint, id="switchyard.E043"))
    return found
