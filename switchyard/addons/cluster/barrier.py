"""The flush before an acknowledgement on a cluster: each queue by itself, so that none waits for another one's node."""

from __future__ import annotations

import threading

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.history_streams import Step
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.worker.acks import WRITTEN_AT_ONCE, AckBarrier


class QueueBarrier(AckBarrier):
    """Writes the steps of each queue by themselves, those last that may have to wait for a node that is away."""

    def __init__(self, records: JobRecords) -> None:
        super().__init__(records)
        # By queue: the last flush that wrote all of it; the same, where its node did not answer since; the lock of the
        # thread that writes it.
        self._wrote: dict[str, int] = {}
        self._behind: dict[str, int] = {}
        self._writing_queue: dict[str, threading.Lock] = {}

    @property
    def in_background(self) -> bool:
        """Whether a thread writes what is noted, without a call of :meth:`flush`, and no node is away."""
        return super().in_background and not self._behind

    def written_of(self, queue: str) -> int:
        return max(self._wrote.get(queue, 0), self._behind.get(queue, self.written))

    def _write(self, began_before_s: float, number: int, queue: str) -> bool:
        with self._writing:
            self._gather(began_before_s)
            queues = {queue} if queue else {step.queue for step in self._steps.values()} | {*self._behind}
        failed: BrokerUnavailable | None = None
        for each in sorted(queues, key=self._may_wait):
            try:
                self._write_queue(each, number)
            except BrokerUnavailable as error:
                failed = error
        if failed is not None:
            if not queue:
                with self._beginning:
                    self.written = max(self.written, number)
            raise failed
        return not queue

    def _may_wait(self, queue: str) -> bool:
        return queue in self._behind or (queue in self._writing_queue and self._writing_queue[queue].locked())

    def _write_queue(self, queue: str, number: int) -> None:
        """Write all steps of a queue; also waits for those that another thread is writing."""
        with self._writing_queue.setdefault(queue, threading.Lock()):
            with self._writing:
                steps = [step for step in self._steps.values() if step.queue == queue]
            try:
                for start in range(0, len(steps), WRITTEN_AT_ONCE):
                    self._records.write(steps[start : start + WRITTEN_AT_ONCE])
                    with self._writing:
                        self._drop(steps[start : start + WRITTEN_AT_ONCE])
            except BrokerUnavailable:
                self._behind.setdefault(queue, self.written)
                raise
            self._wrote[queue] = max(self._wrote.get(queue, 0), number)
            self._behind.pop(queue, None)

    def _drop(self, written: list[Step]) -> None:
        """Drop steps that were written, but for jobs whose next step was gathered meanwhile."""
        for step in written:
            if self._steps.get(step.job_id) is step:
                self._steps.pop(step.job_id, None)
