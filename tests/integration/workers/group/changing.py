"""App whose code changes while its pools run."""

from __future__ import annotations

from dramatiq import Message

from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for

SAID = "bench:said"


class Changing:
    """An app with one actor, which says a word."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.file = bench.folder / "changing" / "actors.py"
        self.file.parent.mkdir()
        (self.file.parent / "__init__.py").touch()
        bench.environment["PYTHONPATH"] = str(bench.folder)

    def write(self, word: str) -> None:
        """Have the actor say a word, from now on."""
        self.replace(
            "import dramatiq\n\n@dramatiq.actor(queue_name='urgent')\ndef say():\n"
            f"    dramatiq.get_broker().client.rpush({SAID!r}, {word!r})\n"
        )

    def replace(self, code: str) -> None:
        """Write the file, as an editor does."""
        new = self.file.with_suffix(".new")
        new.write_text(code)
        new.replace(self.file)

    def says(self) -> str:
        before = self.bench.client.llen(SAID)
        message: Message[None] = Message(queue_name="urgent", actor_name="say", args=(), kwargs={}, options={})
        self.bench.broker.enqueue(message)
        wait_for(lambda: self.bench.client.llen(SAID) > before)
        return str(self.bench.client.lindex(SAID, -1), "utf-8")  # type: ignore[arg-type]
