from django.apps import AppConfig


class QueuesConfig(AppConfig):
    name = "apps.platform.queues"
    label = "switchyard_queues"
    verbose_name = "Queues"
