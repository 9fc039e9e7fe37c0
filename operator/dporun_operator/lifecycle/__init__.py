"""The life of a run: what to do next, decided from the run and what was observed of it.

``decide`` is the table of contents; every step has a file of its own. All of it is pure: no input, no output, and the
time is an argument. A step adds to a ``Draft``, which becomes the ``Plan`` that ``reconcile`` carries out. Whatever a
step must know of earlier reconciliations is a typed field of the run's status, or the status of a condition; reasons
and messages are for people and tools.
"""
