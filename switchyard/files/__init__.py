"""Files off the local disk: addresses of storages as entries of ``STORAGES``, and the classes that they name.

An address is one URL (``file:``, ``s3://``, ``gs://``). ``django-storages`` has the clients; what is added here:

- a storage that does not answer costs its caller 5 s at most, and its error is :class:`StorageUnavailable`,
- content is fetched when a file is opened, in memory up to 8 MiB and on the disk from there on,
- objects are private whatever a project's ``AWS_`` and ``GS_`` settings say; links exist only where the address asks.

Order of reading: ``addresses``, ``bucket``, ``s3``, ``google``. Public: ``addresses.declared_storage`` for a
project's settings, and the errors.
"""
