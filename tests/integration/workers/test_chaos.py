"""``runpools --chaos``: harm is done, nothing is lost, and the ledger says so."""

from __future__ import annotations

import re
import signal

import pytest

from tests.integration.workers.bench.actors import ENDED
from tests.integration.workers.conftest import Bench
from tests.unit.documentation.pages import read
from tests.waiting import wait_for

ACTS = ("chaos: killed ", "chaos: cut ", "there once more|which runs on")
PAGE = "docs/how-to/break-your-yard-on-purpose.md"


@pytest.mark.long
def test_a_yard_under_chaos_is_harmed_in_every_way_and_its_ledger_adds_up(bench: Bench) -> None:
    there_before = bench.send("slow")
    [command] = re.findall(r"^\.venv/bin/python manage\.py switchyard (runpools .*)$", read(PAGE), re.MULTILINE)
    parent = bench.start(*command.split())
    bench.wait_for_log("pools: all ready")
    bench.wait_for_log("chaos: 2 faults a second, --chaos-seed 7")

    tokens: list[str] = []

    def harmed_in_every_way() -> bool:
        tokens.extend(bench.send(queue, ms=100) for queue in ("urgent", "slow", "webhook"))
        return all(re.search(act, bench.log()) for act in ACTS)

    wait_for(harmed_in_every_way)
    wait_for(lambda: {*tokens, there_before} <= {note["token"] for note in bench.notes(ENDED)})
    parent.send_signal(signal.SIGTERM)
    parent.wait(60)
    found = ledger(bench.log())
    assert {found["attempted"], found["accepted"], found["completed"]} == {len(tokens)}
    assert (found["waiting"], found["dead"], found["lost"], found["unexpected"]) == (0, 0, 0, 0)
    ended = [note["token"] for note in bench.notes(ENDED)]
    again = len(ended) - len(set(ended))
    # A child may be killed after a job's last step, before its end is noted.
    assert again - found["kill"] <= found["duplicated"] <= again
    for act in ("killed ", "cut "):
        assert bench.log().count(f"chaos: {act}") == found[act.split("ed")[0].strip()]
    assert not list((bench.folder / "chaos").iterdir())


def test_production_has_no_chaos(bench: Bench) -> None:
    bench.environment |= {
        "DJANGO_DEBUG": "0",
        "DJANGO_SECRET_KEY": "x" * 40,
        "SWITCHYARD_PAYMENT_SECRET": "x" * 40,
        "DJANGO_ALLOWED_HOSTS": "yard.example.com",
    }
    parent = bench.start("runpools", "--chaos", "6/m")

    assert parent.wait(60) == 2
    assert "unrecognized arguments: --chaos" in bench.log()


def ledger(log: str) -> dict[str, int]:
    """Return the counts that were printed at the end."""
    printed = log[log.rindex("chaos: kill ") :]
    return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)(?=  |\n)", printed)}
