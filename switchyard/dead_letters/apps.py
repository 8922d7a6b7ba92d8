from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    """App of dead letters; registers their bulk acts."""

    name = "switchyard.dead_letters"
    label = "switchyard_dead_letters"
    verbose_name = "Dead letters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the bulk acts on dead letters."""
        from switchyard.bulk.kinds import register

        register("letter.requeue", "switchyard.dead_letters.bulk_moves:REQUEUE")
        register("letter.canary", "switchyard.dead_letters.bulk_moves:CANARY")
        register("letter.take_back", "switchyard.dead_letters.bulk_moves:TAKE_BACK")
        register("letter.discard", "switchyard.dead_letters.bulk_moves:DISCARD")
