"""What the API answered where no job tells the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Answers:
    """Statuses; 0 where nothing was asked yet.

    Args:
        payment_id: The provider's id of the payment that the signed event tells of.
        payment: Of the signed event, each time it was sent.
        forged: Of the event that was signed with another secret.
        private_url: Of the request for a picture inside the network.
    """

    payment_id: str
    payment: list[int] = field(default_factory=list)
    forged: int = 0
    private_url: int = 0

    @property
    def forged_payment_id(self) -> str:
        """Id of the payment that the forged event tells of."""
        return f"{self.payment_id}_forged"
