from django.apps import AppConfig


class BatchesConfig(AppConfig):
    name = "switchyard.batches"
    label = "switchyard_batches"
    verbose_name = "Batches"
