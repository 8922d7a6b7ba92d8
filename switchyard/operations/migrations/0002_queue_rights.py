from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("switchyard_operations", "0001_initial")]

    operations = [
        migrations.AlterModelOptions(
            name="operationsroom",
            options={
                "default_permissions": (),
                "managed": False,
                "permissions": (
                    ("view_operations", "Can see the operations room"),
                    ("dump_stacks", "Can see where the threads of workers stand"),
                    ("pause_queue", "Can pause and resume queues, and move waiting messages"),
                    ("purge_queue", "Can purge queues"),
                    ("change_settings", "Can change settings"),
                ),
                "verbose_name_plural": "operations room",
            },
        ),
    ]
