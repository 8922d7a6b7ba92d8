from django.apps import AppConfig


class QueuesConfig(AppConfig):
    name = "switchyard.queues"
    label = "switchyard_queues"
    verbose_name = "Queues"
