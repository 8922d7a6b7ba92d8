"""Program of processes with greenlets, executed anew and patched before anything else is loaded.

It is a gevent child, or the common parent of several gevent pools. A loaded process cannot be patched: its locks and
connections would block every greenlet. Parents wait for processes and signals, so ``os`` and ``signal`` are patched in
children alone, by :func:`switchyard.workers.child.main.become_child`.
"""

from gevent import config, monkey

monkey.patch_all(os=False, signal=False)
config.resolver = "block"  # without threads, because a parent forks

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402


def main(role: str, fd: str, rows: str, slots: str) -> int:
    """Serve a pool, or run several: by an assignment or names of pools, as JSON, with the table that has the row."""
    import django

    parent_pid, fields = os.getppid(), json.loads(role)
    django.setup()

    import dramatiq

    from switchyard.conf import declared_yard
    from switchyard.workers.child.main import become_child, drop_event_loop, read_assignment, serve
    from switchyard.workers.preflight import log_to_standard_error
    from switchyard.workers.shared.child_table import ChildTable
    from switchyard.workers.shared.fork import name_process

    log_to_standard_error()
    row = ChildTable(int(fd), int(rows), int(slots)).rows[fields["index"] - 1]
    if "pools" in fields:
        from switchyard.workers.pool_group import PoolGroup

        drop_event_loop(dramatiq.get_broker())
        for name in ("pool", "resolver.thread", "signal", "threadpool", "util"):  # all children import them
            import_module(f"gevent.{name}")
        pools = [declared_yard().pool(name) for name in fields["pools"]]
        return PoolGroup(pools, grace_s=fields["grace_s"], own_row=row).run()
    assignment = read_assignment(fields)
    become_child(dramatiq.get_broker(), assignment.slots)
    name_process(assignment.title)
    return serve(assignment, row, parent_pid=parent_pid)


if __name__ == "__main__":
    from switchyard.workers.shared.fork import leave, run_or_crash

    leave(run_or_crash(lambda: main(*sys.argv[1:])))
