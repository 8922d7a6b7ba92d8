"""Add-ons of the library, each a package with an ``ADDON``: :mod:`switchyard.addon` finds it, nothing imports it."""
