"""Runs whose illness is known from how they were made, simulated and real, to judge the diagnosis by.

criteria  what makes a run healthy or ill, as code: the only place that gives labels
simulator, recipes  simulated runs: a seeded model of the margins of single pairs, which writes a log
real, real_recipes, pairs, probe  makes real runs with TRL and measures their true course
recorded  the real runs as they are recorded
confusion  what the diagnosis says of them: the tables of docs/health.md
"""
