"""Settings, a yard and actors for pools and schedulers on two hosts that share nothing but servers."""
