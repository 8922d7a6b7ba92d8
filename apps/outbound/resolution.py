"""DNS resolution, once and within a deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence

from apps.outbound.errors import DeadlineExceeded, Unreachable

Resolve = Callable[[str, int, float], Sequence[str]]
"""Function from host, port and deadline in seconds to the host's addresses, best first."""


def look_up(host: str, port: int, deadline_s: float) -> tuple[str, ...]:
    """Return every address that the system's resolver returns for a host.

    The resolver has no deadline of its own, so it runs in another thread and is abandoned when it takes too long;
    its own timeouts end it. Works in threads and, patched, in greenlets.

    Raises:
        Unreachable: the name does not resolve.
        DeadlineExceeded: no answer within ``deadline_s``.
    """
    found: list[str] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            found.extend(str(answer[4][0]) for answer in answers)
        except (OSError, UnicodeError) as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    if not done.wait(max(deadline_s, 0.0)):
        raise DeadlineExceeded(host, deadline_s, "its name was looked up")
    if failures or not found:
        raise Unreachable(host, "its name does not resolve")
    return tuple(dict.fromkeys(found))
