"""The actors of :mod:`tests.integration.workers.bench` a release later: one has another signature, one is new."""

# List in which they note what they ran, and with what.
ENDED = "newer:ended"
