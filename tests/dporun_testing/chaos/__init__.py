"""Chaos on a real cluster: runs of the stand-in trainer while everything around them is killed, and what must hold."""
