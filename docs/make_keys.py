"""Write the tables of ``docs/reference/keys.md`` from the docstrings of ``switchyard/broker/keys``.

``python -m docs.make_keys``; a test compares. Each docstring starts with the type of its key; its first sentence is in
the table.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from switchyard.broker.keys import Keys

PAGE = Path(__file__).parent / "reference" / "keys.md"
QUEUE = "webhook"
TYPED = re.compile(r"(Hash|List|Set|Sorted set|Stream|String)(?:e?s)?: (.+)", re.DOTALL)
# Values that the key methods are called with, by parameter name; others are the name in capitals, which mark the
# variable parts of a key.
PLACEHOLDERS: dict[str, Any] = {
    "lane": "live", "queue": QUEUE, "bucket": 1, "job_id": "ID", "at": "TICK", "group_id": "GROUP", "batch_id": "BATCH",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """Keys of one docstring: their type, and the text after it."""

    names: tuple[str, ...]
    kind: str
    meaning: str


def rows(keys: object) -> Iterator[Row]:
    """Yield a row for each docstring of a class of key names."""
    body: Any = vars(ast.parse(inspect.getsource(type(keys))).body[0])["body"]
    below = {x.targets[0].id: y.value.value for x, y in pairwise(body) if hasattr(x, "targets") and hasattr(y, "value")}
    for name, member in vars(type(keys)).items():
        function: Any = member.fget if isinstance(member, property) else member
        text = below.get(name, inspect.getdoc(function) or "") if inspect.isfunction(function) else ""
        if (typed := TYPED.fullmatch(text)) is None:
            continue
        asked = list(inspect.signature(function).parameters)[1:]
        given = [PLACEHOLDERS.get(parameter, parameter.upper()) for parameter in asked]
        found = getattr(keys, name) if isinstance(member, property) else member(keys, *given)
        names = (found,) if isinstance(found, str) else tuple(found)
        yield Row(names, typed[1], " ".join(typed[2].split()).replace("``", "`"))


def family_rows() -> list[Row]:
    """Return the keys of a queue family."""
    return list(rows(Keys().queue(QUEUE)))


def shared_rows() -> list[Row]:
    """Return the keys that belong to no queue family."""
    known = {name for row in family_rows() for name in row.names}
    return [row for row in rows(Keys()) if not known.issuperset(row.names)]


def table(of: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = ["| key | type | content |", "| --- | --- | --- |"]
    for row in of:
        names = "<br>".join(f"`{name}`" for name in row.names)
        meaning = re.split(r"(?<=\.) (?=[A-Z`])", row.meaning)[0].replace("|", "\\|")
        lines.append(f"| {names} | {row.kind.lower()} | {meaning} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """Return the page with its tables generated."""
    for name, of in (("family", family_rows()), ("shared", shared_rows())):
        start, end = f"<!-- {name}: made by docs/make_keys.py -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = f"{before}{start}\n\n{table(of)}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
