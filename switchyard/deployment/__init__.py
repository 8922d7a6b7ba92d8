"""Deployment files: ``templates/``, filled by ``rendered_files.py`` with the figures of the declared yard.

It keeps true: the same yard gives the same bytes, and ``bin/test`` fails when committed files differ. A new target is
a template, no generator. Files in reading order: ``rendered_files`` (memory, processors, connections, the check).
"""
