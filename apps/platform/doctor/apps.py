from django.apps import AppConfig


class DoctorConfig(AppConfig):
    name = "apps.platform.doctor"
    label = "doctor"
    verbose_name = "Doctor"
