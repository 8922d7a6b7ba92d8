"""Leases: those that a parent keeps for its children, and those of a worker without a supervisor."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from math import inf
from types import SimpleNamespace

import dramatiq
import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue import leases as keeping
from switchyard.broker.queue.operations import AT_ONCE, Entry, QueueOperations, Reclaimed
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from tests.chaos.fault_proxy import FaultProxy
from tests.waiting import wait_for

LIVE: keeping.LaneKey = ("work", "live")
RETRY: keeping.LaneKey = ("work", "retry")


@pytest.fixture
def keeper(family: QueueOperations) -> keeping.LeaseKeeper:
    return keeping.LeaseKeeper({"work": family}, [LIVE, RETRY])


@pytest.fixture
def quick_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew leases after a moment, where a test waits for that."""
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.3)


@pytest.fixture
def proxy(valkey_url: str) -> Iterator[FaultProxy]:
    """A way to the server that can be cut."""
    with FaultProxy(int(valkey_url.rsplit(":", 1)[1].split("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def remote(proxy: FaultProxy, family: QueueOperations) -> Iterator[QueueOperations]:
    """The family by that way, in a hurry."""
    wire = RedisCalls(connect(proxy.url, profile="quick"))
    yield QueueOperations(wire, family.keys)
    wire.close()


def lease_of(family: QueueOperations, owner: str) -> float | None:
    """Return when an owner's lease lapses, ms since the epoch."""
    return family.calls.command("ZSCORE", family.keys.leases, owner)


def let_lapse(family: QueueOperations, *owners: str) -> None:
    """Let leases expire a moment ago, for a keeper that sweeps all the time."""
    family.lapsed()
    for owner in owners:
        family.calls.command("ZADD", family.keys.leases, "XX", 1, owner)


def fetched_ids(family: QueueOperations, owner: str, count: int = 10, request: int = 1) -> list[bytes]:
    return [grant.lease.id for grant in family.fetch(owner, count, request=request).grants]


def test_an_adopted_child_may_fetch_from_every_lane_after_a_tick(family, keeper):
    family.enqueue([Entry("a", b"A")])
    keeper.adopt("child.1")
    before = (keeper.leased_until_s("child.1") > 0, family.fetch("child.1/live", 1, request=1).state)

    lost = keeper.tick()

    assert before == (False, "gone")
    assert lost == []
    assert keeper.leased_until_s("child.1") > 0
    assert fetched_ids(family, "child.1/live") == [b"a"]
    assert family.fetch("child.1/retry", 1, request=1).state == "ok"


def test_leases_are_renewed_when_it_is_time_and_not_before(family, keeper, monkeypatch):
    now_s = time.monotonic()
    monkeypatch.setattr("switchyard.broker.queue.leases.time", SimpleNamespace(monotonic=lambda: now_s))
    keeper.adopt("child.1")
    keeper.tick()
    family.calls.command("ZADD", family.keys.leases, soon := 9_999_999_999_999, "child.1/live")
    now_s += keeping.RENEW_S - 0.1
    keeper.tick()
    early = float(lease_of(family, "child.1/live") or 0)

    now_s += 0.2
    keeper.tick()

    assert early == soon
    assert float(lease_of(family, "child.1/live") or 0) < soon


@pytest.mark.usefixtures("quick_renewals")
def test_a_child_that_lost_a_lease_is_named_once(family, keeper):
    keeper.adopt("child.1")
    keeper.adopt("child.2")
    keeper.tick()
    family.reclaim("child.1/retry")

    assert wait_for(keeper.tick) == ["child.1"]
    assert keeper.tick() == []
    assert lease_of(family, "child.2/retry") is not None


def test_what_a_dead_child_held_goes_back_to_the_head_at_once(family, keeper):
    family.enqueue([Entry(name, b"") for name in "abcd"])
    keeper.adopt("child.1")
    keeper.adopt("child.2")
    keeper.tick()
    assert fetched_ids(family, "child.1/live", 3) == [b"a", b"b", b"c"]

    keeper.reclaim("child.1")

    assert fetched_ids(family, "child.2/live") == [b"a", b"b", b"c", b"d"]
    assert [lease_of(family, f"child.1/{lane}") for lane in ("live", "retry")] == [None, None]
    assert keeper.tick() == []


def test_what_it_had_finished_is_forgotten_and_what_it_ran_is_kept_apart(family):
    told: list[tuple[str, Reclaimed]] = []
    keeper = keeping.LeaseKeeper(
        {"work": family}, [LIVE], reclaimed=lambda child, key, answer: told.append((child, answer))
    )
    family.enqueue([Entry(name, name.upper().encode()) for name in "abcd"])
    for child in ("child.1", "child.2", "suspects.1"):
        keeper.adopt(child)
    keeper.tick()
    grants = family.fetch("child.1/live", 4, request=1).grants

    done = grants[0].lease
    keeper.reclaim("child.1", {LIVE: keeping.LaneLeftovers([(done.id, done.token)], ["c"], heir="suspects.1")})

    assert fetched_ids(family, "child.2/live") == [b"b", b"d"]
    [(child, answer)] = told
    [suspect] = answer.suspects
    assert (child, answer.returned, suspect.id, suspect.crashes, suspect.body) == ("child.1", 2, "c", 1, b"C")
    assert family.held("suspects.1/live") == [suspect.lease]
    assert not family.calls.command("HEXISTS", family.keys.bodies, "a")


def test_a_repeated_reclaim_names_again_what_the_keeper_got(family):
    family.enqueue([Entry("a", b"A"), Entry("b", b"B")])
    for owner in ("child.1/live", "suspects.1/live"):
        family.join(owner)
    family.fetch("child.1/live", 2, request=1)

    first = family.reclaim("child.1/live", running=["a"], heir="suspects.1/live")
    again = family.reclaim("child.1/live", running=["a"], heir="suspects.1/live")

    assert first is not None and again is not None
    assert (first.returned, again.returned, again.suspects[0].crashes) == (1, 0, 1)
    assert again.suspects == first.suspects
    assert family.reclaim("child.1/live") is None


def test_a_child_that_finished_hundreds_unconfirmed_leaves_none_of_them_behind(family, keeper):
    family.enqueue([Entry(f"m{n}", b"") for n in range(450)])
    keeper.adopt("child.1")
    keeper.tick()
    grants = family.fetch("child.1/live", 450, request=1).grants

    finished = [(grant.lease.id, grant.lease.token) for grant in grants[:440]]
    keeper.reclaim("child.1", {LIVE: keeping.LaneLeftovers(finished, [f"m{n}" for n in range(440, 450)])})

    keeper.adopt("child.2")
    keeper.tick()
    assert fetched_ids(family, "child.2/live", 500) == [b"m%d" % n for n in range(440, 450)]


def test_leases_that_lapsed_elsewhere_are_swept(family, keeper):
    family.enqueue([Entry("a", b""), Entry("b", b"")])
    family.join("elsewhere.1/live")
    assert fetched_ids(family, "elsewhere.1/live", 1) == [b"a"]
    let_lapse(family, "elsewhere.1/live")

    keeper.adopt("child.1")
    keeper.tick()

    assert fetched_ids(family, "child.1/live") == [b"a", b"b"]


@pytest.mark.usefixtures("quick_renewals")
def test_an_own_lease_that_lapsed_unseen_is_renewed_not_swept(family, keeper):
    keeper.adopt("child.1")
    keeper.tick()
    let_lapse(family, "child.1/live")

    wait_for(lambda: keeper.tick() == [] and float(lease_of(family, "child.1/live") or 0) > 1)


@pytest.mark.parametrize("within_s", [inf, pytest.param(1.9, marks=pytest.mark.long)])
@pytest.mark.parametrize("fault", ["stall", "blackhole"])
def test_a_server_that_is_away_costs_a_second_at_most_and_nothing_is_forgotten(
    family, remote, proxy, fault, within_s, caplog
):
    keeper = keeping.LeaseKeeper({"work": remote}, [LIVE, RETRY])
    family.enqueue([Entry("a", b"")])
    keeper.adopt("child.1")
    keeper.tick()
    assert fetched_ids(family, "child.1/live") == [b"a"]

    getattr(proxy, fault)()
    keeper.adopt("child.2")
    took_s = []
    for act in (keeper.tick, lambda: keeper.reclaim("child.1"), keeper.tick):
        began_s = time.monotonic()
        act()
        took_s.append(time.monotonic() - began_s)
    proxy.pass_()

    assert max(took_s) < within_s, "one try of 1 s each; a second one would take 2 s"
    assert keeper.seconds_to_next() > 0
    wait_for(lambda: keeper.tick() == [] and keeper.leased_until_s("child.2") > 0)
    assert fetched_ids(family, "child.2/live") == [b"a"]
    assert caplog.text.count("the broker does not answer") == 1


def test_suspects_are_told_although_the_answer_was_lost(family, remote, proxy):
    told: list[Reclaimed] = []
    keeper = keeping.LeaseKeeper({"work": remote}, [LIVE], reclaimed=lambda child, key, answer: told.append(answer))
    family.enqueue([Entry("a", b"A")])
    keeper.adopt("child.1")
    keeper.adopt("suspects.1")
    keeper.tick()
    assert fetched_ids(family, "child.1/live") == [b"a"]

    proxy.drop_reply()
    keeper.reclaim("child.1", {LIVE: keeping.LaneLeftovers(running=["a"], heir="suspects.1")})
    wait_for(lambda: keeper.tick() == [] and told)

    assert [(suspect.id, suspect.crashes) for suspect in told[0].suspects] == [("a", 1)]


def test_the_next_tick_is_due_at_once_after_an_adoption_and_later_when_all_is_done(keeper):
    keeper.tick()
    idle_s = keeper.seconds_to_next()
    keeper.adopt("child.1")

    adopted_s = keeper.seconds_to_next()
    keeper.tick()

    assert 0.0 < idle_s <= 2.0
    assert adopted_s == 0.0
    assert 0.0 < keeper.seconds_to_next() <= 2.0


def test_a_server_that_was_never_there_is_no_error():
    family = QueueOperations(
        RedisCalls(connect("redis://127.0.0.1:1/0", profile="quick")), Keys("nowhere").queue("work")
    )
    keeper = keeping.LeaseKeeper({"work": family}, [LIVE])
    keeper.adopt("child.1")

    assert keeper.tick() == []
    assert keeper.leased_until_s("child.1") == 0
    assert keeper.seconds_to_next() > 0


@pytest.mark.usefixtures("quick_renewals")
def test_a_keeper_says_until_when_a_childs_leases_last_for_sure(keeper, family):
    keeper.adopt("child")
    before_s = keeper.leased_until_s("child")
    asked_s = time.monotonic()
    keeper.tick()
    joined_s = keeper.leased_until_s("child")

    let_lapse(family, keeping.owner_of("child", LIVE))
    family.reclaim(keeping.owner_of("child", LIVE), only_lapsed=True)
    wait_for(lambda: "child" in keeper.tick())

    assert (before_s, keeper.leased_until_s("stranger")) == (0.0, 0.0)
    assert asked_s + 15 <= joined_s <= time.monotonic() + 15
    assert keeper.leased_until_s("child") == 0.0


@pytest.mark.usefixtures("quick_renewals")
def test_a_renewal_prolongs_what_is_sure_and_an_outage_does_not(remote, proxy):
    keeper = keeping.LeaseKeeper({"work": remote}, [LIVE])
    keeper.adopt("child")
    keeper.tick()
    joined_s = keeper.leased_until_s("child")

    wait_for(lambda: not keeper.tick() and keeper.leased_until_s("child") > joined_s)
    renewed_s = keeper.leased_until_s("child")
    proxy.blackhole()
    wait_for(lambda: not keeper.tick() and keeper.away)

    assert renewed_s > joined_s
    assert keeper.leased_until_s("child") == renewed_s
    proxy.pass_()


def test_a_keeper_in_a_hurry_knows_within_a_second_and_a_half_that_a_server_is_silent(remote, proxy, monkeypatch):
    for name in ("RENEW_S", "SWEEP_S"):  # when one that is in no hurry asks again
        monkeypatch.setattr(f"switchyard.broker.queue.leases.{name}", 60.0)
    keeper = keeping.LeaseKeeper({"work": remote}, [LIVE])
    keeper.tick()
    proxy.blackhole()

    keeper.poll_now()
    wait_for(lambda: not keeper.tick() and keeper.silent)
    proxy.pass_()
    wait_for(lambda: not keeper.tick() and not keeper.silent)


@pytest.fixture
def sound(family: QueueOperations) -> QueueOperations:
    """A second queue family, served beside one that the server refuses to work on."""
    return QueueOperations(family.calls, Keys(f"test-{uuid.uuid4().hex[:8]}").queue("sound"))


def test_a_queue_that_refuses_renewals_does_not_stop_those_of_the_others(family, sound, monkeypatch, caplog):
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.05)
    keeper = keeping.LeaseKeeper({"work": family, "sound": sound}, [LIVE, ("sound", "live")])
    keeper.adopt("child.1")
    keeper.tick()
    family.calls.command("DEL", family.keys.leases)
    family.calls.command("SET", family.keys.leases, "of a wrong type")
    before_s = keeper.leased_until_s("child.1")
    renewed = lease_of(sound, "child.1/live")

    wait_for(lambda: keeper.tick() == [] and lease_of(sound, "child.1/live") != renewed)

    assert not keeper.away
    assert keeper.leased_until_s("child.1") > before_s
    assert caplog.text.count("queue work: the broker refuses the lease renewal") == 1
    assert keeper.seconds_to_next() <= 1


def test_a_refused_reclaim_does_not_hold_up_other_queues_and_is_made_when_the_server_accepts_it(
    family, sound, monkeypatch
):
    monkeypatch.setattr("switchyard.broker.queue.leases.REFUSED_S", 0.05)
    keeper = keeping.LeaseKeeper({"work": family, "sound": sound}, [LIVE, ("sound", "live")])
    for queue in (family, sound):
        queue.enqueue([Entry("a", b"A")])
    keeper.adopt("child.1")
    keeper.tick()
    for queue in (family, sound):
        queue.fetch("child.1/live", 1, request=1)
    family.calls.command("SET", family.keys.waiting("live")[1], "of a wrong type")

    keeper.reclaim("child.1")

    assert not keeper.away
    assert not keeper.settled
    assert administration.depth(sound, "live", 2) == 1
    family.calls.command("DEL", family.keys.waiting("live")[1])
    wait_for(lambda: keeper.tick() == [] and keeper.settled)
    assert administration.depth(family, "live", 2) == 1


def test_a_reclaim_takes_no_more_arguments_than_the_server_allows():
    assert 2 * keeping.FINISHED_AT_ONCE + keeping.RUNNING_AT_ONCE <= AT_ONCE


def test_messages_that_wait_for_a_thread_are_not_started_once_their_lease_is_lost(
    broker, run_worker, monkeypatch, caplog
):
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.05)
    started: Counter[int] = Counter()
    go_on = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        started[number] += 1
        go_on.wait(60)

    for number in range(3):
        job.send(number)
    family = broker.families["work"]

    with run_worker("work", broker=broker, threads=1):
        wait_for(lambda: started[0] and sum(len(family.held(owner)) for owner in family.owners()) >= 2)
        [lost] = [owner for owner in family.owners() if family.held(owner)]
        family.reclaim(lost)
        wait_for(lambda: f"{lost} lost its lease" in caplog.text)
        go_on.set()
        wait_for(lambda: min(started[number] for number in range(3)) > 0)
        wait_for(lambda: not family.calls.command("HLEN", family.keys.bodies))

    assert started == {0: 2, 1: 1, 2: 1}
    assert caplog.text.count(f"{lost} lost its lease: others have its messages now") == 1


def test_an_owner_that_lost_its_lease_before_the_first_renewal_does_not_get_it_back(keeper, family):
    family.join("worker.1/live")
    family.reclaim("worker.1/live")
    keeper.adopt("worker.1", [LIVE], joined_s=time.monotonic())

    assert keeper.tick() == ["worker.1"]
    assert "worker.1/live" not in family.owners()


def test_a_server_that_is_away_costs_one_tick_however_many_lanes_there_are(remote, proxy, monkeypatch):
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.05)
    keys = Keys(f"test-{uuid.uuid4().hex[:8]}")
    leases = keeping.SelfManagedLeases(remote.calls.client, lost=lambda owner: None)
    for number in range(8):
        leases.owner(QueueOperations(remote.calls, keys.queue(f"queue{number}")), "live")
    proxy.blackhole()

    longest_s, until_s = 0.0, time.monotonic() + 2.5
    while (began_s := time.monotonic()) < until_s:
        leases.drop("of somebody else")
        longest_s = max(longest_s, time.monotonic() - began_s)

    proxy.pass_()
    leases.stop()
    assert longest_s < 4, "one lane after the other it takes 8 s"


def test_every_lane_has_an_owner_of_its_own_until_the_worker_stops(valkey):
    family = QueueOperations(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work"))
    leases = keeping.SelfManagedLeases(valkey, lost=lambda owner: None)

    owners = [leases.owner(family, "live"), leases.owner(family, "retry")]

    assert [leases.owner(family, "live"), leases.owner(family, "retry")] == owners
    assert sorted(family.owners()) == sorted(owners)
    leases.drop(owners[0])
    assert leases.owner(family, "live") != owners[0]
    leases.stop()
    assert family.owners() == []
