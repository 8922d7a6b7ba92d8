"""What must become of reconciliations and payment events."""

from __future__ import annotations

import http

from demo.check.evidence import Evidence
from demo.check.seen import Seen, all_succeeded, longest_s, states

BOOKED = "select count(*) from shop_payment where external_id = ?"
COUNTS = ("matched", "unmatched", "corrected")


def reconciliation(evidence: Evidence) -> Seen:
    """See the counts of a reconciled month."""
    jobs = evidence.jobs("reconciliation")
    if not all_succeeded(jobs):
        return Seen(states(jobs), as_expected=False)
    result = jobs[0].body["result"] or {}
    text = ", ".join(f"{result.get(name)} {name}" for name in COUNTS)
    return Seen(text, all(isinstance(result.get(name), int) for name in COUNTS), longest_s(jobs))


def payment(evidence: Evidence) -> Seen:
    """See a payment that was announced twice booked once."""
    answers = evidence.answers.payment
    booked = evidence.count_rows(BOOKED, evidence.answers.payment_id)
    text = ", ".join(str(answer) for answer in answers) or "not sent yet"
    as_expected = answers == [http.HTTPStatus.ACCEPTED] * 2 and booked == 1
    return Seen(f"{text}, booked {booked} times" if booked != 1 else f"{text}, booked once", as_expected)


def forged(evidence: Evidence) -> Seen:
    """See a forged event refused."""
    status = evidence.answers.forged
    booked = evidence.count_rows(BOOKED, evidence.answers.forged_payment_id)
    text = f"{status}, booked {booked} times" if booked else f"{status}, booked never"
    return Seen(text if status else "not sent yet", status == http.HTTPStatus.UNAUTHORIZED and not booked)
