"""Deployment files: ``templates/``, filled by ``rendered_files.py`` with the figures of the declared yard."""
