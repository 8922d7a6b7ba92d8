"""The way of a message as ``docs/explanation/a-messages-life.md`` lists it.

``python -m tests.unit.documentation.message_walk`` prints how many files each part of the way adds.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/explanation/a-messages-life.md").read_text(encoding="utf-8")
MAIN = ("Enqueue", "Fetch", "Run", "End", "Status")
FAILURE = ("Retry", "Dead letter", "Alert", "Replay")
ROW = re.compile(r"^\| `([\w/.-]+\.(?:py|lua))` \|([^|]*)\|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the page: a file, and what to read in it."""

    part: str
    path: Path
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.part}: {self.path.relative_to(ROOT)}"


def read_steps() -> list[Step]:
    """Return the rows of all parts, in order."""
    parts = re.split(r"^## (?:\d+\. )?(.+)$", PAGE, flags=re.MULTILINE)
    return [
        Step(heading, ROOT / path, tuple(re.findall(r"`([^`]+)`", names)))
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
        if heading in MAIN + FAILURE
        for path, names in ROW.findall(text)
    ]


STEPS = read_steps()


def files(parts: tuple[str, ...] = MAIN + FAILURE) -> set[Path]:
    return {step.path for step in STEPS if step.part in parts}


if __name__ == "__main__":
    seen: set[Path] = set()
    for part in MAIN + FAILURE:
        new = files((part,)) - seen
        seen |= new
        print(f"{part:12} {len(files((part,))):3} files, {len(new):3} of them new, {len(seen):3} so far")
