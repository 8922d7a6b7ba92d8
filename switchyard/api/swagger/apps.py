from importlib.util import find_spec
from pathlib import Path

from django.apps import AppConfig


class SwaggerConfig(AppConfig):
    name = "switchyard.api.swagger"
    label = "switchyard_api_swagger"
    # django-ninja's templates and static files, without its code; without it a folder that has neither.
    path = (getattr(find_spec("ninja"), "submodule_search_locations", None) or [str(Path(__file__).parent)])[0]
