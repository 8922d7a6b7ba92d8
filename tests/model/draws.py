"""Strategies from which the machine's rules draw."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.model.steps import IDS, Pick

ids = st.sampled_from(IDS)
lanes = st.sampled_from(["live", "live", "retry"])
consumed = st.sampled_from(["live", "live", "retry", "alone"])
levels = st.sampled_from([2, 2, 1, 3])
delays = st.sampled_from([0, 0, 1, 700, 5_000, 40_000])

picks = st.builds(Pick, held=st.booleans(), back=st.integers(0, 15))
few_picks = st.lists(picks, max_size=3)
# The latest is 0; those without a lease come last.
owners_back = st.integers(0, 5)
nonces = st.sampled_from(["n0", "n1", "n2"])
again = st.booleans()
