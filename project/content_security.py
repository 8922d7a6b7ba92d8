"""Content Security Policy of every page: nothing from other servers, no frames, no forms to elsewhere."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from switchyard.console.responses import of_each_response

# No page has a script in it: every one is a file of our own. Mails are shown with the styles in them.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


@of_each_response
def content_security(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Add the policy to responses that have none of their own."""
    if "Content-Security-Policy" not in response and response.get("Content-Type", "").startswith("text/html"):
        response["Content-Security-Policy"] = POLICY
    return response
