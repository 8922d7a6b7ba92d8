"""Checks of header fields before Django reads them, which it does for every request.

Python's readers of ``Cookie`` and ``Content-Type`` take time that grows with the square of the length. That of
``Content-Type`` runs in the event loop, and fails for some encodings of parameters, which Django does not handle.
"""

from __future__ import annotations

import codecs
from typing import Final

from django.utils.http import parse_header_parameters

from switchyard.api.problems import Problem

# Python before 3.11.10 and 3.12.6 takes 3 s for 32 KiB of backslashes in a cookie (CVE-2024-7592), 0.2 s for 8 KiB.
LONGEST_COOKIES: Final = 8 * 1024
# A boundary has 70 characters at most.
LONGEST_TYPE: Final = 512
# Python's codecs that decode no text, raise errors whatever they are told, or yield halves of surrogate pairs.
UNUSABLE_CODECS: Final = frozenset(
    {"base64", "bz2", "hex", "quopri", "rot-13", "uu", "zlib", "undefined"}
    | {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"}
)


def refuse_unreadable_type(given: list[bytes]) -> None:
    """Refuse what cannot be read of a request's values of ``Content-Type``, of which most requests have at most one.

    Raises:
        Problem: 400 it is given twice, too long, or has an encoded parameter; 415 no text is read in its charset.
    """
    if not given:
        return
    if len(given) > 1:
        raise Problem(400, f"Content-Type: is given {len(given)} times; give it once")
    if b";" not in given[0]:
        return
    if len(given[0]) > LONGEST_TYPE:
        raise Problem(400, f"Content-Type: has {len(given[0])} characters, {LONGEST_TYPE} are the most; send less")
    if b"*" in given[0]:  # neither types nor boundaries have one
        raise Problem(400, "Content-Type: has a parameter that is encoded by RFC 2231; write it as it is")
    try:
        charset = parse_header_parameters(given[0].decode("latin-1"))[1].get("charset", "utf-8")
        usable = codecs.lookup(charset).name not in UNUSABLE_CODECS
    except LookupError:
        return  # Django reads UTF-8 then
    except ValueError:
        usable = False
    if not usable:
        raise Problem(415, "Content-Type: text in its charset cannot be read; send UTF-8")


def refuse_large_cookies(given: list[bytes]) -> None:
    """Refuse a request whose values of ``Cookie`` are larger together than any that our pages need.

    Raises:
        Problem: 431.
    """
    size_bytes = sum(map(len, given))
    if size_bytes > LONGEST_COOKIES:
        raise Problem(431, f"the cookies have {size_bytes} bytes, {LONGEST_COOKIES} are the most; delete some")
