"""Options: unknown and unusable ones are refused when they are written, with the name or value to write instead."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, ClassVar, Final

import msgspec
from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.queue.administration import follows_a_job
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.topology import LONGEST_DELAY_MS, is_whole, whole_delay
from switchyard.loggers import get_logger
from switchyard.middleware.errors import InvalidOption, UnknownOption, place_of

LONGEST_OWNER: Final = 200  # in the history
# Value of an option, and whom it is for. Returns what to write instead, empty when the value is usable.
ActorCheck = Callable[[Any, Actor[..., Any]], str]
# The same with the name of the message's queue or lane.
MessageCheck = Callable[[Any, str], str]

MESSAGE_FIELDS: dict[str, Any] = {
    "queue_name": str, "actor_name": str, "args": (list, tuple), "kwargs": dict, "options": dict,
}  # fmt: skip


class OptionRule(msgspec.Struct, frozen=True):
    """The values of one option: checks, ``None`` for what cannot have it, and words for a value that no check says.

    A message's value must be JSON. With ``takes_none`` the value ``None`` is the same as leaving the option out.
    """

    name: str
    of_actor: ActorCheck | None
    of_message: MessageCheck | None = None
    takes_none: bool = True
    words: str = ""

    def text(self, actor: Actor[..., Any]) -> str:
        """Return in words the values that the option takes: the remedy for a value that no option takes."""
        refusal = self.of_actor(_UNUSABLE, actor) if self.of_actor is not None else ""
        if not refusal and self.of_message is not None:
            refusal = self.of_message(_UNUSABLE, actor.queue_name)
        return refusal or self.words


_UNUSABLE = object()


def rule_of_both(name: str, check: Callable[[Any], str], *, takes_none: bool = True) -> OptionRule:
    """Return the rule of an option that takes the same values from actors and messages."""
    return OptionRule(name, lambda value, actor: check(value), lambda value, queue: check(value), takes_none)


def _any_value(value: Any, actor: Actor[..., Any]) -> str:
    """Accept any value: a system check validates it."""
    return ""


def takes(usable: Callable[[Any], object], remedy: str) -> Callable[[Any], str]:
    """Return the check of an option that takes the values for which ``usable`` is true."""
    return lambda value: "" if usable(value) else remedy


def rule_of_message(name: str, check: Callable[[Any], str]) -> OptionRule:
    """Return the rule of an option that only messages have."""
    return OptionRule(name, None, lambda value, queue: check(value))


def rule_of_actor(name: str, check: Callable[[Any], str]) -> OptionRule:
    """Return the rule of an option that only actors have."""
    return OptionRule(name, lambda value, actor: check(value))


_of_priority = takes(lambda value: type(value) is int, "write an integer; a lower one goes first")
flag = takes(lambda value: type(value) is bool, "write True or False")
actor_name = takes(lambda value: isinstance(value, str) and value, "write the name of an actor")
# A negative delay is none, a fraction is rounded up.
usable_delay = takes(
    lambda value: is_whole(whole_delay(value), most=LONGEST_DELAY_MS),
    f"write milliseconds, from 0 to {LONGEST_DELAY_MS}",
)
# No rules of received messages: workers read the fractions that stock Dramatiq writes, and any owner.
OF_SENDERS: Final = {
    "eta": takes(
        lambda value: value is None or is_whole(value, most=LARGEST),
        "eta is milliseconds since the epoch; or write delay=10_000",
    ),
    "owner": takes(
        lambda value: value is None or (isinstance(value, str) and len(value) <= LONGEST_OWNER),
        f"write text of at most {LONGEST_OWNER} characters, such as Token.owner_key",
    ),
}


def is_message(value: Any) -> bool:
    """Return whether a value of an option is a message, as ``Message.asdict`` makes it."""
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in MESSAGE_FIELDS.items())


def boolean_of(message: Any, actor: Actor[..., Any] | None, name: str, *, default: bool) -> bool:
    """Return an option that is ``True`` or ``False``: the message's, else its actor's, else the default."""
    value = message.options.get(name)
    if value is None and actor is not None:
        value = actor.options.get(name)
    return value if isinstance(value, bool) else default


def unusable(queue: str, options: Mapping[str, Any], rules: Mapping[str, OptionRule]) -> dict[str, tuple[Any, str]]:
    """Return the options of a received message that cannot be used, each with its value and a remedy."""
    found: dict[str, tuple[Any, str]] = {}
    for name in sorted(rules.keys() & options.keys()):
        check, value = rules[name].of_message, options[name]
        if check is None:
            found[name] = value, "only actors can have it"
        elif value is not None and (remedy := check(value, queue)):
            found[name] = value, remedy
    return found


log = get_logger(__name__)

# Written into a message between queues. A sender must not set one: it would falsify the message's history.
# The last one names the options that middleware of others has written, such as Sentry's: every worker keeps them.
WRITTEN_BY_US = frozenset({"attempts", "due_at", "generation", "deferred_by", "parked_ms", "foreign_options"})
# Options that only messages have. All but ``owner`` and ``delay`` are written by our middleware or Dramatiq.
INTERNAL = WRITTEN_BY_US | frozenset(
    {"enqueued_at", "redis_message_id", "eta", "owner", "delay"}
    | {"pipe_target", "group_completion_uuid", "group_completion_callbacks", "traceback", "retries", "asyncio_loop"}
    | {"requeue_timestamp", "traceparent", "tracestate", "previous_span"}
)


class KnownOptions(set[str]):
    """A broker's set of actor options, which leaves none for Dramatiq to refuse: it does not say which actor it is."""

    def __rsub__(self, given: Set[Any]) -> set[Any]:
        return set()


class Options(Middleware):
    """Validation of options of actors and messages by the ``option_rules`` of each middleware.

    An actor is validated when it is declared, a message when it is sent, with the messages of its pipeline. A received
    one with options that this release does not understand goes to the quarantine. On brokers without one, unusable
    options are logged and removed, so that no retry is lost. Raises ``UnknownOption`` and ``InvalidOption``.

    Options of a message: ``priority`` instead of its actor's; ``delay``, see ``dramatiq.pipeline``; ``eta``, its due
    time. Option of an actor: ``public=True`` lets tokens send it through the HTTP API.
    """

    option_rules: ClassVar = (
        OptionRule("priority", _any_value, lambda value, queue: _of_priority(value)),
        rule_of_message("delay", usable_delay),
        rule_of_actor("public", flag),
    )
    actor_options = {"priority", "public"}

    def __init__(self) -> None:
        self._rules: dict[str, OptionRule] = {}

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        self._rules = rules_of(broker)
        if unknown := actor.options.keys() - broker.actor_options:
            fact = fault_of(actor.actor_name, "actor option", unknown, broker.actor_options | FIXED)
            raise UnknownOption(f"{fact} ({place_of(actor.fn)})")
        if remedy := _of_priority(actor.priority):
            raise InvalidOption(actor.actor_name, "priority", actor.priority, remedy, place=place_of(actor.fn))
        for name, value in list(actor.options.items()):
            rule = self._rules.get(name)
            if rule is None or rule.of_actor is None:
                continue
            if value is None and rule.takes_none:
                del actor.options[name]
            elif remedy := rule.of_actor(value, actor):
                raise InvalidOption(actor.actor_name, name, value, remedy, place=place_of(actor.fn))

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Validate a message that is sent for the first time.

        Retries, pipeline steps and callbacks are enqueued from after-hooks, where refusing would lose the message.
        """
        if "enqueued_at" in message.options or follows_a_job():
            return
        if delay is not None and (remedy := usable_delay(delay)):
            raise InvalidOption(message.actor_name, "delay", delay, remedy)
        if not message.options:
            return
        self._check(broker, message.actor_name, message.queue_name, message.options)
        if (own := message.options.get("delay")) and (whole_delay(delay) or 0) < whole_delay(own):
            remedy = "pass it to enqueue(message, delay=...) or send_with_options(delay=...); only pipelines read it"
            raise InvalidOption(message.actor_name, "delay", own, remedy)
        for step in _steps_after(message):
            self._check(broker, step["actor_name"], step["queue_name"], step["options"])

    def before_receive_message(self, broker: Broker, message: Message[Any]) -> None:
        """Refuse a fetched message with options that this release does not understand: it goes to the quarantine.

        Where the actor is unknown as well, the message may be of a newer release: it is parked, not refused.
        """
        actor, rules, foreign = message.actor_name, self._known(broker), _foreign(message)
        for name in sorted(message.options) if actor in broker.actors else ():
            if not _is_known(name, broker, rules) and name not in foreign:
                raise UnknownOption(
                    f"actor {actor}: message option {name} is {message.options[name]!r:.100}, and this release "
                    "knows no such option; requeue the message once every worker has the release that sent it, "
                    "or discard it"
                )
        for name, (value, remedy) in unusable(message.queue_name, message.options, rules).items():
            raise InvalidOption(actor, name, value, remedy)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Remove unusable options of a received message, on brokers without a quarantine."""
        rules = self._known(broker)
        if rules.keys().isdisjoint(message.options):
            return
        for name, (value, remedy) in unusable(message.queue_name, message.options, rules).items():
            del message.options[name]
            fact = f"its value is {value!r:.100}; {remedy}"
            names = {"job_id": message.message_id, "actor": message.actor_name, "queue": message.queue_name}
            log.warning("message option ignored", option=name, fact=fact, **names)

    def _check(self, broker: Broker, actor_name: str, queue_name: str, options: Mapping[str, Any]) -> None:
        rules = self._known(broker)
        unknown = {name for name in options if not _is_known(name, broker, rules)}
        if unknown:
            ruled = {rule.name for rule in rules.values() if rule.of_message is not None} - {"pipe_target"}
            known = ruled | (broker.actor_options - rules.keys()) | {"owner", "eta"}
            raise UnknownOption(fault_of(actor_name, "message option", unknown, known))
        for name in WRITTEN_BY_US & options.keys() if "enqueued_at" not in options else ():
            raise InvalidOption(actor_name, name, options[name], "leave it out, Switchyard writes it")
        for name, usable in OF_SENDERS.items():
            if name in options and (remedy := usable(options[name])):
                raise InvalidOption(actor_name, name, options[name], remedy)
        for name, value in options.items():
            rule = rules.get(name)
            if rule is None:
                continue
            if rule.of_message is None:
                raise UnknownOption(
                    f"actor {actor_name}: {name} is not an option of a message, only of an actor; "
                    f"write it in @dramatiq.actor({name}=...), or declare a second actor with it"
                )
            if (value is not None or not rule.takes_none) and (remedy := rule.of_message(value, queue_name)):
                raise InvalidOption(actor_name, name, value, remedy)

    def _known(self, broker: Broker) -> dict[str, OptionRule]:
        if not self._rules:
            self._rules = rules_of(broker)
        return self._rules


class ForeignOptions(Middleware):
    """List, in each message, of the options that middleware of others writes and does not declare: workers keep them.

    Listed after the project's own middleware, as :class:`Options` is before all: what no middleware declares is not the
    sender's.
    """

    def __init__(self) -> None:
        # The list of middleware, and the options that it declares: read again when the list has changed.
        self._read: tuple[list[Middleware], frozenset[str]] = [], frozenset()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """List the undeclared options, also of a message that moves between queues."""
        listed, declared = self._read
        if listed != broker.middleware:
            listed, declared = self._read = list(broker.middleware), INTERNAL.union(rules_of(broker))
        if message.options.keys() <= declared or message.actor_name not in broker.actors:
            return  # an unknown actor's message is parked, and may be of another release
        added = {name for name in message.options if name not in declared and name not in broker.actor_options}
        if added:
            message.options["foreign_options"] = sorted(added.union(_foreign(message)))


# Dramatiq's, whose work ours does: left out where a project lists it, so that nothing is done twice.
REPLACED: Final = frozenset(
    {"AgeLimit", "AsyncIO", "Callbacks", "CurrentMessage", "Pipelines", "Prometheus", "Retries"}
    | {"ShutdownNotifications", "TimeLimit"}
)


def is_replaced(kind: type) -> bool:
    """Return whether ours does the work of a class of middleware; a project's own subclass is not meant."""
    return kind.__module__.startswith("dramatiq.middleware.") and kind.__qualname__ in REPLACED


def without_replaced(listed: Iterable[Middleware]) -> list[Middleware]:
    """Return a project's middleware without Dramatiq's that is replaced."""
    return [entry for entry in listed if not is_replaced(type(entry))]


def rules_of(broker: Broker) -> dict[str, OptionRule]:
    """Return the rules of every middleware of a broker, by the option's name."""
    return {rule.name: rule for entry in broker.middleware for rule in getattr(entry, "option_rules", ())}


def refuse_unknown(broker: Broker) -> None:
    """Make a broker refuse unknown actor options from the first actor on."""
    broker.actor_options = KnownOptions(broker.actor_options)


def _steps_after(message: Message[Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages that a message carries: the steps of its pipeline, the callbacks of its group."""
    found = [message.options]
    while found:
        options = found.pop()
        target, callbacks = options.get("pipe_target"), options.get("group_completion_callbacks")
        steps = ([] if target is None else [target]) + (callbacks if isinstance(callbacks, list) else [])
        for step in steps:
            if not is_message(step):
                remedy = "join messages with | or dramatiq.pipeline"
                raise InvalidOption(message.actor_name, "pipe_target", step, remedy)
            yield step
            found.append(step["options"])


def _foreign(message: Message[Any]) -> list[str]:
    listed = message.options.get("foreign_options")
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _is_known(name: str, broker: Broker, rules: Mapping[str, OptionRule]) -> bool:
    return name in rules or name in INTERNAL or name in broker.actor_options


# Arguments of the decorator that a message cannot change.
FIXED = frozenset({"queue_name", "actor_name"})


def fault_of(actor: str, what: str, unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return the text of an error about unknown options of an actor or a message, with the names that are known."""
    known = sorted(known)
    found = []
    for name in sorted(unknown):
        if name in FIXED:
            remedy = f"it is the actor's own: write it in @dramatiq.actor({name}=...)"
        else:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else ""
        found.append(f"{name!r} ({remedy})" if remedy else repr(name))
    return f"actor {actor}: unknown {what} {', '.join(found)}; known are {', '.join(known)}"


class Periodic(Middleware):
    """Options ``periodic=cron("0 2 * * *")``, with periodiq's ``cron``, its ``time_zone``, and ``catch_up``.

    ``schedulable=True`` lets people make schedules of the actor in the room. System checks validate the others.
    """

    option_rules: ClassVar = (
        OptionRule("periodic", _any_value, words='write cron("0 2 * * *") of periodiq'),
        OptionRule("time_zone", _any_value, words='write "Europe/Berlin" or another name of the IANA database'),
        OptionRule("catch_up", _any_value, words='write "once", "skip" or "all"'),
        rule_of_actor("schedulable", flag),
    )
    actor_options = {"periodic", "time_zone", "catch_up", "schedulable"}


class OnCommit(Middleware):
    """Option ``on_commit`` of actors and messages, before the setting ``SENDS``: whether a send waits for the commit.

    ``True`` waits for it, ``False`` sends at once; a text is one of the aliases in ``databases``, whose commit counts.
    What waits goes by :mod:`switchyard.outbox.sends`: no middleware can put a send off.
    """

    actor_options = {"on_commit"}

    def __init__(self, *, databases: Iterable[str]) -> None:
        def check(value: Any) -> str:
            usable = type(value) is bool or (isinstance(value, str) and value in databases)
            return "" if usable else f"write True or False, or a database: {', '.join(databases)}"

        self.option_rules = (rule_of_both("on_commit", check),)
