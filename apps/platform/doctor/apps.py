from django.apps import AppConfig


class DoctorConfig(AppConfig):
    name = "apps.platform.doctor"
    label = "switchyard_doctor"
    verbose_name = "Doctor"
