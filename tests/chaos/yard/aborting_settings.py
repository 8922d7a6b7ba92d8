"""The yard's settings with ``dramatiq-abort`` on cancellation."""

from tests.chaos.yard.settings import *  # noqa: F403
from tests.chaos.yard.settings import DRAMATIQ_BROKER as OTHER_BROKER

DRAMATIQ_BROKER = {**OTHER_BROKER, "MIDDLEWARE": ["switchyard.middleware.aborting.CancelAbortable"]}
