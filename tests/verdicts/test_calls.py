"""People are called when all pools, the scheduler or the broker are killed, for real: once, and once when over."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.server import ServerUnderTest
from tests.factories.smtp import Recorder, smtp_server
from tests.integration.alerts.conftest import Receiver
from tests.verdicts.watched_yard import START_S, WatchedYard
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]

# Within a minute of the fault and of its end; a busy machine is slower.
CALLED_S, LATEST_S = 60.0, 180.0
KEY = "canary-canary-canary"


class CalledYard:
    """A yard that runs, and who is called: a chat, a pager and a mailbox."""

    def __init__(self, yard: WatchedYard, chat: Receiver, pager: Receiver, mails: Recorder) -> None:
        self.yard, self.chat, self.pager, self.mails = yard, chat, pager, mails
        self.server = yard.server

    def said(self, words: str) -> tuple[list[str], list[str], list[str]]:
        """Return what each was told about a cause, in order."""
        chat = [str(body["text"]).partition("\n")[0] for body in self.chat.bodies if words in str(body["text"])]
        mine = [body for body in self.pager.bodies if words in str(body.get("payload"))]
        keys = {body["dedup_key"] for body in mine}
        pager = [body["event_action"] for body in self.pager.bodies if body["dedup_key"] in keys]
        mails = [str(mail["Subject"]) for mail in self.mails.mails if words in str(mail["Subject"])]
        return chat, pager, mails

    def expect(self, words: str, count: int) -> None:
        """Wait until each was told so often; print after which time."""
        began_s = time.monotonic()
        wait_for(lambda: all(len(each) >= count for each in self.said(words)), LATEST_S, what=f"{words}: {count}")
        print(f"{words!r}, message {count}: after {time.monotonic() - began_s:.0f} s of {CALLED_S:.0f} s")

    def kill(self, name: str) -> None:
        """Kill a process and all that it started."""
        process = self.yard.processes[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """A yard with pools, a scheduler and a history writer."""
    folder: Path = tmp_path_factory.mktemp("called")
    chat, pager = Receiver(), Receiver()
    chat.answers, pager.answers = [200] * 1_000, [202] * 1_000
    with chat.receiving(), pager.receiving(), ServerUnderTest(folder / "server") as server, smtp_server() as mails:
        yard = WatchedYard(folder, server)
        yard.environment["SWITCHYARD_ALERT_URLS"] = (
            f"chat=mmost://127.0.0.1:{chat.port}/{'a' * 24} pager=pagerduty://{KEY}@127.0.0.1:{pager.port} "
            "mailto:ops@example.com"
        )
        yard.environment["SWITCHYARD_SMTP_URL"] = f"smtp://127.0.0.1:{mails.port}"
        try:
            yard.launch_all()
            wait_for(lambda: "leading" in yard.log("runscheduler"), START_S, what="a scheduler leads")
            yield CalledYard(yard, chat, pager, mails)
            print("mails:", *(str(mail["Subject"]) for mail in mails.mails), sep="\n  ")
        finally:
            yard.stop()


@pytest.mark.parametrize(
    ("words", "kill", "start"),
    [
        ("No pool serves", lambda called: called.kill("runpools"),
         lambda called: called.yard.launch("runpools", "runpools", "--no-history")),
        ("No scheduler leads", lambda called: called.kill("runscheduler"),
         lambda called: called.yard.launch("runscheduler", "runscheduler")),
        ("The broker does not answer", lambda called: called.server.kill(), lambda called: called.server.restart()),
    ],
    ids=["all pools", "the scheduler", "the broker"],
)  # fmt: skip
def test_what_is_killed_and_started_again_is_told_once_and_once_when_over(called, words, kill, start):
    kill(called)
    called.expect(words, 1)
    start(called)
    called.expect(words, 2)

    chat, pager, mails = called.said(words)
    assert [line.split()[0].strip("*#") for line in chat] == ["[critical]", "[resolved]"], chat
    assert pager == ["trigger", "resolve"]
    assert [line.split()[0] for line in mails] == ["[critical]", "[resolved]"], mails
