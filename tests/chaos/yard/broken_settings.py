"""The yard's settings with a bad import, in executed children only: their supervisor has loaded what still worked."""

import sys

from tests.chaos.yard.settings import *  # noqa: F403

if "-m" in sys.orig_argv and "switchyard.workers.gevent_main" in sys.orig_argv:
    import a_module_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401
