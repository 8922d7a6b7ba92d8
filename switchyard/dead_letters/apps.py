from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    """App of dead letters; registers their bulk acts."""

    name = "switchyard.dead_letters"
    label = "switchyard_dead_letters"
    verbose_name = "Dead letters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.bulk.kinds import register

        for name in ("acknowledge", "requeue", "discard", "restore", "canary", "take_back"):
            register(f"letter.{name}", f"switchyard.dead_letters.bulk_moves:{name.upper()}")
