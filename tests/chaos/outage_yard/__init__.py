"""The project with all its products, retries hurried by ``OUTAGE_SPEED``, and probes of live work beside them."""
