"""For tests with Hypothesis: the same examples in every run, and none that fails because the machine is busy.

The ``conftest.py`` of a folder with such tests imports it; elsewhere nobody waits for Hypothesis to load.
"""

from hypothesis import settings

settings.register_profile("yard", deadline=None, derandomize=True, database=None)
settings.load_profile("yard")
