"""Files off the local disk: addresses of storages as entries of ``STORAGES``, and the classes that they name.

An address is one URL (``file:``, ``s3://``, ``gs://``); ``django-storages`` has the clients. Here a storage that does
not answer costs its caller 5 s at most, with :class:`StorageUnavailable`; content is fetched when a file is opened, in
memory up to 8 MiB; objects are private whatever a project's settings say, and links exist only where the address asks.

Order of reading: ``addresses``, ``bucket``, ``s3``, ``google``. Public: ``addresses.declared_storage`` for a
project's settings, and the errors.
"""
