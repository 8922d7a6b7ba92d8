import os

from django.apps import AppConfig

from devtools.measuring.contenders import SAMPLES_QUEUE


class MeasuringConfig(AppConfig):
    """Has every process that is measured take the time of its tasks."""

    name = "devtools.measuring"
    label = "measuring"

    def ready(self) -> None:
        """Add the stopwatch, next to the task; and the samples, when it is them that are measured.

        What fails here is gone with its broker: people do not find it among the dead letters.
        """
        import dramatiq

        from devtools.measuring.stopwatch import Stopwatch
        from middleware.dead_letters import DeadLetters

        broker = dramatiq.get_broker()
        broker.add_middleware(Stopwatch())
        for entry in broker.middleware:
            if isinstance(entry, DeadLetters):
                entry.on_dead = ()
        if os.environ["SWITCHYARD_MEASURED_QUEUE"] == SAMPLES_QUEUE:
            from devtools.measuring import samples  # noqa: F401  declares them
