"""A cluster in memory, in virtual time: an API server, its controllers, a node, a trainer, S3, and what goes wrong."""
