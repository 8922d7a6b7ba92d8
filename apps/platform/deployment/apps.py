from django.apps import AppConfig


class DeploymentConfig(AppConfig):
    name = "apps.platform.deployment"
    label = "switchyard_deployment"
    verbose_name = "Deployment files"
