from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("operations", "0001_initial")]

    operations = [
        migrations.AlterModelOptions(
            name="operationsroom",
            options={
                "default_permissions": (),
                "managed": False,
                "permissions": (
                    ("view_operations", "Can see the operations room"),
                    ("dump_stacks", "Can see where the threads of workers stand"),
                ),
                "verbose_name_plural": "operations room",
            },
        ),
    ]
