from django.apps import AppConfig
from django.core.checks import register

from switchyard.deployment.checks import containers_hold_their_pools
from switchyard.workers.checks import TAG


class DeploymentConfig(AppConfig):
    name = "switchyard.deployment"
    label = "switchyard_deployment"
    verbose_name = "Deployment files"

    def ready(self) -> None:
        """Register the system check."""
        register(containers_hold_their_pools, TAG, deploy=True)
