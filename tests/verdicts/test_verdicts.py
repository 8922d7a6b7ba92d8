"""The overview names each situation in its sentence, in time, with the button that helps; healthy load is silent."""

import contextlib
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchyard.broker.stores.yard_facts import RUNS, SENT, SUCCEEDED, WAITS
from tests.chaos.postgres import PostgresUnderTest
from tests.verdicts.causes import a_little_late, had_a_past
from tests.verdicts.situations import GROUPS, LONG, POSTGRES, Situation
from tests.verdicts.watched_yard import Line, WatchedYard, Yards, now, slack, steadily, watched_yard
from tests.verdicts.yard.yard import YARD
from tests.waiting import wait_for

# In one sample a queue of 80 ms may be late on a machine that is busy with other tests; the overview says no more then.
SILENT = re.compile(r"Every queue is on time.*|\w+ is .* behind its promise at this moment.*")
# Between two readings of the overview, of which one late one is not yet called late.
EVERY_S = 2.0
# A test may start a yard, and a machine may be busy with other tests.
pytestmark = pytest.mark.timeout(1_200)


@pytest.fixture(scope="module")
def yards(tmp_path_factory):
    """The yard of all situations, or the one that replaced it."""
    yards = Yards(watched_yard, tmp_path_factory)
    yield yards
    yards.close()


@pytest.fixture
def yard(yards):
    """A calm yard, whatever the test before has left."""
    return yards.calm()


class Waits:
    """Lateness of this machine: the moments at which a queue's oldest message had waited past its promise."""

    def __init__(self, yard: WatchedYard) -> None:
        self._yard = yard
        self._late: list[tuple[float, str]] = []

    def look(self) -> None:
        """Note the queues that are late now."""
        for queue in YARD.queues:
            if (self._yard.stats(queue.name).live.oldest_age_ms or 0) > (queue.objective_ms or 0):
                self._late.append((now(), queue.name))

    def confirm(self, line: Line) -> bool:
        """Return whether a line says that a queue is late, and one was, while the line was made."""
        said = re.match(r"(\w+) is .* behind its promise, because", line["sentence"])
        began = line["at"] - line["took_s"] - EVERY_S
        return said is not None and any(
            began <= at <= line["at"] + EVERY_S and said[1] == name for at, name in self._late
        )


def load_for(yard: WatchedYard, seconds: float) -> float:
    """Send a mixed load with bursts, and return when it began."""
    began, ends = now(), time.monotonic() + seconds
    dice = random.Random(7)
    while time.monotonic() < ends:
        if yard.waiting("default") < 100:
            yard.send("send_mail", "default", dice.randrange(1, 20), count=dice.choice((1, 2, 60)))
        yard.send("ping_hook", "hooks", dice.randrange(1, 20), count=dice.choice((0, 1, 5)))
        yard.send("login_mail", "urgent", 1, count=dice.choice((0, 1, 2)))
        next_s = time.monotonic() + dice.uniform(0.2, 1.5)
        wait_for(lambda next_s=next_s: time.monotonic() >= next_s)
    return began


def judge_silence(yard: WatchedYard, seconds: float) -> None:
    """Load the yard and assert that nothing was said, but of queues that a busy machine really kept waiting."""
    waits = Waits(yard)
    with steadily(waits.look, 0.1):
        began = load_for(yard, seconds)
    loud = [line for line in yard.lines if line["at"] >= began and not SILENT.fullmatch(line["sentence"])]
    wrong = [line["sentence"] for line in loud if not waits.confirm(line)]
    print(f"{len(loud)} lines said that a queue was late, and it was")

    assert wrong == []


def test_a_minute_of_healthy_load_with_bursts_stays_silent(yard):
    judge_silence(yard, 45)
    assert all(line["on_page"] for line in yard.lines)


# Before the situations: what some of them leave, such as dead letters, is said still.
@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_ten_minutes_of_healthy_load_with_bursts_stay_silent(yard):
    judge_silence(yard, 600)


@pytest.fixture(scope="module")
def late_s():
    """Situation -> seconds after which it was named, of those that were named later than is promised."""
    return {}


@pytest.mark.parametrize(
    "group", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in GROUPS]
)
def test_a_situation_is_named_with_its_button(yard, late_s, group):
    wrong = []
    with contextlib.ExitStack() as stack:
        since = {}
        for situation in GROUPS[group]:
            stack.enter_context(situation.make(yard))
            since[situation.title] = now()
        for situation in GROUPS[group]:
            try:
                judge(yard, situation, since[situation.title], late_s)
            except AssertionError as error:  # the others of the group are judged all the same
                wrong.append(f"{situation.title}: {error}")

    assert not wrong, "\n".join(wrong)
    yard.settle()


def judge(yard: WatchedYard, situation: Situation, since: float, late_s: dict[str, float]) -> None:
    """Assert that a situation is named, with its button."""
    asked, allowed_s = now(), situation.within_s * slack() + 1
    line, found = yard.find(situation.sentence, since, first=situation.first)
    took_s = line["at"] - since
    if line["at"] - asked > allowed_s:
        late_s[situation.title] = took_s
    print(f"| {situation.title} | {found['sentence']} | {took_s:.1f} | {found['action'] or '–'} |")
    assert re.fullmatch(situation.button, found["action"]), found
    assert re.search(situation.then, found["then"]), found
    assert line["on_page"]
    assert line["label"] != "Healthy"


def test_a_broker_that_is_back_is_given_time_for_its_pools_to_report(yard):
    began = now()
    yard.server.kill()
    wait_for(lambda: now() - began > 16)
    yard.server.restart()
    yard.settle()

    said = yard.said(began)
    assert any("No job can be sent or seen" in sentence for sentence in said)
    assert not any("starts nothing" in sentence or "no pool serves" in sentence.lower() for sentence in said)


@pytest.mark.long
def test_a_queue_that_stays_a_little_late_is_said_for_as_long(yard):
    began = now()
    with a_little_late(yard):
        first, _ = yard.find(r"^urgent is .* behind its promise, because", began)
        wait_for(lambda: yard.lines[-1]["at"] > first["at"] + 25)
    said = [line["sentence"] for line in yard.lines if line["at"] >= first["at"]]
    late = [sentence for sentence in said if re.match(r"urgent is .* behind its promise", sentence)]

    assert len(late) >= 0.8 * len(said), said
    yard.settle()


def test_actors_are_judged_by_their_own_past(yard):
    quick = {RUNS + 4: 200, SUCCEEDED: 200, WAITS: 200, SENT: 200}  # runs of 40 to 80 ms
    had_a_past(yard, sync_stock=quick, import_orders=quick, remind=quick)
    began = now()

    yard.send("remind", "default", 1, count=6, delay_ms=41 * 86_400_000)
    yard.send("sync_stock", "default", 12_000, count=32)

    slower, _ = yard.find(r"^sync_stock (takes|has run for) .*, usually 60 ms in the hours ", began, first=False)
    assert slower["at"] - began < 30 * slack()
    told = next(each for each in yard.diagnoses() if each["actor"] == "sync_stock")
    assert (told["cause"], told["confidence"]) == ("slower", 0.8)
    assert told["next"] == "manage.py switchyard actors show sync_stock"
    later = r"^remind is sent for 22 days .* or later, usually at once in the hours before: 6 of 6 sends"
    yard.find(later, began, first=False)
    silent = r"^[Nn]othing sends import_orders: 0 in \d min.*, usually 200/min in the hours before, since "
    yard.find(silent, began, first=False)
    yard.settle()


@pytest.mark.long
def test_no_situation_was_named_later_than_is_promised(late_s):
    """Of the situations above, in a run on a machine that does nothing else."""
    assert late_s == {}


TABLE = "CREATE TABLE verdict_row (id INTEGER PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, job VARCHAR(60))"


@contextlib.contextmanager
def on_postgres(folder: Path) -> Iterator[WatchedYard]:
    """The yard of the situations on PostgreSQL."""
    with PostgresUnderTest() as postgres:
        postgres.execute(TABLE)
        with watched_yard(folder, postgres) as yard:
            yield yard


@pytest.fixture(scope="module")
def yards_on_postgres(tmp_path_factory):
    yards = Yards(on_postgres, tmp_path_factory)
    yield yards
    yards.close()


@pytest.mark.long
@pytest.mark.parametrize("situation", POSTGRES, ids=lambda situation: situation.title)
def test_a_database_is_named_with_the_button_that_helps(yards_on_postgres, situation):
    yard = yards_on_postgres.calm()
    began = now()
    with situation.make(yard):
        judge(yard, situation, began, {})

    yard.settle()
