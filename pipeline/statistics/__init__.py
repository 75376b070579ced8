"""Scores and their intervals: one patient-cluster bootstrap, shared by every score of a table.

No module here knows files, models or data sets; all take arrays and give numbers.
"""
