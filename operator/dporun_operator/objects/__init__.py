"""The children of a run, one file per kind, as plain data. Every builder takes a run (and the settings where it needs
them) and returns one manifest; whether the cluster shall have it is decided in ``lifecycle``.
"""
