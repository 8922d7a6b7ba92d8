"""The check of the doctor's page works on a real yard."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.broker.keys.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import Entry
from switchyard.broker.redis.calls import RedisCalls
from tests.unit.documentation.pages import ROOT, code_blocks, read


@pytest.mark.django_db(transaction=True)
def test_the_check_of_the_page_names_what_is_next(
    valkey: Any, process_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = code_blocks(read("docs/how-to/ask-the-doctor.md"), "python")
    shown: dict[str, Any] = {}
    exec(compile(code, "ask-the-doctor.md", "exec"), shown)
    for name, value in process_environment.items():
        monkeypatch.setenv(name, value)
    QueueOperations(RedisCalls(valkey), Keys().queue("slow")).enqueue([Entry("waits", b"{}")])

    report = shown["ask"](str(ROOT / "manage.py"))

    assert (report["verdict"], report["exit_code"]) == ("errors", 2)
    to_do = shown["to_do"](report)
    said = "pools: slow starts nothing, because no pool serves it: no supervisor of it reports; 1 job waits"
    assert to_do[0].startswith(said)
    assert to_do[0].endswith("-> manage.py switchyard runpool slow")
    assert any("manage.py switchyard runscheduler" in line for line in to_do[1:])
