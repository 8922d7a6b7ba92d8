"""URLs submitted by callers of the API, to be requested later."""

from __future__ import annotations

from apps.outbound.addresses import check_url
from apps.outbound.errors import ForbiddenAddress, OutboundError
from switchyard.api.parsing import invalid
from switchyard.api.problems import FieldError

DEADLINE_S = 2.0


def refuse_forbidden(field: str, url: str) -> None:
    """Refuse a URL that must not be requested. A name that does not resolve yet is accepted.

    Every request repeats the check; this one only reports early.

    Raises:
        Problem: 422 for ``field``.
    """
    try:
        check_url(url, deadline_s=DEADLINE_S)
    except ForbiddenAddress as error:
        raise invalid([FieldError(field, f"{error.fact}; {error.remedy}")]) from error
    except OutboundError:
        return
