"""URLs submitted by callers of the API, to be requested later."""

from __future__ import annotations

from apps.outbound.addresses import check_form
from apps.outbound.errors import ForbiddenAddress
from switchyard.api.parsing import invalid
from switchyard.api.problems import FieldError


def refuse_forbidden(url: str) -> None:
    """Refuse (422) a URL that must not be requested, as far as it says so by itself.

    A name is accepted: the worker resolves it, and checks what it finds before each request.
    """
    try:
        check_form(url)
    except ForbiddenAddress as error:
        raise invalid([FieldError("url", f"{error.fact}; {error.remedy}")]) from error
