"""The profile of Hypothesis for the tests below."""

from __future__ import annotations

from tests import same_examples as same_examples
