"""The library's addresses alone: products and their pages are left out."""

from django.contrib import admin
from django.urls import include, path

admin.autodiscover()  # see tests.library_apps

urlpatterns = [path("", include("switchyard.urls")), path("admin/", admin.site.urls)]
