"""Check for misspelt environment variables of the library, which nothing reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches

from django.core.checks import CheckMessage, Warning

from switchyard.conf import KEYS, all_keys, switchyard_settings

PREFIX = "SWITCHYARD_"
# Not settings: development and measuring, and two that are reserved.
OTHERS = frozenset({"SWITCHYARD_CHILD_MIDDLEWARE", "SWITCHYARD_RESULTS_URL", "SWITCHYARD_OTLP_ENDPOINT"})
# Measuring and chaos runs, and what Kubernetes sets for each service whose name begins with "switchyard".
FOREIGN = re.compile(r"SWITCHYARD_((MEASURED|CHAOS)_\w+|(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_\w+)?))")


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[CheckMessage]:
    """Return W032 for each variable that begins with ``SWITCHYARD_`` and that neither library nor project reads.

    The values are not shown: they may be secret.
    """
    known = set(OTHERS) | set(switchyard_settings().variables)
    given = {name for name in environ if name.startswith(PREFIX) and not FOREIGN.fullmatch(name)}
    if given <= known.union(filter(None, KEYS.values())):
        return []
    known |= {variable for variable in all_keys().values() if variable}
    unknown = sorted(given - known)
    return [_warning(name, known) for name in unknown]


def _warning(name: str, known: set[str]) -> CheckMessage:
    # Compared without the prefix, which would make all of them alike.
    endings = {each.removeprefix(PREFIX): each for each in known}
    near = get_close_matches(name.removeprefix(PREFIX), endings, n=1)
    guess = f"Did you mean {endings[near[0]]}?" if near else f"Known are {', '.join(sorted(known))}."
    remedy = f'{guess} Name one of your own in SWITCHYARD["VARIABLES"].'
    return Warning("is set, and nothing reads it", hint=remedy, obj=name, id="switchyard.W032")
