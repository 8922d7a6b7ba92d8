from django.apps import AppConfig


class MeasuringConfig(AppConfig):
    """App that adds the log of attempts to every measured process."""

    name = "devtools.measuring"

    def ready(self) -> None:
        """Add the log of attempts as the innermost middleware.

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
