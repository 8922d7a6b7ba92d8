"""The promises of every transport, on a cluster."""

from tests.integration.broker.conformance.test_letters import *  # noqa: F403
from tests.integration.broker.conformance.test_moves import *  # noqa: F403
