"""Permissions of the operations room. The model has no table: the data comes from the broker."""

from django.db import models


class OperationsRoom(models.Model):
    """Unmanaged model that carries the permissions."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = (
            ("view_operations", "Can see the operations room"),
            ("dump_stacks", "Can see where the threads of workers stand"),
            ("pause_queue", "Can pause and resume queues, and move waiting messages"),
            ("purge_queue", "Can purge queues"),
            ("instruct_workers", "Can quiet and stop workers, and let them take work again"),
            ("change_settings", "Can change settings"),
        )
        verbose_name_plural = "operations room"
