"""The yard's settings with leases of 4 s in place of 15 s, in the supervisor and in its children."""

from switchyard.broker.queue import leases
from switchyard.broker.queue.operations import QueueOperations
from tests.chaos.yard.settings import *  # noqa: F403

LEASE_MS = 4_000

leases.LEASE_MS = LEASE_MS  # type: ignore[misc]
leases.RENEW_S = 1.0  # type: ignore[misc]
leases.SWEEP_S = 0.5  # type: ignore[misc]
for operation in (QueueOperations.join, QueueOperations.renew, QueueOperations.lapsed):
    operation.__kwdefaults__["lease_ms"] = LEASE_MS
