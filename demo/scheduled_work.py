"""Sample work that starts later. The API has no delay, so it is sent as an app of the yard sends it."""

from __future__ import annotations

SOON_MS = 20_000
LATE_MS = 600_000
HEADLINE = "This week in the yard"


def send(owner: str) -> dict[str, str]:
    """Enqueue a newsletter for later, and one for much later that the demo will cancel.

    Args:
        owner: ``Token.owner_key`` of the token that may follow and cancel them.

    Returns:
        ``later`` and ``cancelled``: their job ids.
    """
    from apps.platform.jobs.services import submit
    from apps.product.mail.actors import newsletter

    def at(delay_ms: int, to: str) -> str:
        paragraphs = ["Twelve new customers came aboard.", "The slow pool printed their first statements."]
        content = {"to": to, "headline": HEADLINE, "paragraphs": paragraphs}
        return submit(newsletter, owner=owner, delay_ms=delay_ms, kwargs=content)

    return {"later": at(SOON_MS, "later@readers.example"), "cancelled": at(LATE_MS, "never@readers.example")}
