from django.apps import AppConfig


class DoctorConfig(AppConfig):
    name = "switchyard.doctor"
    label = "switchyard_doctor"
    verbose_name = "Doctor"
