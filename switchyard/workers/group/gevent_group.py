"""Parent of several gevent pools, executed anew and patched first, so that their children share what it loads.

Its supervisors wait for processes and signals like all others, so ``os`` and ``signal`` stay unpatched. In the children
both are patched as well, see :func:`switchyard.workers.child.spawn.become_child`.
"""

from gevent import config, monkey

monkey.patch_all(os=False, signal=False)
config.resolver = "block"  # without threads, because this process forks

import json  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402

from switchyard.conf import declared_yard  # noqa: E402


def main(arguments: list[str]) -> int:
    """Run pools. Arguments: their names, the grace in seconds, the table's descriptor and rows, the process's index."""
    import django

    names, grace_s, fd, rows, index = arguments
    django.setup()

    import dramatiq

    from switchyard.workers.child.spawn import drop_event_loop
    from switchyard.workers.group.pool_group import PoolGroup
    from switchyard.workers.preflight import log_to_standard_error
    from switchyard.workers.shared.child_table import ChildTable

    log_to_standard_error()
    drop_event_loop(dramatiq.get_broker())
    for name in ("pool", "resolver.thread", "signal", "threadpool", "util"):  # all children import them
        import_module(f"gevent.{name}")
    row = ChildTable(int(fd), int(rows)).rows[int(index) - 1]
    pools = [declared_yard().pool(name) for name in json.loads(names)]
    return PoolGroup(pools, grace_s=float(grace_s), own_row=row).run()


if __name__ == "__main__":
    from switchyard.workers.shared.fork import leave, run_or_crash

    leave(run_or_crash(lambda: main(sys.argv[1:])))
