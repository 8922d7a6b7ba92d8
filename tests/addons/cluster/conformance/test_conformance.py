"""The promises of every transport, on a cluster, for a user that may do what a worker may."""

from collections.abc import Iterator

import pytest

from switchyard.broker.redis import acl
from switchyard.broker.redis.connections import connect
from tests.integration.broker.conformance.subjects import Atomic, Subject
from tests.integration.broker.conformance.test_letters import *  # noqa: F403
from tests.integration.broker.conformance.test_moves import *  # noqa: F403


@pytest.fixture
def subject(cluster) -> Iterator[Subject]:
    """The transport under test, with nothing in it; its user may do what a worker may, on keys of tests."""
    _, name, *rules = acl.line("worker", acl.roles()["worker"], prefix="test-*", user="tested").split(" ")
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", name, "on", ">tested", *(rule for rule in rules if rule != "off"))
    subject = Atomic(connect(cluster.url.replace("://", f"://{name}:tested@")), "atomic")
    yield subject
    subject.close()
