from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    """App of dead letters; registers their bulk acts."""

    name = "apps.platform.dead_letters"
    label = "switchyard_dead_letters"
    verbose_name = "Dead letters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the bulk acts on dead letters."""
        from apps.platform.bulk.kinds import register
        from apps.platform.dead_letters.bulk_moves import BulkMove
        from apps.platform.dead_letters.models import DeadLetter

        register("letter.requeue", BulkMove("requeue", DeadLetter.State.REPLAYED))
        register("letter.discard", BulkMove("discard", DeadLetter.State.DISCARDED))
