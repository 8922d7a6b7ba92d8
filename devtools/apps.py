from django.apps import AppConfig


class DevtoolsConfig(AppConfig):
    """Management commands for development: ``runpools --chaos`` and ``measure_pools``.

    Listed before ``switchyard.workers``, whose ``runpools`` this app's command extends.
    """

    name = "devtools"
    label = "devtools"
