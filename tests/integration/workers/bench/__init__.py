"""An app with actors that tell where they ran, and settings that put it into a small yard of all kinds of pools."""
