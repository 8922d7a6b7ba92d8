"""Examples of Hypothesis that are the same in every run."""

from tests import same_examples as same_examples
