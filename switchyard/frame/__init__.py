"""Frame of every page of the operations room: base template, menu, verdict strip, search, theme and keys.

It keeps true: a page works without JavaScript and under ``script-src 'self'``, reverses no ``admin:`` name, and waits
for no server that does not answer; control characters of shown text are visible and harmless.

Files in reading order: ``views`` (the strip, the menu and the search),
``control_characters`` and ``silent_database`` (Django middleware). Public: the two middleware, and the base template
``switchyard_frame/base.html``.
"""
