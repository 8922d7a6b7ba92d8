"""The yard's settings in which children kill themselves at the moment that ``CHAOS_MOMENT`` names."""

import os

from tests.chaos.yard.moments import GROUP_MOMENTS, MOMENTS, die_at
from tests.chaos.yard.settings import *  # noqa: F403

die_at(*(MOMENTS | GROUP_MOMENTS)[os.environ["CHAOS_MOMENT"]])
