"""The allowance of password resets: how many an address may be sent within a time, counted in the database.

A window begins with its first request. Keys are hashes: neither table nor logs hold an address. Limited by mailbox, so
that nobody floods one; the route, as each, by API token.
"""

import contextlib
import math
import re
import unicodedata
from datetime import timedelta

from django.db import transaction
from django.utils.crypto import salted_hmac

from apps.mail.models import UsedAllowance
from switchyard.api.problems import Problem
from switchyard.api.request_jobs import current_request, is_repeated_request
from switchyard.broker import clock
from switchyard.database import delete_old
from switchyard.middleware.clock_comparison import compared_now

PURGE_EVERY = 100


NAME, LIMIT, WINDOW = "password resets for one address", 10, timedelta(minutes=15)
# Providers that ignore dots before the @, under both of their names.
DOTLESS = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}


def use(address: str) -> int:
    """Count a request for a mailbox; return 0 when it is allowed, otherwise the seconds until the window ends."""
    key = salted_hmac(f"switchyard allowance {NAME}", mailbox_of(address), algorithm="sha256").hexdigest()
    now = compared_now()
    with transaction.atomic():
        # Locked: of concurrent requests no more than the limit are counted.
        locked = UsedAllowance.objects.select_for_update()
        row, is_new = locked.get_or_create(key=key, defaults={"began_at": now, "count": 0})
        if row.began_at <= now - WINDOW:
            row.began_at, row.count = now, 0
        if row.count >= LIMIT:
            return max(1, math.ceil((row.began_at + WINDOW - now).total_seconds()))
        row.count += 1
        row.save()
    if is_new and row.pk % PURGE_EVERY == 0:
        purge()
    return 0


def require(address: str) -> None:
    """Count a request for a mailbox; a request that is repeated with its ``Idempotency-Key`` was counted before.

    Call it before anything is written: the refusal frees the key.

    Raises:
        Problem: 429 with ``Retry-After``, the allowance is used up.
    """
    if is_repeated_request() or (wait_s := use(address)) == 0:
        return
    jobs = current_request()
    if jobs is not None:
        jobs.refused_before_work = True
    minutes = math.ceil(WINDOW.total_seconds() / 60)
    raise Problem(
        429,
        f"{NAME}: {LIMIT} within {minutes} min are the most; send the request again in {wait_s} s",
        headers={"Retry-After": str(wait_s)},
        type="urn:switchyard:problem:allowance-used-up",
    )


def purge() -> int:
    """Delete counts of windows that ended a day ago or more, a bounded number at once; return how many."""
    old = UsedAllowance.objects.filter(began_at__lt=clock.utc_now() - timedelta(days=2)).order_by("began_at")
    return delete_old(old, batches=1)


def mailbox_of(address: str) -> str:
    """Return one text for all spellings of an address that usually reach the same mailbox.

    Spellings differ in case, Unicode form, the form of an international domain, a ``+tag``, quotes, and dots at
    Gmail. A provider may treat tags as mailboxes of their own: those then share one allowance.
    """
    local, _, domain = unicodedata.normalize("NFKC", address).strip().rpartition("@")
    domain = domain.casefold().rstrip(".")
    with contextlib.suppress(UnicodeError):
        domain = domain.encode("idna").decode("ascii")
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = re.sub(r"\\(.)", r"\1", local[1:-1], flags=re.DOTALL)
    local = local.casefold().partition("+")[0] or local.casefold()
    if domain in DOTLESS:
        domain, local = DOTLESS[domain], local.replace(".", "")
    return f"{local}@{domain}"
