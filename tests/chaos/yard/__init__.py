"""An app and settings for real pools under chaos: one queue, one pool, an actor that writes into a ledger."""
