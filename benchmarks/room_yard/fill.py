"""``python -m benchmarks.room_yard.fill WAITING LETTERS``: fill a yard, and print a session and samples as JSON."""

import itertools
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import django

AT_ONCE = 2_000
TRIES = 20
BUGS = 200
TRACEBACK = (
    "Traceback (most recent call last):\n" + '  File "shop/prices.py", line 12, in rate\n    raise KeyError\n' * 20
)


def main() -> None:
    """Fill the yard of this process's environment."""
    waiting, letters = (int(argument) for argument in sys.argv[1:])
    django.setup()
    first = _fill_queue(waiting)
    letter = _fill_letters(letters)
    answer = {"session": _session(), "job": first, "letter": letter, "fingerprint": f"{0:016x}"}
    sys.stdout.write(json.dumps(answer) + "\n")


def _fill_queue(count: int) -> str:
    import dramatiq

    from benchmarks.room_yard.actors import wait_in_line
    from switchyard.broker.redis_broker import RedisBroker

    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)
    first = ""
    for numbers in _batches(count):
        messages = [
            wait_in_line.message_with_options(kwargs={"customer": f"customer-{number % 5_000}", "number": number})
            for number in numbers
        ]
        _send(broker, messages)
        first = first or messages[0].message_id
    return first


def _send(broker: Any, messages: list[Any]) -> None:
    """Send messages; once more where a busy machine's server did not answer in time: a message is sent only once."""
    from switchyard.broker.errors import BrokerUnavailable

    for left in reversed(range(TRIES)):
        try:
            broker.enqueue_many(messages)
            return
        except BrokerUnavailable:
            if not left:
                raise


def _fill_letters(count: int) -> int:
    import dramatiq

    from switchyard.broker.clock import now_ms
    from switchyard.broker.redis_broker import RedisBroker
    from switchyard.broker.shapes import DeadLetter as Letter
    from switchyard.broker.stores.dead_lists import DeadLists
    from switchyard.dead_letters.models import DeadLetter
    from switchyard.dead_letters.projection import columns
    from switchyard.history.models import JobRow

    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)
    lists, now = DeadLists(broker.calls, broker.keys), now_ms()

    def letter(number: int) -> Letter:
        id_, died_ms = f"00000000-0000-4000-8000-{number:012d}", now - number * 20
        message = {
            "queue_name": "default", "actor_name": "price_basket", "args": [], "kwargs": {"basket": number},
            "options": {"enqueued_at": died_ms - 5_000}, "message_id": id_, "message_timestamp": died_ms - 5_000,
        }  # fmt: skip
        return Letter(
            id=id_, queue="default", actor="price_basket", message=message, reason="exhausted", exception="KeyError",
            error=f"'vat_rate_{number % BUGS}'", traceback=TRACEBACK, attempts=6, enqueued_at=died_ms - 5_000,
            died_at=died_ms, duration_ms=12, fingerprint=f"{number % BUGS:016x}",
        )  # fmt: skip

    for numbers in _batches(count):
        made = [letter(number) for number in numbers]
        for one in made:
            lists.add(one)
        DeadLetter.objects.bulk_create(DeadLetter(message_id=one.id, **columns(one)) for one in made)
        JobRow.objects.bulk_create(_row(one) for one in made)
    return int(DeadLetter.objects.order_by("-died_at")[0].pk)


def _row(letter: Any) -> Any:
    from switchyard.history.models import JobRow

    return JobRow(
        job_id=letter.id, sequence=1, state="dead", reason=letter.reason, actor=letter.actor, queue=letter.queue,
        lane=letter.queue, attempts=letter.attempts, generation=1, enqueued_at=letter.enqueued_at,
        started_at=letter.died_at - 12, finished_at=letter.died_at, not_succeeded_at=letter.died_at, wait_ms=4_988,
        run_ms=12, failed_at=letter.died_at, error_type=letter.exception, error_message=letter.error,
        fingerprint=letter.fingerprint, owner="user:1",
    )  # fmt: skip


def _batches(count: int) -> Iterator[list[int]]:
    numbers = iter(range(count))
    while batch := list(itertools.islice(numbers, AT_ONCE)):
        yield batch


def _session() -> str:
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User

    user = User.objects.create_superuser("bench", "bench@shop.example")
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return str(session.session_key)


if __name__ == "__main__":
    main()
