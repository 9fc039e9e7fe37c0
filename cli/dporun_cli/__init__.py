"""The ``dporun`` command, also installed as ``kubectl-dporun``."""
