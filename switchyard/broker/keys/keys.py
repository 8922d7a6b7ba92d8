"""The name of every key that Switchyard writes, one function for each."""

from __future__ import annotations

import msgspec

from switchyard.broker.keys.queue_keys import QueueKeys


class Keys(msgspec.Struct, frozen=True):
    """Key names below one prefix.

    Keys that one operation changes together share a hash tag, so that they live at one place.

    Args:
        slot_groups: Queues with the hash tag that they share with others instead of having their own.
    """

    prefix: str = "switchyard"
    slot_groups: tuple[tuple[str, str], ...] = ()

    def queue(self, queue: str) -> QueueKeys:
        """Keys of a queue family."""
        for name, group in self.slot_groups:
            if name == queue:
                return QueueKeys(f"{self.prefix}:{{{group}}}:queue:{queue}:", queue)
        return QueueKeys(f"{self.prefix}:{{{queue}}}:", queue)

    def history_counts(self) -> str:
        """Hash: rows that the history writer has ``written``, and ``skipped`` because they could not be read."""
        return f"{self.prefix}:history:counts"

    def window(self, name: str) -> str:
        """Sorted set: message id -> start or reserved start, ms since the epoch."""
        return f"{self.prefix}:window:{{{name}}}"

    def alerts_due(self) -> str:
        """Sorted set: fingerprint -> when its group is to be sent next, ms since the epoch."""
        return f"{self.prefix}:{{alerts}}:due"

    def alert_group(self, fingerprint: str) -> str:
        """Hash: one alert group."""
        return f"{self.prefix}:{{alerts}}:group:{fingerprint}"

    def pool_reports(self) -> str:
        """Set: members with a pool report."""
        return f"{self.prefix}:{{pools}}:index"

    def pool_report(self, member: str) -> str:
        """String: the report of one supervisor as JSON. Expires after the supervisor's end."""
        return f"{self.prefix}:{{pools}}:{member}"

    def pool_beats(self) -> str:
        """Hash: member -> time of its last report (ms), of every supervisor that did not end in order."""
        return f"{self.prefix}:{{pools}}:beats"

    def stacks_asked(self, member: str) -> str:
        """String: the last request for the stacks of a supervisor's children. Expires after 15 s."""
        return f"{self.prefix}:{{pools}}:asked:{member}"

    def stacks_answer(self, request: str) -> str:
        """String: the requested stacks as JSON. Expires after a minute."""
        return f"{self.prefix}:{{pools}}:stacks:{request}"

    def pool_instruction(self, member: str) -> str:
        """String: an operator's last instruction to a supervisor, as JSON. Expires after a minute."""
        return f"{self.prefix}:{{pools}}:instruction:{member}"

    def pool_quieted(self, member: str) -> str:
        """String: the instruction that a quieted supervisor obeyed, as JSON. Expires with its report."""
        return f"{self.prefix}:{{pools}}:quieted:{member}"

    def generation(self) -> str:
        """Hash: the keyspace id. ``id``, ``made_at`` (ms since the epoch), ``instead_of`` the ids of lost keyspaces."""
        return f"{self.prefix}:generation"

    def generations_missed(self) -> str:
        """Set: keyspace ids that a process had read and then did not find. Nothing runs until they are accepted."""
        return f"{self.prefix}:generation:missed"

    def abort(self, job_id: str) -> str:
        """String: the ``abort_timeout`` of a job that was aborted, ms. Expires after 90 s, or its ``abort_ttl``."""
        return f"{self.prefix}:abort:{{{job_id}}}"

    def group(self, group_id: str) -> str:
        """Hash: the barrier of a group with completion callbacks. ``size`` its number of jobs, ``job:<id>`` each that
        succeeded; in place of those ``sent`` once the callbacks were sent. Expires a day after the last change.
        """
        return f"{self.prefix}:group:{{{group_id}}}"

    def limit(self, name: str) -> str:
        """String: a counter or an event of ``dramatiq.rate_limits``. Expires when its limiter or barrier says."""
        return f"{self.prefix}:limit:{{{_limiter_of(name)}}}:{name}"

    def limit_answer(self, name: str, request: str) -> str:
        """String: the answer to a change of such a counter, for a repetition of the call. Expires after 10 s."""
        return f"{self.prefix}:limit:{{{_limiter_of(name)}}}:answer:{request}"

    def lock(self, name: str) -> str:
        """String: the token of the process that holds a named lock."""
        return f"{self.prefix}:lock:{name}"

    def tick(self, actor: str, at: str) -> str:
        """String: a tick of a schedule, present after it was enqueued."""
        return f"{self.prefix}:tick:{actor}:{at}"


def _limiter_of(name: str) -> str:
    """Return the name of a limiter: Dramatiq's limiters add ``@`` and a time to it, one counter for each window."""
    return name.rpartition("@")[0] or name
