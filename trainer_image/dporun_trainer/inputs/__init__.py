"""What prepare does: fetch model and data, and refuse what could never train, before a GPU is held."""
