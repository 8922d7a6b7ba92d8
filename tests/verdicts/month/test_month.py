"""A healthy yard is not spoken of, night or day; a release that makes its jobs slower is."""

import pytest

from tests.verdicts.month.simulated_month import sentences, taken_mb

MOST_A_DAY, MOST_MB = 0.1, 64.0


def test_a_healthy_day_is_silent_and_a_release_that_slows_jobs_is_named():
    assert sentences(1, 5, every_s=3_600) == []

    said = sentences(1, 5, every_s=3_600, slowed=4.0)

    assert {name for _, name, _ in said} == {"actors.slower"}


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_healthy_month_is_spoken_of_less_than_once_in_ten_days():
    """``python -m tests.verdicts.month --seed 1`` prints each sentence."""
    assert len(sentences(1, 30)) < 30 * MOST_A_DAY


@pytest.mark.long
def test_the_facts_of_a_large_yard_fit_into_what_is_promised(tmp_path):
    assert sum(taken_mb(tmp_path)) <= MOST_MB
