"""The answer to a login that had too many failures, of one user name from one address."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse

FAILURES = 10
PAUSE = timedelta(minutes=15)


def refuse(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """Return 429 with the time to wait; the password is not checked."""
    minutes = PAUSE // timedelta(minutes=1)
    return HttpResponse(
        f"Too many failed logins of this user from this address. Try again in {minutes} minutes, or have somebody run "
        "`manage.py axes_reset`.\n",
        status=429,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": str(int(PAUSE.total_seconds()))},
    )
