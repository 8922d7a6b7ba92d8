from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured


class DeadLettersConfig(AppConfig):
    """App of dead letters; registers their bulk acts."""

    name = "switchyard.dead_letters"
    label = "switchyard_dead_letters"
    verbose_name = "Dead letters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the bulk acts on dead letters.

        Raises:
            ImproperlyConfigured: Django's admin is not installed; its log has a line for each act of a person.
        """
        if not apps.is_installed("django.contrib.admin"):
            raise ImproperlyConfigured(
                'INSTALLED_APPS lacks "django.contrib.admin", which the pages and the log of acts are part of: add it, '
                "with auth, contenttypes, sessions and messages of django.contrib"
            )
        from switchyard.bulk.kinds import register
        from switchyard.dead_letters.bulk_moves import BulkMove
        from switchyard.dead_letters.models import DeadLetter

        register("letter.requeue", BulkMove("requeue", DeadLetter.State.REQUEUED))
        register("letter.discard", BulkMove("discard", DeadLetter.State.DISCARDED))
