from django.apps import AppConfig


class FrameConfig(AppConfig):
    name = "switchyard.frame"
    label = "switchyard_frame"
    verbose_name = "Frame of the operations room"
