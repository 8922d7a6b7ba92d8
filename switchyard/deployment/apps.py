from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, register

from switchyard.conf import switchyard_settings
from switchyard.workers.checks import TAG


def containers_hold_their_pools(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Check the compose file of this project, if it has one, on ``check --deploy``, which alone loads what it needs."""
    from switchyard.deployment.rendered_files import COMPOSE_FILE, RENDERED_CORES, given_mib, too_small

    own = switchyard_settings()
    file = own.base_dir / COMPOSE_FILE
    given = given_mib(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return too_small(own.topology.with_cores(RENDERED_CORES), given)


class DeploymentConfig(AppConfig):
    name = "switchyard.deployment"
    label = "switchyard_deployment"
    verbose_name = "Deployment files"

    def ready(self) -> None:
        """Register the system check."""
        register(containers_hold_their_pools, TAG, deploy=True)
