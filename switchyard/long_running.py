"""Parts of long-running commands: leader election, a loop until a signal, and throttled logging of failures."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from switchyard.broker.errors import BrokerError, BrokerUnavailable, SwitchyardError
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.limit_counts import Lock
from switchyard.conf import in_words_of_project
from switchyard.console.commands import database_trouble
from switchyard.loggers import get_logger

REPEAT_S, LASTS_S = 600.0, 60.0
log = get_logger("switchyard.scheduler")


# Kind of trouble -> when it was logged last; and the last failure of each operation by it.
_logged_s: dict[str, float] = {}
_failed_s: dict[str, dict[str, float]] = {}
_lock = threading.Lock()


class LogThrottle:
    """Log of one operation's failures, at most one line in 10 minutes for each kind of error, and of their end.

    A database or a broker that is away is one trouble of all operations. It has ended when one of them succeeds and
    none has failed for a minute.
    """

    def __init__(self, operation: str, logger: str = "switchyard.scheduler") -> None:
        self._operation = operation
        self._log = get_logger(logger)
        self._failing: set[str] = set()

    def __enter__(self) -> None:
        """Begin a run of the operation: whatever it raises is logged here, and ends here."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self.succeeded()
        elif isinstance(error, Exception):
            self.failed(error)
        return isinstance(error, Exception)

    def failed(self, error: Exception) -> None:
        """Log a failure, unless its trouble was logged within the last 10 minutes."""
        # Ours say what is wrong and what to do: the way to them through the code would hide it.
        ours = isinstance(error, SwitchyardError)
        told = in_words_of_project(str(error)) if ours else database_trouble(error)
        kind = f"{self._operation}: {type(error).__name__}"
        if isinstance(error, BrokerUnavailable):
            kind = type(error).__name__
        elif told and not ours:
            kind = told.partition(":")[0]  # what follows names the table that this operation needs
        now_s = time.monotonic()
        with _lock:
            due = kind not in _failed_s or now_s >= _logged_s[kind] + REPEAT_S
            if due:
                _logged_s[kind] = now_s
            _failed_s.setdefault(kind, {})[self._operation] = now_s
        self._failing.add(kind)
        if due:
            cause = {"error": told} if told else {"exc_info": error}
            self._log.error("failing, will be retried", what=self._operation, **cause)

    def succeeded(self) -> None:
        """Log the end of what the last runs failed by, unless other operations still fail by it, or have logged it."""
        if not self._failing:
            return
        with _lock:
            ended = [kind for kind in self._failing if self._ends(kind)]
            self._failing &= _failed_s.keys()
        if ended:
            self._log.info("works again", what=self._operation)

    def _ends(self, kind: str) -> bool:
        if (failed_s := _failed_s.get(kind)) is None:
            return False
        failed_s.pop(self._operation, None)
        # Tasks that run once an hour, or stopped with this process's lead, do not keep it.
        if any(time.monotonic() < at_s + LASTS_S for at_s in failed_s.values()):
            return False
        del _failed_s[kind]
        return True


SCHEDULER, HISTORY_WRITER, FACT_KEEPER = "scheduler", "history", "facts"
LEASE_S = 15.0
RENEW_S = 5.0


def anyone_leads(calls: RedisCalls, keys: Keys, name: str = SCHEDULER) -> bool:
    """Return whether a process on any machine holds the lease."""
    return bool(calls.command("EXISTS", keys.lock(name)))


class Leadership:
    """A lease that its holder renews every ``renew_s``, and that expires ``lease_s`` after its last renewal."""

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        name: str = SCHEDULER,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < renew_s < lease_s:
            raise ValueError(f"renew_s must be between 0 and lease_s ({lease_s}), got {renew_s}")
        self._lock = Lock(calls, keys, name, lease_ms=int(lease_s * 1000))
        self._name, self._lease_s, self._renew_s, self._clock = name, lease_s, renew_s, clock
        self._renewed_s: float | None = None

    def held(self) -> bool:
        """Return whether this process certainly holds the lease; false after a suspension longer than the lease."""
        return self._younger_than(self._lease_s)

    def acquire_or_renew(self) -> bool:
        """Acquire a free lease or renew the held one when it is due; return whether it is held.

        After a ``BrokerError`` it may expire.
        """
        if self._younger_than(self._renew_s):
            return True
        # Measured before the request, so that the lease expires here before it expires on the server.
        requested_s = self._clock()
        self._renewed_s = requested_s if self._lock.acquire() else None
        return self.held()

    def release(self) -> None:
        """Release the lease, unless it is lost, so that another process takes over at once."""
        if self._renewed_s is not None:
            self._renewed_s = None
            try:
                self._lock.release()
            except BrokerError as error:
                log.warning("lease not released; it expires by itself", what=self._name, error=str(error))

    def _younger_than(self, age_s: float) -> bool:
        renewed_s = self._renewed_s  # other threads write it
        return renewed_s is not None and self._clock() < renewed_s + age_s


EX_SOFTWARE: Final = 70
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def run_until_signal(*runs: Callable[[threading.Event], None], name: str, logger: str, stop_within_s: float) -> None:
    """Run each ``run(stop)`` in a thread; set ``stop`` at SIGTERM, SIGINT or SIGQUIT and wait for their end.

    Returns after ``stop_within_s`` even if a loop still runs. Exits with 70 when a ``run`` raised.
    """
    log = get_logger(logger)
    # Blocked and awaited, not handled: a handler could interrupt a thread that holds the event's lock.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    stop = threading.Event()
    crash: list[BaseException] = []

    def loop(run: Callable[[threading.Event], None]) -> None:
        try:
            run(stop)
        except BaseException as error:
            log.exception(f"{name} crashed")
            crash.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    threads = [threading.Thread(target=loop, args=(run,), name=name, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    received = signal.sigwait(STOP_SIGNALS)
    if crash:
        sys.exit(EX_SOFTWARE)
    log.info("stopping", signal=signal.Signals(received).name)
    stop.set()
    give_up_s = time.monotonic() + stop_within_s
    for thread in threads:
        thread.join(max(give_up_s - time.monotonic(), 0.0))
