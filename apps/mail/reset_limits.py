"""Limits on password resets: by mailbox, so that nobody floods one, and by API token.

A caller over a limit gets 429 instead of a silent 202: it is a program with a token, and a 202 names a job that runs.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta

from apps.mail.allowances import Allowance

PER_ADDRESS = Allowance("password resets for one address", limit=10, window=timedelta(minutes=15))
PER_TOKEN = Allowance("password resets of one token", limit=10_000, window=timedelta(hours=1))
# Providers that ignore dots before the @, under both of their names.
DOTLESS = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}


def mailbox_of(address: str) -> str:
    """Return one text for all spellings of an address that usually reach the same mailbox.

    Spellings differ in case, Unicode form, the form of an international domain, a ``+tag``, quotes, and dots at
    Gmail. A provider may treat tags as mailboxes of their own: those then share one allowance.
    """
    local, _, domain = unicodedata.normalize("NFKC", address).strip().rpartition("@")
    domain = _ascii_domain(domain.casefold().rstrip("."))
    local = _unquoted(local).casefold()
    local = local.partition("+")[0] or local
    if domain in DOTLESS:
        domain, local = DOTLESS[domain], local.replace(".", "")
    return f"{local}@{domain}"


def _unquoted(local: str) -> str:
    if len(local) < 2 or local[0] != '"' or local[-1] != '"':
        return local
    return re.sub(r"\\(.)", r"\1", local[1:-1], flags=re.DOTALL)


def _ascii_domain(domain: str) -> str:
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain
