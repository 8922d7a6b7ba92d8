"""Django middleware that shows the control characters of a page as escapes: text of tasks may have any."""

import re

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from switchyard.api.middleware import of_each_response

# C0 without tab, line feed and carriage return, and DEL; C1 begin with the byte C2 in UTF-8.
_C0 = bytes((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F))
_FIRST_OF_C1 = b"\xc2"
# Fields that a browser sends back with a form stay as they are: a page that is saved unchanged changes nothing.
_FOUND = re.compile(
    rb'<textarea\b.*?</textarea\s*>|\svalue="[^"]*"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]',
    re.DOTALL | re.IGNORECASE,
)
_LONGEST = 2  # bytes of a control character


@of_each_response
def control_characters(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Write ``\\x1b`` for an escape, and likewise for other control characters, in every HTML page.

    A page's text that is copied, or printed by ``curl``, must not reach a terminal as commands, and no page has a NUL.
    """
    if not isinstance(response, HttpResponse) or response.has_header("Content-Encoding"):
        return response
    if not response.get("Content-Type", "").startswith("text/html") or response.charset.lower() != "utf-8":
        return response
    page = shown(response.content)
    if len(page) != len(response.content):
        response.content = page
        if response.has_header("Content-Length"):
            response["Content-Length"] = str(len(page))
    return response


def shown(page: bytes) -> bytes:
    """Return a page in UTF-8 with its control characters as escapes, but for values of forms.

    A NUL in a value becomes U+FFFD, as it would in the browser.
    """
    if _FIRST_OF_C1 not in page and len(page.translate(None, _C0)) == len(page):
        return page
    return _FOUND.sub(_escape, page)


def _escape(found: re.Match[bytes]) -> bytes:
    text = found.group()
    if len(text) > _LONGEST:
        return text.replace(b"\x00", "\ufffd".encode())
    return b"\\x%02x" % text[-1]
