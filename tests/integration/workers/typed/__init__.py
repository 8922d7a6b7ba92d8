"""An app with an actor for each kind of pool that takes every type of arguments."""
