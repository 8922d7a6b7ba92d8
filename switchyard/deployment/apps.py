from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, register

from switchyard.workers.checks import TAG


def containers_hold_their_pools(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Check the compose file of this project, if it has one, on ``check --deploy``, which alone loads what it needs."""
    from switchyard.deployment import rendered_files

    return rendered_files.containers_hold_their_pools()


class DeploymentConfig(AppConfig):
    name = "switchyard.deployment"
    label = "switchyard_deployment"
    verbose_name = "Deployment files"

    def ready(self) -> None:
        """Register the system check."""
        register(containers_hold_their_pools, TAG, deploy=True)
