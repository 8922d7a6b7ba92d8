"""Reader of Lua scripts that follows the key of each ``redis.call`` back through locals and parameters to ``KEYS``.

The binding of a name that counts is the nearest one above its use; every value that is assigned to the name from there
on, or to an entry of it, counts as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

NAME = r"[A-Za-z_]\w*"
NAMES = rf"{NAME}(?:\s*,\s*{NAME})*"
TARGET = rf"{NAME}(?:\[(?:[^\[\]=]|\[[^\]]*\])*\])?"
CALL = re.compile(r"\bredis\.p?call\b\s*(\(?)")
FUNCTION = re.compile(rf"\blocal function ({NAME})\(([^)]*)\)")
FOR = re.compile(rf"\bfor\s+({NAMES})\s+in\s+")
LOCAL = re.compile(rf"\blocal\s+(?!function\b)({NAMES})(\s*=(?!=))?")
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
    """Bindings of a script's names.

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
