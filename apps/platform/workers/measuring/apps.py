import os

from django.apps import AppConfig

from apps.platform.workers.measuring.contenders import SAMPLES_QUEUE


class MeasuringConfig(AppConfig):
    """Has every process that is measured take the time of its tasks."""

    name = "apps.platform.workers.measuring"
    label = "measuring"

    def ready(self) -> None:
        """Add the stopwatch, next to the task; and the samples, when it is them that are measured."""
        import dramatiq

        from apps.platform.workers.measuring.stopwatch import Stopwatch

        dramatiq.get_broker().add_middleware(Stopwatch())
        if os.environ["SWITCHYARD_MEASURED_QUEUE"] == SAMPLES_QUEUE:
            from apps.platform.workers.measuring import samples  # noqa: F401  declares them
