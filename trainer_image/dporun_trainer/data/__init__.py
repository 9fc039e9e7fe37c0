"""Preference pairs and general questions: what inputs, training and evaluation share."""
