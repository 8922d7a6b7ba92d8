"""Words of the pages while the broker is away, and the answer of an act that it did not answer."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest
from django.template.response import TemplateResponse

from switchyard.broker.errors import BrokerError

# Stands beside buttons that are switched off, and is their title.
SWITCHED_OFF: Final = "The broker does not answer: what needs it is switched off until it does."
# The same for a queue whose server alone does not answer.
NODE_SWITCHED_OFF: Final = "Its node does not answer: what needs it is switched off until it does."


def not_answered(request: HttpRequest, error: BrokerError | str, *, back: str) -> TemplateResponse:
    """Answer an act that the broker did not answer: 503, with the fact in words and the messages of the request.

    Args:
        back: Address of the page that asked.
    """
    context = {"title": "Broker away", "fact": str(error), "back": back}
    return TemplateResponse(request, "switchyard_frame/broker_away.html", context, status=503)
