"""The targets name figures and peers that exist."""

from __future__ import annotations

from benchmarks.peers import PEERS
from benchmarks.targets import EVERY_KEEPING_PEER, EVERY_PEER, EVERY_PYTHON_PEER, TARGETS, Limit


def test_every_peer_of_a_target_is_one_or_a_group() -> None:
    groups = {EVERY_PEER, EVERY_PYTHON_PEER, EVERY_KEEPING_PEER}

    named = {target.peer if isinstance(target, Limit) else side for target in TARGETS for side in _peers(target)}

    assert named <= {*PEERS, *groups}


def test_every_ratio_has_one_bound() -> None:
    for target in TARGETS:
        if not isinstance(target, Limit):
            assert (target.at_least is None) != (target.at_most is None), target


def _peers(target: object) -> tuple[str, ...]:
    return (target.peer,) if isinstance(target, Limit) else (target.top[1], target.bottom[1])  # type: ignore[attr-defined]
