"""Chest X-ray classifiers, from a clean machine to a model one can defend."""

__version__ = "0.1.0"
