from django.apps import AppConfig


class BatchesConfig(AppConfig):
    """App of batches; registers their bulk acts."""

    name = "switchyard.batches"
    label = "switchyard_batches"
    verbose_name = "Batches"

    def ready(self) -> None:
        from switchyard.bulk.kinds import register

        register("batch.cancel", "switchyard.batches.acts:CANCEL")
        register("batch.retry", "switchyard.batches.acts:RETRY")
