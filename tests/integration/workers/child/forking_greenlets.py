"""Run by a test in a process of its own, patched: two greenlets that wake in one round of the loop fork, and return."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import gevent  # noqa: E402

from switchyard.workers.child.hygiene import disown_copies  # noqa: E402

ORIGINAL = os.getpid()


def fork_at(descriptor: int) -> None:
    """Print when it wakes, and when its copy has slept on a hub of its own."""
    hub = gevent.get_hub()
    hub.wait(hub.loop.io(descriptor, 1))
    print("woke in the original" if os.getpid() == ORIGINAL else "woke in a copy", flush=True)
    if copy := os.fork():
        os.waitpid(copy, 0)
    else:
        gevent.sleep(0.01)
        print("slept in a copy", flush=True)


if __name__ == "__main__":
    disown_copies("a test")
    pipes = [os.pipe() for _ in range(2)]
    greenlets = [gevent.spawn(fork_at, reading) for reading, _ in pipes]
    gevent.sleep(0)
    for _, writing in pipes:
        os.write(writing, b"x")
    gevent.joinall(greenlets)
    print("joined", flush=True)
