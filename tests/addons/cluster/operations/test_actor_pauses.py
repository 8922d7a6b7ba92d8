"""A pause of an actor on a cluster: each queue keeps it on its own node."""

from __future__ import annotations

from switchyard.broker.admin.stats import pauses_in
from switchyard.broker.keys import Keys
from switchyard.broker.queue.administration import pause_actor, resume_actor
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import ActorPause

BODY = b'{"actor":"fan_out","sent_at":1}'


def test_queues_on_several_nodes_are_paused_and_resumed(calls: RedisCalls) -> None:
    families = [QueueOperations(calls, Keys().queue(f"queue-{number}")) for number in range(6)]
    for family in families:
        family.join("me/live")
        family.enqueue([Entry("one", BODY), Entry("two", b'{"actor":"mail","sent_at":1}')])

    wanted = ActorPause(0, 0, 0, "fan_out", reason="it sends itself")
    assert all(pause_actor(family, wanted) for family in families)
    started = [[grant.lease.id for grant in family.fetch("me/live", 9, request=1).grants] for family in families]
    assert started == [[b"two"]] * 6
    assert [each.reason for each in pauses_in(families)] == ["it sends itself"]

    assert all(resume_actor(family, "fan_out") for family in families)
    started = [[grant.lease.id for grant in family.fetch("me/live", 9, request=2).grants] for family in families]
    assert started == [[b"one"]] * 6
    assert pauses_in(families) == []
