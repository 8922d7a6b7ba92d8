"""Dead letters, unreadable messages and figures, as on every transport."""

from tests.integration.broker.conformance.test_letters import *  # noqa: F403
