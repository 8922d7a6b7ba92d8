"""Headers of every operation of ``switchyard/broker/lua/queue``, its calls, keys and their hash tags."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.crc import key_slot

from switchyard.broker.admin import purge
from switchyard.broker.admin.limits import key_page, limit_of, limit_states, override_limit
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration, limits
from switchyard.broker.queue.limits import Circuit, Override, note_circuit
from switchyard.broker.queue.operations import Entry, Lease, MovingMessage, QueueOperations
from switchyard.broker.queue.unroutable import UnroutableLane
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.scripts import INCLUDE, LUA, Script, script, source
from switchyard.broker.shapes import ActorPause, DeadLetter
from switchyard.broker.stores import dead_lists
from switchyard.broker.topology import Dependency, FairShare, Queue, Yard

FILES = sorted((LUA / "queue").glob("*.lua"))
NAMES = {file.stem for file in FILES}
DECLARED = re.compile(r"^-- (KEYS|ARGV)\[(\d+)(?:\.\.(\d+)|(\.\.\.))?\] \S", re.MULTILINE)
USED = re.compile(r"\b(KEYS|ARGV)\[(\d+)\]")
COMPUTED = re.compile(r"#(KEYS|ARGV)\b|\b(KEYS|ARGV)\[[^\]]*[a-z]|unpack\((KEYS|ARGV)\)")

# An operation that takes memory for good is refused by a full server; everything else frees some.
REFUSED_WHEN_FULL = {"enqueue"}


@dataclass(frozen=True)
class Words:
    """Declaration of ``KEYS`` or ``ARGV`` in a script's header.

    Args:
        numbers: Indexes, each with whether it is one of several that are declared in one line.
        is_open: Any number may follow the last one.
    """

    numbers: dict[int, bool]
    is_open: bool

    def fit(self, count: int) -> bool:
        return count == len(self.numbers) or (self.is_open and count >= len(self.numbers) - 1)


def header(file: Path) -> str:
    lines = file.read_text().splitlines()[1:]
    end = next(n for n, line in enumerate(lines) if not line.startswith("--") or INCLUDE.match(line))
    return "\n".join(lines[:end])


def code(file: Path) -> str:
    return re.sub(r"--.*", "", file.read_text())


def declared(file: Path, kind: str) -> Words:
    """Return what the header declares of ``KEYS`` or ``ARGV``."""
    numbers: dict[int, bool] = {}
    is_open = False
    for match in DECLARED.finditer(header(file)):
        if match[1] == kind:
            first, last = int(match[2]), int(match[3] or match[2])
            assert not is_open, f"{file.name}: {match[0]} comes after one without an end"
            is_open = bool(match[4])
            numbers |= dict.fromkeys(range(first, last + 1), last > first or is_open)
    assert list(numbers) == list(range(1, len(numbers) + 1)), f"{file.name}: {kind} has gaps in its numbers"
    return Words(numbers, is_open)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_header_tells_name_purpose_answer_and_cost_and_what_a_full_server_does(file):
    text = file.read_text()

    assert text.splitlines()[0] == ("#!lua" if file.stem in REFUSED_WHEN_FULL else "#!lua flags=allow-oom")
    assert re.match(rf"-- {file.stem}: [a-z].+", header(file))
    assert re.search(r"\bReturns\b", header(file))
    assert re.search(r"\bO\(", header(file))
    assert set(INCLUDE.findall(text)) <= {include.stem for include in (LUA / "include").glob("*.lua")}


@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_word_used_is_declared_and_every_word_declared_is_used(file, kind):
    words = declared(file, kind)
    used = {int(match[2]) for match in USED.finditer(code(file)) if match[1] == kind}
    is_computed = any(kind in match.groups() for match in COMPUTED.finditer(code(file)))

    assert used <= words.numbers.keys()
    unused = {number for number, is_one_of_several in words.numbers.items() if number not in used}
    assert all(words.numbers[number] and is_computed for number in unused), f"declared, never used: {unused}"


ANSWERS: dict[str, Any] = {
    "circuit_note": b"opened", "declare_fair": 0, "declare_limits": b"", "enqueue": [], "fetch": [b"ok", [], -1, 0],
    "ack": [], "release": [], "renew": [], "lapsed": [], "take": [], "forget": [], "adopt": [b"ok"],
    "reclaim": [-1, 0], "requeue": [0, 1], "discard": [0, 1], "take_back": [1], "cancel": [b"unknown"],
    "put_back": [0, 0], "resume_actor": [0, 0], "limit_counts": [], "key_counts": [0, 0], "override_limit": b"",
}  # fmt: skip


class Recorder:
    """Stands in for a wire: notes what is called, and answers that nothing happened."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], list[Word]]] = []

    def call(self, operation: Script, keys: Sequence[str], args: Sequence[Word], **_: Any) -> Any:
        self.calls.append((operation.name, list(keys), list(args)))
        return ANSWERS.get(operation.name, 1)

    def stream(self, operation: Script, calls: Iterator[tuple[list[str], list[Word]]], **_: Any) -> Iterator[Any]:
        for keys, args in calls:
            yield self.call(operation, keys, args)

    def command(self, *words: Word, **_: Any) -> Any:
        return [b"other/live"]

    def look(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        return [b"" if command[0] == "GET" else [] for command in commands]


@pytest.fixture
def calls() -> list[tuple[str, list[str], list[Word]]]:
    wire = Recorder()
    family = QueueOperations(wire, Keys("test").queue("mail"))  # type: ignore[arg-type]
    owner, lease = "child/live", Lease("child/live", b"id", b"1")
    family.enqueue([Entry("a", b"{}"), Entry("b", b"{}")])
    family.enqueue([Entry("a", b"{}", "key")], lane="retry", delay_ms=5, level=1, limit=7)
    family.join(owner)
    family.report({owner: "1 0 host"})
    family.fetch(owner, 3, request=1, acked=[lease])
    family.ack(owner, [lease, lease])
    family.move(lease, move="divert", lane="retry", body=b"{}", delay_ms=5)
    family.isolate(lease)
    family.dead_letter(lease, b"{}")
    family.release(owner, [lease])
    administration.take(family, owner, 2, level=1)
    UnroutableLane(family, "live").adopt(owner, "[]", [b"a"])
    taken = MovingMessage(lease, b"{}", b"", b"", False)
    administration.place(family, [taken, taken], lane="live", level=1)
    administration.forget(family, owner, [taken])
    family.schedule(lease, body=b"{}", due_at_ms=5)
    family.quarantine(lease, b"{}")
    administration.unquarantine(family, "a", lane="live", as_read=b"{}", body=b"{}", level=2)
    family.renew([owner])
    family.lapsed()
    wire.call(script("backlog"), *family.backlog_call())
    family.reclaim(owner, finished=[lease], running=["b"], heir="other/live")
    administration.restore(family, "a", letter="{}")
    letter = dead_lists.StoredLetter("a", b"{}", None)
    dead_lists.requeue(family, [letter], {"a": (b"{}", 2)}, nonce="n")
    dead_lists.discard(family, [letter], nonce="n")
    dead = DeadLetter("a", "mail", "welcome", {}, "exhausted", "Timeout", "", "", 1, 0, 0, 0, "f")
    dead_lists.take_back(family, [dead], nonce="n")
    administration.cancel(family, {"a": b""})
    administration.due_now(family, "a", as_read=b"{}", body=b"{}")
    administration.amend(family, "a", as_read=b"{}", body=b"{}", due_at_ms=1)
    administration.pause(family)
    administration.resume(family)
    administration.pause_actor(family, ActorPause(0, 0, 0, "a"))
    administration.resume_actor(family, "a")
    note_circuit(family, Circuit(Dependency("payments"), 60_000, {"a": 0}), "x", "failed")
    limits.declare(family, [SimpleNamespace(actor_name="a", options={"concurrency": 1})])  # type: ignore[list-item]
    limits.declare_fair(family, FairShare("customer_id"), [])
    limit_states([family])
    key_page(family, limit_of("mail", "concurrency", "a", "", 1), count=1)
    override_limit(family, "c a", Override(1, 1))
    family.notify("retry")
    purge.set_aside(family, "p", by="an_operator")
    purge.undo(family, "p")
    assert next(purge.drop(family, "p"))
    administration.flush(family)
    return wire.calls


def test_every_operation_has_a_method_whose_calls_pass_what_the_header_declares_and_keys_of_one_hash_tag(calls):
    assert {name for name, _, _ in calls} == NAMES
    for name, keys, args in calls:
        file = LUA / "queue" / f"{name}.lua"
        assert declared(file, "KEYS").fit(len(keys)), f"{name} is passed {len(keys)} keys"
        assert declared(file, "ARGV").fit(len(args)), f"{name} is passed {len(args)} arguments"
        assert keys, name
        assert {re.findall(r"\{(.*?)\}", key)[0] for key in keys} == {"mail"}, name


@pytest.mark.parametrize("groups", [(), (("mail", "first"), ("sms", "first"))])
def test_all_keys_of_a_family_are_in_one_hash_slot(groups):
    family = Keys(slot_groups=groups).queue("mail")
    names = [*family.all_keys(), family.hold("o"), family.ended_bucket(3), family.kept_result("j")]
    names += [family.job_events("j"), *family.aside("p"), *family.aside_waiting("p", "live")]
    names += [family.aside_due("p", "retry"), family.aside_jobs("p"), family.parked("live")]

    assert len({slot_of(name) for name in names}) == 1


def test_queues_of_one_slot_group_share_a_slot_and_no_key():
    yard = Yard((queue("mail", "first"), queue("sms", "first"), queue("first"), queue("other")), ())
    keys = yard.keys
    families = [keys.queue(name) for name in ("mail", "sms", "first")]

    assert len({slot_of(family.bodies) for family in families}) == 1
    assert slot_of(keys.queue("other").bodies) == slot_of(Keys().queue("other").bodies)
    assert len({name for family in families for name in family.all_keys()}) == 3 * len(families[0].all_keys())


def slot_of(key: str) -> int:
    return int(key_slot(key.encode()))


def queue(name: str, slot_group: str = "") -> Queue:
    return Queue(name, objective_ms=None, soft_limit_ms=1_000, hard_limit_ms=2_000, slot_group=slot_group)


NAME = r"[A-Za-z_]\w*"
MANY = rf"{NAME}(?:\s*,\s*{NAME})*"
TARGET = rf"{NAME}(?:\[(?:[^\[\]=]|\[[^\]]*\])*\])?"
CALL = re.compile(r"\bredis\.p?call\b\s*(\(?)")
FUNCTION = re.compile(rf"\blocal function ({NAME})\(([^)]*)\)")
FOR = re.compile(rf"\bfor\s+({MANY})\s+in\s+")
LOCAL = re.compile(rf"\blocal\s+(?!function\b)({MANY})(\s*=(?!=))?")
ASSIGNED = re.compile(rf"(?<![\w.])({TARGET}(?:\s*,\s*{TARGET})*)\s*=(?!=)")
# A name beside a key: the key without its last part, so with its hash tag, and other words.
BESIDE = re.compile(r"string\.sub\((.+), 1, -\d+\)", re.DOTALL)
COMMA, AND, OR, JOIN = (re.compile(word) for word in (",", r"\band\b", r"\bor\b", r"\.\."))
LINE_END = re.compile(r"\n(?!\s*(?:and\b|or\b|\.\.))|;|\b(?:end|then|else|elseif|do|return)\b")
QUOTED = re.compile(r"\"(?:\\.|[^\"])*\"|'(?:\\.|[^'])*'")
KEYLESS = {"TIME"}
ALL_KEYS = {"DEL", "EXISTS", "RENAME", "UNLINK"}
# Another command is to be added with what its keys are.
FIRST_KEY = re.compile(
    "(H(DEL|EXISTS|GET|GETALL|INCRBY|KEYS|LEN|MGET|SCAN|SET|SETNX|VALS)|INCR|INCRBY|GET|SET|SMEMBERS"
    "|L(INSERT|LEN|POP|POS|PUSH|RANGE|REM|SET|TRIM)|RPUSH|PEXPIRE|PEXPIREAT|PERSIST|PTTL|X(ADD|DEL|RANGE)"
    "|Z(ADD|CARD|COUNT|INCRBY|LEXCOUNT|MSCORE|RANGE|RANGEBYLEX|RANGEBYSCORE|RANK|REM|REMRANGEBYSCORE|REVRANGEBYSCORE|SCORE))"
)


@dataclass
class Binding:
    """A place where a name is declared.

    Args:
        values: Expressions of which one is its value, each with its place: for a parameter, those of every call.
    """

    at: int
    values: list[tuple[str, int]] = field(default_factory=list)


def split(text: str, by: re.Pattern[str], at: int = 0, until: re.Pattern[str] | None = None) -> list[str]:
    """Return the parts of an expression that a separator outside of brackets and quotes makes.

    Args:
        until: Where the expression ends, besides at a bracket that was opened before it.
    """
    found, begin, depth = [], at, 0
    while at < len(text):
        if quoted := QUOTED.match(text, at):
            at = quoted.end()
            continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth < 0 or (depth == 0 and until and until.match(text, at)):
            break
        if depth == 0 and (separator := by.match(text, at)):
            found.append(text[begin:at].strip())
            begin = at = separator.end()
            continue
        at += 1
    return [*found, text[begin:at].strip()]


class LuaKeys:
    """Bindings of a script's names, by which the key of each ``redis.call`` is followed back to ``KEYS``.

    The binding of a name that counts is the nearest one above its use; every value that is assigned to the name from
    there on, or to an entry of it, counts as well.

    Args:
        text: The script, includes expanded.
    """

    def __init__(self, text: str) -> None:
        self._text = re.sub(r"--[^\n]*", "", text)
        self._bindings: dict[str, list[Binding]] = {}
        for match in FUNCTION.finditer(self._text):
            calls = self._calls(match[1])
            for n, name in enumerate(split(match[2], COMMA)):
                self._bind(name, match.start(), [(given[n], at) for given, at in calls if n < len(given)])
        for match in FOR.finditer(self._text):
            [expression, *_] = split(self._text, COMMA, match.end(), LINE_END)
            *counters, entry = split(match[1], COMMA)
            for name in counters:
                self._bind(name, match.start(), [("0", match.start())])
            self._bind(entry, match.start(), [(expression, match.start())])
        for match in LOCAL.finditer(self._text):
            for name in split(match[1], COMMA):
                self._bind(name, match.start(), [])  # its values are assigned
        self._assign()

    def stray(self) -> Iterator[str]:
        """Yield each call with a key from elsewhere, or of a command whose keys this module does not know."""
        for match in CALL.finditer(self._text):
            command, *words = split(self._text, COMMA, match.end())
            names = set(re.findall(r"[\"'](\w+)[\"']", command))
            keys = words if names <= ALL_KEYS else words[:1]
            known = names and (names <= ALL_KEYS or all(map(FIRST_KEY.fullmatch, names)))
            is_given = match[1] and known and all(self._is_key(key, match.start()) for key in keys)
            if names != KEYLESS and not is_given:
                yield f"{command}, {', '.join(keys)}"

    def _bind(self, name: str, at: int, values: list[tuple[str, int]]) -> None:
        self._bindings.setdefault(name, []).append(Binding(at, values))

    def _nearest(self, name: str, at: int) -> Binding | None:
        above = [binding for binding in self._bindings.get(name, ()) if binding.at <= at]
        return max(above, key=lambda binding: binding.at, default=None)

    def _assign(self) -> None:
        for match in ASSIGNED.finditer(self._text):
            targets = split(match[1], COMMA)
            values = split(self._text, COMMA, match.end(), LINE_END)
            for n, target in enumerate(targets):
                binding = self._nearest(target.partition("[")[0], match.end())
                if binding is not None:
                    binding.values.append((values[min(n, len(values) - 1)], match.start()))

    def _calls(self, function: str) -> list[tuple[list[str], int]]:
        """Return the arguments and the place of every call of a function."""
        direct = re.finditer(rf"(?<!function )\b{function}\(", self._text)
        protected = re.finditer(rf"(?<!\.)\bpcall\({function},", self._text)
        return [(split(self._text, COMMA, match.end()), match.start()) for match in (*direct, *protected)]

    def _is_key(self, value: str, at: int, seen: frozenset[tuple[str, int]] = frozenset()) -> bool:
        """Whether an expression is a key, a table of keys, or nothing."""
        choices = [split(choice, AND)[-1] for choice in split(value, OR)]
        if choices != [value]:
            return all(self._is_key(choice, at, seen) for choice in choices)
        if len(joined := split(value, JOIN)) > 1:
            made = BESIDE.fullmatch(joined[0])
            return made is not None and self._is_key(made[1], at, seen)
        if re.fullmatch(r"KEYS(\[.*\])?|nil|false|", value, re.DOTALL):
            return True
        if inner := re.fullmatch(r"(?:unpack|ipairs)?[({](.*)[)}]", value, re.DOTALL):
            return all(self._is_key(item, at, seen) for item in split(inner[1], COMMA))
        if made := re.fullmatch(rf"({NAME})\(.*\)", value, re.DOTALL):
            return self._returns_key(made[1], at, seen)
        named = re.fullmatch(rf"({NAME})(\[.*\])?", value, re.DOTALL)
        binding = self._nearest(named[1], at) if named else None
        if named is None or binding is None:
            return False
        step = (named[1], binding.at)
        return step in seen or all(self._is_key(given, place, seen | {step}) for given, place in binding.values)

    def _returns_key(self, name: str, at: int, seen: frozenset[tuple[str, int]]) -> bool:
        """Whether a function that is one expression returns a key."""
        above = [match for match in FUNCTION.finditer(self._text, 0, at) if match[1] == name]
        body = re.compile(r"\s*return ").match(self._text, above[-1].end()) if above else None
        return body is not None and all(
            self._is_key(result, body.start(), seen) for result in split(self._text, COMMA, body.end(), LINE_END)
        )


SCRIPTS = sorted(
    str(path.relative_to(LUA).with_suffix("")) for path in LUA.rglob("*.lua") if path.parent.name != "include"
)
# The keys that this replaces are a few, unless all are asked for: each costs a reading of the script.
TRIED = [pytest.param(name, marks=[pytest.mark.long] if at % 5 else []) for at, name in enumerate(SCRIPTS)]
# The length of a key, and a part of it in another name, are no keys.
GIVEN = re.compile(r"(?<!#)\bKEYS\[[^\[\]]*\](?!, #KEYS)")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_of_a_script_is_given_to_it(name):
    assert list(LuaKeys(source(name)).stray()) == []


@pytest.mark.parametrize("name", TRIED)
def test_an_argument_in_place_of_any_key_of_a_script_is_noticed(name):
    text = re.sub(r"--[^\n]*", "", source(name))

    for key in GIVEN.finditer(text):
        changed = f"{text[: key.start()]}ARGV[1]{text[key.end() :]}"
        assert list(LuaKeys(changed).stray()) != [], changed
