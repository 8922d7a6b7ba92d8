"""Redis Cluster: a yard's queues on several masters, of which some may fail while the queues of the others go on.

A queue lives with all of its keys on the node that holds the hash slot of its name. What is kept true: each call goes
to the node of its keys and follows a slot that moves; a node that is away, or a slot that is half moved, stops its own
queues alone; a master that loses its keys is noticed, also one without a queue.

In reading order: ``hash_slots`` (the map, and the client), ``calls`` (the way of a call, and of several to
several nodes at once; records of each queue before its acknowledgements), ``servers`` (markers, and what is away or
half moved), ``standing`` (of a server by itself), ``findings`` (what doctor and pages say).
"""

from typing import Final

from switchyard.addon import Addon

ADDON: Final = Addon(
    name="cluster",
    title="Redis Cluster",
    schemes=("redis+cluster", "rediss+cluster"),
    connect="switchyard.addons.cluster.hash_slots:connect_cluster",
    calls="switchyard.addons.cluster.calls:ClusterCalls",
    barrier="switchyard.addons.cluster.calls:QueueBarrier",
    servers="switchyard.addons.cluster.servers:Masters",
    hosts="switchyard.addons.cluster.hash_slots:hosts_of",
    judge="switchyard.addons.cluster.standing:judge",
    look_at="switchyard.addons.cluster.findings:look",
    explain="switchyard.addons.cluster.findings:explain",
    options="switchyard.addons.cluster.findings:options_of",
    words="switchyard.addons.cluster.findings:WORDS",
    commands=("asking", "cluster|slots"),
    fails_over=True,
)
