from django.apps import AppConfig


class DeploymentConfig(AppConfig):
    name = "apps.platform.deployment"
    label = "deployment"
    verbose_name = "Deployment files"
