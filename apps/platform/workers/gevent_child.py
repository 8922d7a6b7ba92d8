"""A gevent child, executed anew: patched before anything else is loaded, so that all of it cooperates.

A fork of a loaded process cannot be patched: locks and connections made before would block every greenlet.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402


def main(arguments: list[str]) -> int:
    """Serve a pool. Arguments: the child's assignment, the table's descriptor, rows and slots."""
    import django

    parent_pid = os.getppid()
    words, fd, rows, slots = arguments
    django.setup()

    import dramatiq
    import gevent
    from dramatiq.middleware import AsyncIO

    from apps.platform.workers.child import serve
    from apps.platform.workers.children import read_assignment
    from apps.platform.workers.processes import name_process
    from apps.platform.workers.table import Table

    # All greenlets share one thread, and Django refuses its database in a thread that runs an event loop.
    broker = dramatiq.get_broker()
    broker.middleware = [entry for entry in broker.middleware if not isinstance(entry, AsyncIO)]
    assignment = read_assignment(words)
    name_process(assignment.title)
    # Names are looked up in real threads, ten by default: as many that never resolve would hold up every other slot.
    gevent.get_hub().threadpool.maxsize = max(10, assignment.slots)
    row = Table(int(fd), int(rows), int(slots)).rows[assignment.place - 1]
    return serve(assignment, row, parent_pid=parent_pid)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # greenlets that outlasted the grace must not hold up the end
