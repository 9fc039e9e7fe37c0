"""Decisions: pure functions from a run and what was observed to what should be. No I/O; the time is an argument."""
