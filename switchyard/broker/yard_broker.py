"""Bases of the brokers: what all have, and what those of a yard have, wherever its queues live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker
from dramatiq.errors import QueueNotFound
from dramatiq.message import Message
from dramatiq.results import ResultBackend, Results

from switchyard.broker.interface import Postpone
from switchyard.broker.keys import Keys, Lane
from switchyard.broker.queue.administration import DepthLimits
from switchyard.broker.queue.operations import QueueOperations, level_of
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.topology import lane_of_name
from switchyard.broker.worker.acks import AckBarrier
from switchyard.broker.worker.hooks import Hooks
from switchyard.broker.worker.prefetch import HeldMarks
from switchyard.broker.worker.wakeup import CancellationPoll

if TYPE_CHECKING:
    import redis


def undeclared(queue_name: str, declared: Iterable[str]) -> QueueNotFound:
    return QueueNotFound(f"{queue_name}: no queue of the topology; it declares {', '.join(declared)}")


class HookedBroker(Broker):
    """Broker that calls the hooks of its middleware in their order, and has limits of depth.

    Args:
        limits: Queue -> messages that may wait in it.
        barrier: Flushed before messages are acknowledged, and after some were enqueued.
        options: Of Dramatiq's broker.

    Attributes:
        results: Where ``get_result`` reads; a project's own ``Results`` go before it.
        postpone: Keeps messages until a commit and returns those to send now; called after their hooks.
    """

    def __init__(
        self, *, limits: dict[str, int] | None = None, barrier: AckBarrier | None = None, **options: Any
    ) -> None:
        self.hooks = Hooks()
        super().__init__(**options)
        self.limits = DepthLimits(limits or {})
        self.barrier = barrier
        self.results: ResultBackend | None = None
        self.postpone: Postpone | None = None

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks ``before_<signal>``, first to last; raise a ``MiddlewareError``, log any other exception."""
        self.hooks.call_before(self, signal, args, kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks ``after_<signal>``, last to first; log their exceptions."""
        self.hooks.call_after(self, signal, args, kwargs)

    def get_results_backend(self) -> ResultBackend:
        """Return where ``get_result`` reads; without the whole stack there may be no such place."""
        own = any(isinstance(entry, Results) for entry in self.middleware)
        return super().get_results_backend() if own or self.results is None else self.results

    def level(self, message: Message[Any]) -> int:
        """Return the level of a message: of its own priority, else of its actor's."""
        priority = message.options.get("priority")
        if priority is None:
            priority = getattr(self.actors.get(message.actor_name), "priority", 0)
        return level_of(priority)


class YardBroker(HookedBroker):
    """Broker whose messages belong to queue families, and whose workers a supervisor watches.

    Args:
        calls: Access to the Redis server.
        stores: Access of the stores; its connections are closed with the broker's.
        options: Of the base.

    Attributes:
        in_flight: Messages that this process holds, by id.
        quiet: Returns whether nothing is to be fetched or started.
        runs_suspects: Messages that may have ended their pool run here.
        held_marks: Where a child marks what it holds, if the server gives that to others itself; its supervisor reads.
        promises: Lanes by latency class, where slots are kept for the shorter ones; see ``Pool``.
        families: Queue -> its operations on the Redis server.
        make_leases: Makes a supervisor's leases from the arguments of
            :class:`switchyard.workers.supervisor.leases.ChildLeases`; ``None`` for that class.
    """

    make_leases: Callable[..., Any] | None = None

    def __init__(self, calls: RedisCalls, keys: Keys, *, stores: Sequence[RedisCalls] = (), **options: Any) -> None:
        super().__init__(**options)
        self.calls, self.keys = calls, keys
        self.families: dict[str, QueueOperations] = {}
        self.in_flight: dict[str, Any] = {}
        self.draining, self.runs_suspects = False, True
        self.held_marks: HeldMarks | None = None
        self.promises: Sequence[Sequence[str]] = ()
        self.quiet: Callable[[], bool] = bool
        self.slots: int | None = None
        self._stores = stores
        self.cancellations = CancellationPoll(partial(self.emit_after, "request_cancellation"))
        self._lanes: dict[str, tuple[QueueOperations, Lane]] = {}

    @property
    def client(self) -> redis.Redis:
        """Client of the Redis server."""
        return self.calls.client

    def become(self, child: str, *, slots: int | None = None) -> None:
        """Work under the name of a pool's child, before anything is consumed. A name is used once."""
        raise NotImplementedError

    def drain(self) -> None:
        """Fetch nothing from now on. Running messages end, others are released."""
        raise NotImplementedError

    def lane(self, queue_name: str) -> tuple[QueueOperations, Lane]:
        """Return the family and the lane behind a queue's name; ``QueueNotFound`` when it was never declared."""
        try:
            return self._lanes[queue_name]
        except KeyError:
            raise undeclared(queue_name, self.families) from None

    def _declare_lane(self, queue_name: str) -> None:
        base, lane = lane_of_name(queue_name)
        family = self.families.setdefault(base, QueueOperations(self.calls, self.keys.queue(base)))
        self._lanes[queue_name] = (family, lane)
