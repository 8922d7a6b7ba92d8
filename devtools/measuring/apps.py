import os

from django.apps import AppConfig

from devtools.measuring.work import SAMPLES_QUEUE


class MeasuringConfig(AppConfig):
    """App that adds the log of attempts to every measured process."""

    name = "devtools.measuring"

    def ready(self) -> None:
        """Add the log of attempts as the innermost middleware, and declare the samples when they are measured.

        Failures are not projected into the database: their broker is thrown away after the measurement.
        """
        import dramatiq

        from devtools.attempts import AttemptLog
        from switchyard.middleware.dead_letters import DeadLetters

        broker = dramatiq.get_broker()
        broker.add_middleware(AttemptLog())
        for entry in broker.middleware:
            if isinstance(entry, DeadLetters):
                entry.on_dead = ()
        if os.environ["SWITCHYARD_MEASURED_QUEUE"] == SAMPLES_QUEUE:
            from devtools.measuring import samples  # noqa: F401  declares the actors
