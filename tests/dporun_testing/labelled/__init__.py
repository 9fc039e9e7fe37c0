"""Runs whose illness is known from how they were made, simulated and real, to judge the diagnosis by.

criteria  what makes a run healthy or ill, as code: the only place that gives labels
simulator  a seeded model of the margins of single pairs, which writes a log history as transformers does
recipes  the simulated runs
real  the real runs: makes them with TRL, reads those that are recorded in recorded/
confusion  what the diagnosis says of them: the tables of docs/health.md
"""
