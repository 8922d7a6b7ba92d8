"""A small yard that is not this project's."""

from switchyard.broker.topology import Pool, Queue, Yard

PARCELS = Queue("parcels", objective_ms=2_500, soft_limit_ms=10_000, hard_limit_ms=20_000)
LETTERS = Queue("letters", objective_ms=None, soft_limit_ms=10_000, hard_limit_ms=20_000)
VANS = Pool("vans", "processes", ("parcels", "letters"), processes=3, slots=1)
SPARE = Pool("spare", "threads", (), processes=1, slots=5, shared_retries=True, database_connections=2)
YARD = Yard(queues=(PARCELS, LETTERS), pools=(VANS, SPARE))
