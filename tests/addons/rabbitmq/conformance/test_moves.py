"""Moves of messages, as on every transport."""

from tests.integration.broker.conformance.test_moves import *  # noqa: F403
