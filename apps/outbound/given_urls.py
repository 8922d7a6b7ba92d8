"""URLs submitted by callers of the API, to be requested later."""

from apps.outbound.addresses import check_form
from apps.outbound.errors import ForbiddenAddress
from switchyard.api.parsing import invalid
from switchyard.api.problems import FieldError


def refuse_forbidden(url: str) -> None:
    """Refuse a URL that must not be requested, as far as it says so by itself.

    A name is accepted: a resolver that is slow would hold the web up. The worker resolves it, and checks what it finds
    before each request.

    Raises:
        Problem: 422 for the field ``url``.
    """
    try:
        check_form(url)
    except ForbiddenAddress as error:
        raise invalid([FieldError("url", f"{error.fact}; {error.remedy}")]) from error
