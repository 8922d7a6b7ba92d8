"""Runs each waiting message as it may happen in production: to its end in a worker that is then killed, and again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from django.utils import timezone
from dramatiq.message import Message

from switchyard.broker import clock
from switchyard.middleware.outcomes import outcome_of
from switchyard.testing import effects
from switchyard.testing.asserting import described
from switchyard.testing.broker import MemoryBroker
from switchyard.testing.calls import SentMessage, StoredMessage
from switchyard.testing.commits import run_callbacks
from switchyard.testing.running import MOST_ATTEMPTS, Runner, endless_run
from switchyard.testing.switch import active


@dataclass(frozen=True, slots=True)
class Repetition:
    """Changes that the repetitions of one message made.

    Args:
        call: The message as a call.
        again: What the run after a crash at the end of the first changed, in words.
        twice: What the run after that changed, whose message was acknowledged before.
    """

    actor: str
    call: str
    again: tuple[str, ...]
    twice: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"  {self.call}"]
        for when, found in (
            ("run again after a crash at its end, it", self.again),
            ("delivered once more after that, it", self.twice),
        ):
            lines += [f"    {when} {text}" for text in found]
        return "\n".join(lines)


class NotRepeatable(AssertionError):
    """Actors whose repetition has other effects than one run.

    Attributes:
        actors: Their names.
    """

    def __init__(self, found: list[Repetition], checked: list[str]) -> None:
        self.found = found
        self.actors = sorted({one.actor for one in found})
        listed = "\n".join(str(one) for one in found)
        super().__init__(
            f"not safe to repeat, {len(self.actors)} of {len(set(checked))} actors: {', '.join(self.actors)}\n"
            f"{listed}\n"
            "a message is delivered again when its worker is lost; see docs/how-to/do-something-once.md"
        )


def redelivered(*, ignore: Iterable[str] = ()) -> list[str]:
    """Run each waiting message, and what that sends, three times, and compare what the runs leave behind.

    The first run ends in a crash: its task is done, nothing is recorded or acknowledged. The second is the redelivery,
    which ends. The third is one more delivery, as after a lost acknowledgement. After the first run none may change
    anything: rows of the database, mails, files in storages, messages sent by the task, its result.

    ``timezone.now()`` stands still meanwhile, so that a row that is written anew with the time is the same row. An
    actor that depends on other times, or on random numbers, is found different, and is.

    Args:
        ignore: Columns that may change, as ``"updated_at"`` or ``"shop_order.updated_at"``, and keys of results that
            are a ``dict``, as ``"result.unchanged"``.

    Returns:
        Names of the actors that were run, sorted.

    Raises:
        NotRepeatable: the effects differ; it names the actors.
        TypeError, ValueError: ``ignore`` is a text, or names a column that no table has.
        Exception: what an actor raised in its first run.
    """
    yard = active().yard
    if isinstance(ignore, str):
        raise TypeError(f"ignore is a text; write ignore=[{ignore!r}]")
    redelivery = _Redelivery(yard.broker, yard.runner, frozenset(ignore))
    moment = timezone.now()
    with mock.patch.object(timezone, "now", lambda: moment), mock.patch.object(clock, "utc_now", lambda: moment):
        return redelivery.run()


class _Redelivery:
    def __init__(self, broker: MemoryBroker, runner: Runner, ignored: frozenset[str]) -> None:
        self._broker = broker
        self._runner = runner
        self._ignored = ignored
        self._tables = effects.tables()
        effects.require_known(ignored, self._tables)

    def run(self) -> list[str]:
        """Run everything, and return the names of the actors."""
        run_callbacks()
        found: list[Repetition] = []
        checked: list[str] = []
        while (stored := self._broker.next_ready()) is not None:
            if len(checked) >= MOST_ATTEMPTS:
                raise endless_run(stored.message().actor_name)
            message = stored.message()
            checked.append(message.actor_name)
            repetition = self._repeat(stored, message)
            if repetition.again or repetition.twice:
                found.append(repetition)
        if found:
            raise NotRepeatable(found, checked)
        return sorted(set(checked))

    def _repeat(self, stored: StoredMessage, message: Message[Any]) -> Repetition:
        sent_before = len(self._broker.sent)
        first_result = self._crashing(stored)
        sent_first = list(self._broker.sent[sent_before:])
        first = self._effects()
        second_result = self._ending(stored)
        second = self._effects()
        again = self._differences(first, second, first_result, second_result)
        third_result = self._ending(stored)
        twice = self._differences(second, self._effects(), second_result, third_result)
        self._drop_repeated(sent_before, sent_first)
        call = described(SentMessage(message, by_task=False, delay_ms=None))
        return Repetition(message.actor_name, call, again, twice)

    def _crashing(self, stored: StoredMessage) -> Any:
        held = self._broker.hold(stored)
        if held is None:
            raise RuntimeError(f"{stored.id} is not due")
        try:
            return self._runner.run_and_crash(held)
        finally:
            self._broker.reclaim()

    def _ending(self, stored: StoredMessage) -> Any:
        """Deliver the message again, as it was, and run it to its end."""
        self._broker.finished.discard(stored.id)
        self._broker.waiting[stored.id] = stored
        held = self._broker.hold(stored)
        assert held is not None  # noqa: S101  it was due before
        attempt = self._runner.run_one(held)
        if attempt.exception is not None or outcome_of(held).kind != "succeeded":
            self._broker.waiting.pop(stored.id, None)  # the retry is not another message to compare
            return attempt.exception or attempt.outcome
        return attempt.result

    def _effects(self) -> effects.Effects:
        sent = tuple(described(one) for one in self._broker.sent if one.by_task)
        return effects.read(sent, self._tables)

    def _differences(
        self, before: effects.Effects, after: effects.Effects, old_result: Any, new_result: Any
    ) -> tuple[str, ...]:
        found = effects.differences(before, after, ignored=self._ignored)
        if isinstance(new_result, BaseException):
            found.append(f"raised {type(new_result).__name__}: {new_result}")
        else:
            found += self._of_results(old_result, new_result)
        return tuple(found)

    def _of_results(self, old: Any, new: Any) -> list[str]:
        if not isinstance(old, dict) or not isinstance(new, dict):
            return [] if old == new else [f"returned {new!r:.200}, before {old!r:.200}"]
        names = [name for name in {**old, **new} if f"result.{name}" not in self._ignored]
        changed = [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
        return [f"returned {name}={after!r:.200}, before {name}={before!r:.200}" for name, before, after in changed]

    def _drop_repeated(self, sent_before: int, sent_first: list[SentMessage]) -> None:
        """Forget what repetitions sent again: it would be run and compared as well."""
        first = {one.message.message_id for one in sent_first}
        for one in self._broker.sent[sent_before:]:
            if one.by_task and one.message.message_id not in first:
                self._broker.waiting.pop(one.message.message_id, None)
