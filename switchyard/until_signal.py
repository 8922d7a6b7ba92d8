"""Loop of a command that runs until a signal: the history writer, the scheduler."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from switchyard.loggers import get_logger

EX_SOFTWARE: Final = 70
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def run_until_signal(run: Callable[[threading.Event], None], *, name: str, logger: str, stop_within_s: float) -> None:
    """Run ``run(stop)`` in a thread; set ``stop`` at SIGTERM, SIGINT or SIGQUIT and wait for its end.

    Leaves the loop behind after ``stop_within_s``. Exits with 70 when ``run`` raised.
    """
    log = get_logger(logger)
    # Blocked and awaited, not handled: a handler could interrupt a thread that holds the event's lock.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    stop = threading.Event()
    crash: list[BaseException] = []

    def loop() -> None:
        try:
            run(stop)
        except BaseException as error:
            log.exception(f"{name} crashed")
            crash.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    received = signal.sigwait(STOP_SIGNALS)
    if crash:
        sys.exit(EX_SOFTWARE)
    log.info("stopping", signal=signal.Signals(received).name)
    stop.set()
    thread.join(stop_within_s)
