"""Failures of deliveries."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class DeliveryFailed(SwitchyardError):
    """An attempt got no answer, or one other than 2xx."""

    def __init__(self, host: str, fact: str) -> None:
        super().__init__(f"{host}: {fact}; only 2xx is success, see what the endpoint itself logged")
