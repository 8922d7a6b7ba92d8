"""The profile of Hypothesis for the tests below."""

from tests import same_examples as same_examples
