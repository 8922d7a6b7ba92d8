"""Program of a gevent child, executed anew: patched before anything else is loaded.

A fork of a loaded process cannot be patched: earlier locks and connections would block every greenlet.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402


def main(arguments: list[str]) -> int:
    """Serve a pool. Arguments: the child's assignment, the table's descriptor, rows and slots."""
    import django

    parent_pid = os.getppid()
    argument, fd, rows, slots = arguments
    django.setup()

    import dramatiq

    from switchyard.workers.child.main import read_assignment, serve
    from switchyard.workers.child.spawn import become_child
    from switchyard.workers.preflight import log_to_standard_error
    from switchyard.workers.shared.child_table import ChildTable
    from switchyard.workers.shared.fork import name_process

    log_to_standard_error()
    assignment = read_assignment(argument)
    become_child(dramatiq.get_broker(), assignment.slots)
    name_process(assignment.title)
    row = ChildTable(int(fd), int(rows), int(slots)).rows[assignment.index - 1]
    return serve(assignment, row, parent_pid=parent_pid)


if __name__ == "__main__":
    from switchyard.workers.shared.fork import leave, run_or_crash

    leave(run_or_crash(lambda: main(sys.argv[1:])))
